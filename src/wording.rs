//! Numbers with their nouns.

/// The verb that fits a number.
#[cfg(feature = "eval")]
pub(crate) fn verb(count: usize, one: &'static str, more: &'static str) -> &'static str {
    if count == 1 { one } else { more }
}

/// Longest part of a user's text that a message quotes (characters).
const QUOTED_MAX: usize = 40;

/// A user's text as messages quote it, cut if it is long.
pub(crate) fn quoted(text: &str) -> String {
    if text.chars().count() <= QUOTED_MAX {
        return format!("{text:?}");
    }
    let kept: String = text.chars().take(QUOTED_MAX - 1).collect();
    format!("{:?}", kept + "…")
}

/// `1 image`, `2 images`: nouns whose plural ends in an s.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}
