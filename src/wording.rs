//! Numbers with their nouns.

/// `1 image`, `2 images`: nouns whose plural ends in an s.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}
