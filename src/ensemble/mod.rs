//! How many views become one answer: R-TPT's reliability weights, MTA's mode, ZERO's vote.

mod mta;
mod reliability;
mod zero;

pub use mta::{Mode, mean_shift};
pub use reliability::{ReliabilitySettings, reliability_weights};
pub use zero::{Vote, vote};
