//! Settings that are out of their range.

/// What a setting is called that does not exist: the message is what was found and what there is.
pub(crate) const UNKNOWN: &str = "an unknown setting";

/// A setting with a value that it cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", message(self))]
#[non_exhaustive]
pub struct SettingError {
    /// The setting, as in "the number of views".
    pub what: &'static str,
    /// Allowed values.
    pub expected: String,
    /// The value.
    pub found: String,
}

fn message(SettingError { what, expected, found }: &SettingError) -> String {
    match *what {
        UNKNOWN if expected.is_empty() => found.clone(),
        UNKNOWN => format!("{found}; {expected}"),
        what => format!("{what} is {found}, expected {expected}"),
    }
}
