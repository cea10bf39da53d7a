//! What is shown or written about a result: JSON records, traces and pictures.

mod canvas;
#[cfg(feature = "eval")]
mod evaluation;
mod explain;
mod features;
#[cfg(feature = "eval")]
mod plots;
mod record;
mod sheet;
mod trace;

#[cfg(feature = "eval")]
pub use evaluation::evaluation_html;
pub use explain::{explain, png_bytes, write_png};
pub use features::features_bytes;
#[cfg(feature = "eval")]
pub use plots::success_curve;
pub use record::{Answer, ErrorRecord, ImageRecord, RECORD_SCHEMA};
pub use sheet::view_sheet;
pub use trace::trace_bytes;
