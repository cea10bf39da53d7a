//! Sources of frames: image files, a watched folder, MJPEG from standard input or a command, a V4L2 camera.
//!
//! A source gives one picture after another, and in the end the reason that there are no more; [`supervise`] opens it again
//! and again. Pixels are decoded elsewhere: a picture is the bytes of an image file, or a camera's raw buffer.

mod camera;
mod command;
mod images;
mod jpegs;
mod spec;
mod supervisor;
mod v4l2;
mod wait;
mod watched;

pub(crate) use camera::{
    CameraError, CameraFormat, CameraReport, Layout, OfferedFormat, look_at_camera, video_devices,
};
pub use jpegs::JpegSplitter;
pub(crate) use spec::SourceSpec;
pub(crate) use supervisor::{SourceSettings, SourceState, SourceStatus, supervise};
pub(crate) use wait::Wait;

use crate::views::{encode_jpeg, yuyv_pixels};

/// A picture of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    /// The file's path, or nothing for a camera's frame.
    pub name: Option<String>,
    /// Image file or raw pixels.
    pub content: Content,
}

/// The content of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// The bytes of an image file.
    File(Vec<u8>),
    /// A camera's buffer of raw YUYV pixels.
    Yuyv {
        /// Columns (pixels).
        width: usize,
        /// Rows (pixels).
        height: usize,
        /// Distance of rows (bytes).
        stride: usize,
        /// The buffer.
        bytes: Vec<u8>,
    },
}

/// Quality of the JPEG that raw pixels become (1–100): what is recorded and shown is what was classified.
const RAW_QUALITY: u8 = 95;

impl Content {
    /// The bytes of an image file; raw pixels become a JPEG, so that a frame can be recorded, shown and replayed.
    ///
    /// This takes time, and is done only for frames that are looked at. `None` if the buffer is too short.
    pub(crate) fn into_file(self) -> Option<Vec<u8>> {
        match self {
            Self::File(bytes) => Some(bytes),
            Self::Yuyv { width, height, stride, bytes } => {
                Some(encode_jpeg(&yuyv_pixels(width, height, stride, &bytes)?, RAW_QUALITY))
            }
        }
    }
}

/// Reason that a source gives no more pictures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SourceFailure {
    /// It could not be opened or read, for this reason.
    Failed(String),
    /// It came to its end, in this way.
    Ended(String),
    /// No picture came in time.
    TimedOut,
    /// Pictures of the source cannot be decoded, for this reason.
    Undecodable(String),
    /// The daemon stopped it.
    Stopped,
}

impl std::fmt::Display for SourceFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(problem) | Self::Undecodable(problem) => f.write_str(problem),
            Self::Ended(how) => write!(f, "it ended: {how}"),
            Self::TimedOut => f.write_str("no frame came in time"),
            Self::Stopped => f.write_str("it was stopped"),
        }
    }
}

/// An open source.
pub(crate) trait Source {
    /// The next picture.
    ///
    /// # Errors
    /// There is none any more, or none in the time that `wait` allows.
    fn next(&mut self, wait: &Wait) -> Result<Picture, SourceFailure>;

    /// Pictures that were cut short or too long, and dropped (count).
    fn dropped(&self) -> u64 {
        0
    }

    /// Pictures that are there already and wait to be taken (count).
    fn waiting(&self) -> usize {
        0
    }
}
