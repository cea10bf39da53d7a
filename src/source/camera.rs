//! A V4L2 camera: MJPG and YUYV in mapped buffers.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::jpegs::with_huffman_tables;
use super::v4l2::{Buffers, Device, PixelFormat, code_name};
use super::{Content, Picture, Source, SourceFailure, Wait};
use crate::limits::CAMERA_SIDE_MAX;

/// A camera and its wished settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CameraSpec {
    /// The device file.
    pub device: PathBuf,
    /// Columns and rows (pixels); `None` for those that the camera is set to.
    pub size: Option<(u32, u32)>,
    /// Frames a second; `None` for the rate that the camera is set to.
    pub rate: Option<u32>,
    /// The pixel format; `None` for MJPG where there is a choice.
    pub format: Option<CameraFormat>,
}

/// A pixel format that this program decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CameraFormat {
    /// A JPEG a frame.
    Mjpg,
    /// Raw 4:2:2.
    Yuyv,
}

impl CameraFormat {
    /// The format of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Mjpg, Self::Yuyv].into_iter().find(|format| format.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Mjpg => "mjpg",
            Self::Yuyv => "yuyv",
        }
    }

    /// Codes under which cameras offer the format: some call MJPG `JPEG`.
    fn codes(self) -> &'static [[u8; 4]] {
        const JPEGS: [[u8; 4]; 2] = [*b"MJPG", *b"JPEG"];
        const YUYV: [[u8; 4]; 1] = [*b"YUYV"];
        match self {
            Self::Mjpg => &JPEGS,
            Self::Yuyv => &YUYV,
        }
    }

    fn of_code(code: u32) -> Option<Self> {
        [Self::Mjpg, Self::Yuyv].into_iter().find(|format| format.codes().contains(&code.to_le_bytes()))
    }
}

/// Buffers that the camera fills in turn (count): one to fill, one to read, and some for a slow moment.
const BUFFERS: u32 = 4;

/// An open, streaming camera.
pub(crate) struct Camera {
    buffers: Buffers,
    layout: Layout,
}

/// Layout of the bytes of a frame.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// Pixel format.
    pub format: CameraFormat,
    /// Columns (pixels).
    pub width: usize,
    /// Rows (pixels).
    pub height: usize,
    /// Distance of two rows (bytes).
    pub stride: usize,
}

impl Camera {
    pub(crate) fn open(spec: &CameraSpec) -> Result<Self, SourceFailure> {
        let device = open_device(&spec.device).map_err(|error| SourceFailure::Failed(error.to_string()))?;
        // In this order: a format cannot be changed while there are buffers, and changing it may change the rate.
        let format = choose(&device.formats(), spec)?;
        let (format, pixels) = set_format(&device, spec, format)?;
        // Many drivers lack `VIDIOC_S_PARM`. Frames at another rate are better than none: the inbox drops what is too
        // much.
        if let Some(Err(problem)) = spec.rate.map(|rate| device.set_rate(rate)) {
            log::warn!("{} keeps its own frame rate: {}", spec.device.display(), problem.desc());
        }
        let mut buffers = map_buffers(device)?;
        buffers.queue_all().map_err(cannot_queue)?;
        buffers.start().map_err(|problem| failed("start streaming", problem))?;
        let (width, height) = (pixels.width as usize, pixels.height as usize);
        log::info!("{}: {width}×{height} {}", spec.device.display(), format.name());
        Ok(Self { buffers, layout: Layout { format, width, height, stride: pixels.bytesperline as usize } })
    }
}

impl Layout {
    /// A copy of a frame: the camera writes into its buffer again.
    pub(crate) fn copy(self, frame: &[u8]) -> Content {
        let Self { format, width, height, stride } = self;
        match format {
            CameraFormat::Mjpg => Content::File(with_huffman_tables(frame).into_owned()),
            CameraFormat::Yuyv => Content::Yuyv { width, height, stride, bytes: frame.to_vec() },
        }
    }
}

impl Source for Camera {
    fn next(&mut self, wait: &Wait) -> Result<Picture, SourceFailure> {
        loop {
            wait.readable(self.buffers.file().as_fd())?;
            let filled = match self.buffers.dequeue() {
                Ok(filled) => filled,
                // `poll` may wake without a filled buffer. The deadline that `readable` checks bounds the loop.
                Err(Errno::EAGAIN | Errno::EINTR) => {
                    std::thread::yield_now();
                    continue;
                }
                Err(Errno::ENODEV) => return Err(SourceFailure::Ended("the camera was unplugged".into())),
                Err(problem) => return Err(failed("take a frame", problem)),
            };
            let content = filled.frame().map(|frame| self.layout.copy(frame));
            filled.give_back().map_err(cannot_queue)?;
            // The kernel calls a damaged buffer recoverable (`V4L2_BUF_FLAG_ERROR`): streaming goes on, so the next one
            // is taken.
            if let Some(content) = content {
                return Ok(Picture { name: None, content });
            }
        }
    }
}

fn cannot_queue(problem: Errno) -> SourceFailure {
    failed("give it a buffer", problem)
}

fn failed(what: &str, problem: Errno) -> SourceFailure {
    SourceFailure::Failed(format!("the camera cannot {what}: {}", problem.desc()))
}

