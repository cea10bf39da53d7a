//! Ways for an image file to be refused.

use crate::cause::Cause;

pub(crate) type Result<T> = std::result::Result<T, ImageError>;

/// An image file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// An image file of no bytes.
    #[error("the file is empty, expected an image; was it copied whole?")]
    Empty,
    /// An image file over the byte limit.
    #[error("the file is larger than {limit} bytes; make it smaller before classifying it")]
    FileTooLarge {
        /// The bound (bytes).
        limit: u64,
    },
    /// The content is of no image format that is read.
    #[error("this is {found}, not a JPEG, PNG, BMP or WebP image{}", conversion(*converter))]
    FormatUnknown {
        /// Kind of file by its first bytes.
        found: &'static str,
        /// Program that makes a JPEG of such a file, if it is one that is known.
        converter: Option<&'static str>,
    },
    /// The image claims sides that are 0 or past the limits.
    #[error(
        "the image claims {width}×{height} pixels, expected sides of 1 to {side_max} and at most {pixels_max} pixels in all; make it smaller"
    )]
    Size {
        /// Claimed columns.
        width: u32,
        /// Claimed rows.
        height: u32,
        /// Largest side (pixels).
        side_max: u32,
        /// Largest area (pixels).
        pixels_max: u64,
    },
    /// An image some of whose pixels are not in the file, or one that was made to keep decoders busy.
    #[error("the image is damaged: {problem}; get the file again")]
    Damaged {
        /// The damage.
        problem: &'static str,
        /// True if what is left of it can be answered for, with [`DamagedImages::Answer`](crate::DamagedImages::Answer).
        answerable: bool,
    },
    /// The image is damaged or cut short.
    #[error("the image cannot be decoded: {source}; it is damaged or cut short; get the file again")]
    Corrupt {
        /// Error of the decoder.
        source: Cause,
    },
}

fn conversion(converter: Option<&str>) -> String {
    match converter {
        Some(program) => format!("; convert it to JPEG, as with {program}"),
        None => ", whatever its name says".into(),
    }
}
