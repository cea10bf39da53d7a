//! Field recordings: frames with the decisions made of them, in a bounded ring of parts on disk.
//!
//! A part is a folder `part-00000001` of three files that are only ever added to. `frames.bin` is the image files one
//! after another: for a camera's frames an MJPEG stream that players understand. `decisions.jsonl` begins with a line of everything
//! the decisions depend on; then a line a frame says where its image is, its digest, and the decision. A line counts
//! if it is whole and the image it names has that digest, so that a recording cut off anywhere is readable up to there.
//! A new part begins when other labels or settings come into force; the oldest part goes when there is too much.
//!
//! The lines are a hash chain, and each part continues the one before it. `heads.jsonl` says after every second how many lines were on
//! the disk, and where the chain was: what is missing or changed of these was not lost in a power cut.

mod chain;
mod error;
mod part;
mod reader;
mod replay;
mod ring;
mod writer;

pub(crate) use error::RecordingError;
pub(crate) use part::{RecordedDecision, RecordedFrame, RecordedSettings};
pub use reader::Recording;
pub(crate) use reader::RecordingPart;
pub(crate) use replay::{Replayed, WhatIf, replayer};
pub(crate) use writer::{Recorder, RecorderSettings};
