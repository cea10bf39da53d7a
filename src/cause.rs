//! Causes from below that this crate does not interpret.

/// An error of another crate.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;
