//! Robust zero-shot image classification on small devices.
//!
//! A frozen CLIP-style image encoder sees many views of one image; R-TPT (CVPR 2025) tunes a small text-embedding head
//! on the views it is most sure of and averages all views by how well they agree. An image that was altered to
//! mislead the encoder misleads it in one view, seldom in most.
//!
//! ```text
//! bytes ─ views ─► [V,3,R,R] ─ encoder ─► F [V,D] ─┬─ tuning over a head ─► Z [V,C] ─┐
//!                labels ─ text tower ─► T [C,D] ────┘                                 ├─ ensemble ─► answer [C]
//!                                          F [V,D] ─── reliability ─────► w [V] ─────┘
//! ```
//!
//! Shapes: `V` views, `C` classes, `D` embedding width, `R` input resolution (pixels), `S` selected views, `W` text
//! width, `L` tokens, `M` context tokens, `P` tokens all prompts begin with. Matrices are row-major, one item a row.
//!
//! [`Classifier`] runs the stages in order; each stage is a module that knows arrays, not the other stages. A [`daemon`]
//! does so all day, for frames from a [`source`] and for requests over HTTP, and keeps a [`recording`].
//!
//! ```no_run
//! use rtpt_edge::{Bundle, Classifier, ClassifierSettings, LabelSet};
//!
//! # fn main() -> rtpt_edge::Result<()> {
//! let bundle = Bundle::open("models/demo/bundle".as_ref())?;
//! let settings = ClassifierSettings::of(&bundle);
//! let mut classifier = Classifier::new(&bundle, LabelSet::of(&bundle)?, settings, None)?;
//! let bytes = std::fs::read("photo.jpg").expect("a photo");
//! let outcome = classifier.classify(&bytes)?;
//! let best = rtpt_edge::rows::argmax(outcome.episode.prediction.view());
//! println!("{}", classifier.labels().names()[best]);
//! # Ok(())
//! # }
//! ```

pub mod error;
pub mod files;
pub mod limits;
pub mod listing;
pub mod lock;
pub mod metrics;
pub mod pulse;
pub mod rows;

pub mod device;

mod directions;

pub mod views;

pub mod encoder;

pub mod text;

pub mod head;

pub mod tuning;

pub mod ensemble;

pub mod tamper;

pub mod bundle;

pub mod classes;

pub mod cache;

pub mod calibration;

pub mod extractor;

pub mod answerer;

pub mod classifier;

pub mod check;

#[cfg(feature = "eval")]
pub mod eval;

#[cfg(feature = "eval")]
pub mod attack;

pub mod import;

pub mod report;

#[cfg(feature = "daemon")]
pub mod source;

#[cfg(feature = "daemon")]
pub mod stream;

#[cfg(feature = "daemon")]
pub mod recording;

#[cfg(feature = "daemon")]
pub mod daemon;

pub use answerer::{Answerer, Outcome};
pub use bundle::Bundle;
pub use classes::LabelSet;
pub use classifier::{Classifier, ClassifierSettings};
pub use error::{Error, Result};
pub use extractor::{Extractor, ExtractorSettings};
