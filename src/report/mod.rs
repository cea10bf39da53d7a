//! Output about a result: JSON records, traces and pictures.

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
pub(crate) use evaluation::evaluation_html;
pub use explain::png_bytes;
pub(crate) use explain::{explain, write_png};
pub(crate) use features::features_bytes;
#[cfg(feature = "eval")]
pub(crate) use plots::success_curve;
pub(crate) use record::{ErrorRecord, ImageRecord};
pub(crate) use sheet::view_sheet;
pub(crate) use trace::trace_bytes;
