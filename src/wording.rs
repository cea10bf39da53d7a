//! Numbers with their nouns.

/// The verb that fits a number.
#[cfg(feature = "eval")]
pub(crate) fn verb(count: usize, one: &'static str, more: &'static str) -> &'static str {
    if count == 1 { one } else { more }
}

/// `1 image`, `2 images`: nouns whose plural ends in an s.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}
