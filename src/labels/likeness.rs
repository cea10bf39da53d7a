//! Names that someone may have meant.

/// The name most like `label`, if any is like it: equal but for case and `_`, or few edits away.
pub(crate) fn nearest(names: &[String], label: &str) -> Option<String> {
    let plain = |text: &str| text.to_lowercase().replace(['_', '-'], " ");
    let wanted = plain(label);
    // Words this long are no typing mistakes, and comparing them takes time.
    if wanted.len() > 64 {
        return None;
    }
    let scored = names.iter().map(|name| (edits(&plain(name), &wanted), name));
    let (distance, name) = scored.min_by_key(|&(distance, _)| distance)?;
    (distance <= wanted.chars().count() / 3).then(|| name.clone())
}

/// Levenshtein's distance (characters).
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    // One row of the table, overwritten from the left. `diagonal` keeps the value of the row above that is needed once
    // more.
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_alike_are_suggested() {
        let names = ["yin yang", "sea horse"].map(String::from);
        assert_eq!(nearest(&names, "Sea_horse").as_deref(), Some("sea horse"));
        assert_eq!(nearest(&names, "zebra"), None);
    }
}
