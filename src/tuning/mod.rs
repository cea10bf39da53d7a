//! The mathematics of test-time tuning: entropy and its gradient, the optimiser, the selection of views.

mod adamw;
mod entropy;
mod selection;

pub(crate) use adamw::{AdamW, AdamWSettings};
pub use entropy::{mean_entropy, mean_entropy_backward, weighted_entropy, weighted_entropy_backward};
pub(crate) use selection::confident_views;