/// A device file that is no camera to take frames from.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CameraError {
    /// The file cannot be opened.
    #[error("cannot open {}: {source}", device.display())]
    Unopened {
        /// Device file.
        device: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// The file is no video device.
    #[error("{} is not a video device", device.display())]
    NotVideo {
        /// Device file.
        device: PathBuf,
    },
    /// The device is of a camera, but gives no frames.
    #[error(
        "{} gives no frames; a camera has several device files, and not all give frames; try the next",
        device.display()
    )]
    NoFrames {
        /// Device file.
        device: PathBuf,
    },
}

fn open_device(path: &Path) -> Result<Device, CameraError> {
    let device = Device::open(path).map_err(|source| CameraError::Unopened { device: path.into(), source })?;
    // Whatever the error, a file that does not answer `VIDIOC_QUERYCAP` speaks no V4L2.
    let capability = device.capability().map_err(|_| CameraError::NotVideo { device: path.into() })?;
    if !capability.gives_frames() {
        return Err(CameraError::NoFrames { device: path.into() });
    }
    Ok(device)
}

/// The code of the format to ask for: the one wanted, else MJPG before YUYV.
fn choose(offered: &[u32], spec: &CameraSpec) -> Result<u32, SourceFailure> {
    let wanted = [CameraFormat::Mjpg, CameraFormat::Yuyv];
    let mut wanted = wanted.iter().filter(|&&format| spec.format.is_none_or(|only| only == format));
    wanted
        .find_map(|format| offered.iter().copied().find(|&code| CameraFormat::of_code(code) == Some(*format)))
        .ok_or_else(|| {
            let expected = spec.format.map_or("MJPG or YUYV".into(), |format| format.name().to_uppercase());
            let names: Vec<String> = offered.iter().copied().map(code_name).collect();
            let advice = "use a command such as ffmpeg as the source, which can convert";
            SourceFailure::Failed(format!("the camera offers {}, expected {expected}; {advice}", names.join(", ")))
        })
}

fn set_format(device: &Device, spec: &CameraSpec, code: u32) -> Result<(CameraFormat, PixelFormat), SourceFailure> {
    let mut pixels = device.format().map_err(|problem| failed("tell its format", problem))?;
    pixels.pixelformat = code;
    if let Some((width, height)) = spec.size {
        (pixels.width, pixels.height) = (width, height);
    }
    // Zero leaves both to the driver; the row length of the old format would be a request for padding.
    (pixels.bytesperline, pixels.sizeimage) = (0, 0);
    let found = device.set_format(pixels).map_err(|problem| failed("be set to that format", problem))?;
    // `VIDIOC_S_FMT` does not refuse what it cannot do, but sets the nearest format: what came back is what counts.
    let name = CameraFormat::of_code(found.pixelformat);
    let sides = 1..=CAMERA_SIDE_MAX;
    let Some(name) = name.filter(|_| sides.contains(&found.width) && sides.contains(&found.height)) else {
        let code = code_name(found.pixelformat);
        return Err(SourceFailure::Failed(format!("the camera insists on {}×{} {code}", found.width, found.height)));
    };
    if spec.size.is_some_and(|size| size != (found.width, found.height)) {
        log::warn!("{} gives {}×{} instead of the size asked for", spec.device.display(), found.width, found.height);
    }
    Ok((name, found))
}

fn map_buffers(device: Device) -> Result<Buffers, SourceFailure> {
    let count = device.request_buffers(BUFFERS).map_err(|problem| match problem {
        Errno::EBUSY => SourceFailure::Failed("another program uses the camera".into()),
        problem => failed("give buffers", problem),
    })?;
    // 32 is the kernel's `VIDEO_MAX_FRAME`: a driver that names more cannot mean it.
    Buffers::map(device, count.min(32)).map_err(|problem| failed("map a buffer", problem))
}

/// A video device, and what it offers.
#[derive(Debug)]
pub(crate) struct CameraReport {
    /// The device file.
    pub device: PathBuf,
    /// The camera's name and formats; or the reason that it cannot be used.
    pub found: Result<OfferedFormats, CameraError>,
}

/// Name and formats of a camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OfferedFormats {
    /// Name of the camera.
    pub name: String,
    /// Pixel formats.
    pub formats: Vec<OfferedFormat>,
}

/// A pixel format of a camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OfferedFormat {
    /// Four-character code.
    pub code: String,
    /// True if a camera source decodes it.
    pub understood: bool,
    /// Columns and rows (pixels); of a range the largest.
    pub sizes: Vec<(u32, u32)>,
}

/// Looks at a video device without setting anything.
pub(crate) fn look_at_camera(device: &Path) -> CameraReport {
    let found = open_device(device).map(|open| {
        let described = open.formats().into_iter().map(|code| OfferedFormat {
            code: code_name(code),
            understood: CameraFormat::of_code(code).is_some(),
            sizes: open.sizes(code),
        });
        let formats = described.collect();
        // A name that cannot be read is no reason to hide the formats.
        OfferedFormats { name: open.capability().map_or_else(|_| String::new(), |found| found.name()), formats }
    });
    CameraReport { device: device.into(), found }
}

/// The video devices of this machine, in order of number.
pub(crate) fn video_devices() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let mut numbered: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix("video")?.parse().ok()?;
            Some((number, entry.path()))
        })
        .collect();
    // By number: as text, `video10` would come before `video2`.
    numbered.sort();
    numbered.into_iter().map(|(_, path)| path).collect()
}
