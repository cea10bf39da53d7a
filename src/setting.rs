//! Settings that are out of their range.

/// A setting with a value that it cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {found}, expected {expected}")]
#[non_exhaustive]
pub struct SettingError {
    /// The setting, as in "the number of views".
    pub what: &'static str,
    /// Allowed values.
    pub expected: String,
    /// The value.
    pub found: String,
}
