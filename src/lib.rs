//! Robust zero-shot image classification on small devices.
//!
//! A frozen CLIP-style image encoder sees many views of one image; a method such as R-TPT (CVPR 2025) or T-VSS tunes a
//! few numbers to that image, and all views are averaged by how well they agree. An image that was altered to mislead
//! the encoder misleads it in one view, seldom in most.
//!
//! ```text
//! bytes ─ views ─► [V,3,R,R] ─ encoder ─► F [V,D] ─┬─ method ─► decision ─► answer [C]
//!          labels ─ text tower ─► T [C,D] ─────────┘
//! ```
//!
//! Shapes: `V` views, `C` classes, `D` embedding width, `R` input resolution (pixels), `S` selected views, `W` text
//! width, `L` tokens, `M` context tokens, `P` tokens all prompts begin with. Matrices are row-major, one item a row.
//!
//! ```no_run
//! use rtpt_edge::{Bundle, Classifier, Labels};
//!
//! fn main() -> Result<(), rtpt_edge::Error> {
//!     let bundle = Bundle::open("models/everyday/bundle")?;
//!     let classifier = Classifier::builder(&bundle).labels(Labels::new(["dog", "cup", "elephant"])?).views(16).build()?;
//!     let answer = classifier.classify(&std::fs::read("models/everyday/photos/dog.jpg")?)?;
//!     println!("{} ({:.0} %)", answer.best().label, answer.best().probability * 100.0);
//!     Ok(())
//! }
//! ```
//!
//! The Cargo features `cli`, `daemon` and `eval` are the program's: whoever embeds this crate needs none of them.

// `pub` then means that other crates can reach it, as a re-export here or in `internal`; the rest is `pub(crate)`.
#![warn(unreachable_pub)]
// What the program alone uses is checked where all of it is built.
#![cfg_attr(not(all(feature = "cli", feature = "daemon", feature = "eval")), allow(dead_code, unused_imports))]

mod cause;
mod limits;
mod setting;
mod wording;

mod cancellation;
mod files;
mod timings;

mod device;
mod directions;
mod products;
mod rows;

mod views;

mod encoder;

mod examples;
mod labels;
mod text;

mod tuning;

mod reliability;

mod method;

mod tamper;

mod bundle;

mod error;

mod kernels;
mod label_set;

mod cache;

mod rounds;

mod calibration;

mod extractor;
mod predictor;

mod answer;

mod builder;
mod classifier;

#[cfg(feature = "cli")]
mod heap;

#[cfg(feature = "cli")]
mod check;
#[cfg(feature = "cli")]
mod import;
#[cfg(feature = "cli")]
mod listing;
#[cfg(feature = "cli")]
mod quantise;
#[cfg(feature = "cli")]
mod report;
#[cfg(feature = "cli")]
mod signing;

#[cfg(feature = "eval")]
mod attack;
#[cfg(feature = "eval")]
mod eval;
#[cfg(feature = "eval")]
mod metrics;

#[cfg(feature = "daemon")]
mod daemon;
#[cfg(feature = "daemon")]
mod lock;
#[cfg(feature = "daemon")]
mod recording;
#[cfg(feature = "daemon")]
mod slots;
#[cfg(feature = "daemon")]
mod source;
#[cfg(feature = "daemon")]
mod stream;

#[cfg(feature = "cli")]
mod cli;

#[cfg(all(feature = "daemon", feature = "eval"))]
mod fuzz;

pub use answer::{Answer, Prediction, Tamper};
pub use builder::ClassifierBuilder;
pub use bundle::{Bundle, BundleError};
pub use cache::FeatureCache;
pub use cancellation::Cancelled;
pub use classifier::Classifier;
pub use encoder::EncoderError;
pub use error::{Error, ProgramError};
pub use examples::ExamplesError;
pub use extractor::Features;
pub use files::FileError;
pub use labels::{Labels, LabelsError};
pub use method::{Method, MethodSettings};
pub use setting::SettingError;
pub use tamper::TamperScore;
pub use text::{Prompt, TensorError, TextError};
pub use timings::Timings;
pub use views::{Augment, DamagedImages, ImageError};

#[doc(hidden)]
pub mod internal;

/// Compiles the Rust blocks of the documents.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../README.md")]
    mod readme {}
    #[doc = include_str!("../docs/library.md")]
    mod library {}
}
