//! Frames over time: from a source to decisions, one after another.
//!
//! All frames of a source go through [`decide`], in order, on one thread. It is the seam for what frames have in common:
//! views that one frame could share with the next, or a budget of time a frame, belong there and nowhere else.

mod inbox;

pub(crate) use inbox::{Inbox, Taken};

use std::time::{SystemTime, UNIX_EPOCH};

use crate::answer::Answer;
use crate::cancellation::CancellationToken;
use crate::classifier::Classifier;
use crate::error::Result;
use crate::extractor::CacheUse;
use crate::source::Picture;
use crate::views::ImageError;

/// A picture on its way to the encoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Number since the daemon started, from 1.
    pub sequence: u64,
    /// Arrival time of the frame (milliseconds since 1970).
    pub unix_ms: u64,
    /// True if the frame is a camera's, of which no two are alike.
    pub live: bool,
    /// Picture that the frame shows.
    pub picture: Picture,
}

/// Decision made of a frame.
pub(crate) struct Decision {
    /// Number since the daemon started, from 1.
    pub sequence: u64,
    /// Arrival time of the frame (milliseconds since 1970).
    pub unix_ms: u64,
    /// The file's path, or nothing for a camera's frame.
    pub name: Option<String>,
    /// The bytes of the image file that was classified.
    pub file: Vec<u8>,
    /// The answer.
    pub answer: Answer,
}

/// Milliseconds since 1970, by the device's clock.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

/// Classifies one frame with the classifier's own views, labels and head.
///
/// A camera's frames are neither looked up nor remembered: no two are the same, and writing each would wear out an SD
/// card.
///
/// # Errors
/// The frame cannot be decoded, or the encoder fails.
pub(crate) fn decide(frame: Frame, classifier: &Classifier, token: &CancellationToken) -> Result<Decision> {
    let Frame { sequence, unix_ms, live, picture } = frame;
    // Raw pixels become a JPEG here and not where they are read: a frame that is dropped costs no encoding.
    let cut_short = || ImageError::Corrupt { source: "the camera's buffer is shorter than its rows".into() };
    let file = picture.content.into_file().ok_or_else(cut_short)?;
    let cache = if live { CacheUse::Bypass } else { CacheUse::LookUp };
    let answer = classifier.classify_in(&file, classifier.plan(), cache, token)?;
    Ok(Decision { sequence, unix_ms, name: picture.name, file, answer })
}
