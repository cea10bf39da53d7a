//! What is shown or written about a result: JSON records, traces and pictures.

mod canvas;
mod explain;
mod record;
mod trace;

pub use explain::{explain, png_bytes};
pub use record::{ErrorRecord, ImageRecord, RECORD_SCHEMA};
pub use trace::trace_bytes;
