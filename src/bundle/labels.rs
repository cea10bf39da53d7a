//! Label sets: which of a bundle's classes an image is classified into.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use ndarray::{Array2, Axis};

use super::tensors::ClassTable;
use crate::error::{Error, Result};
use crate::limits::{CLASSES_MAX, CLASSES_MIN, LABEL_BYTES_MAX, LABELS_FILE_BYTES_MAX};

/// The labels of one run and their embeddings.
#[derive(Clone, Debug)]
pub struct LabelSet {
    /// Labels `[C]`, all different, in the order given.
    pub names: Vec<String>,
    /// T `[C, D]`, unit rows.
    pub embeddings: Array2<f32>,
}

impl LabelSet {
    /// The embeddings of `names` from a bundle's table, by exact name.
    ///
    /// # Errors
    /// Fewer than two labels, a label given twice, or one the bundle does not have.
    pub fn choose(table: &ClassTable, names: Vec<String>) -> Result<Self> {
        if !(CLASSES_MIN..=CLASSES_MAX).contains(&names.len()) {
            return Err(Error::LabelCount { found: names.len(), min: CLASSES_MIN, max: CLASSES_MAX });
        }
        let rows: HashMap<&str, usize> = table.names.iter().map(String::as_str).zip(0..).collect();
        let mut seen = HashMap::new();
        let mut chosen = Vec::with_capacity(names.len());
        for (entry, name) in names.iter().enumerate() {
            if let Some(first) = seen.insert(name, entry) {
                return Err(Error::LabelDuplicate { label: name.clone(), first: first + 1, second: entry + 1 });
            }
            let row = rows.get(name.as_str());
            chosen
                .push(*row.ok_or_else(|| Error::LabelUnknown { label: name.clone(), nearest: nearest(table, name) })?);
        }
        Ok(Self { embeddings: table.embeddings.select(Axis(0), &chosen), names })
    }
}

/// Reads a labels file: UTF-8, one label a line; blank lines and lines that start with `#` are passed over.
///
/// # Errors
/// The file cannot be read, is too large, is no UTF-8, or has a label that is too long.
pub fn read_labels(path: &Path) -> Result<Vec<String>> {
    let unreadable = |source| Error::LabelsUnreadable { path: path.into(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(LABELS_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    parse_labels(&bytes, path)
}

/// Parses the bytes of a labels file; `path` is only named in errors.
pub fn parse_labels(bytes: &[u8], path: &Path) -> Result<Vec<String>> {
    let malformed = |problem: String| Error::LabelsMalformed { path: path.into(), problem };
    if bytes.len() as u64 > LABELS_FILE_BYTES_MAX {
        return Err(malformed(format!("is larger than {LABELS_FILE_BYTES_MAX} bytes")));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| malformed(format!("is not UTF-8 ({error})")))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let labels = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let labels: Vec<String> = labels.map(String::from).collect();
    if labels.is_empty() {
        return Err(malformed("holds no label".into()));
    }
    match labels.iter().find(|label| label.len() > LABEL_BYTES_MAX) {
        Some(label) => Err(malformed(format!("has a label of {} bytes, more than {LABEL_BYTES_MAX}", label.len()))),
        None => Ok(labels),
    }
}

/// The class name most like `label`, if any is like it: equal but for case and `_`, or few edits away.
fn nearest(table: &ClassTable, label: &str) -> Option<String> {
    let plain = |text: &str| text.to_lowercase().replace(['_', '-'], " ");
    let wanted = plain(label);
    // Words this long are no typing mistakes, and comparing them takes time.
    if wanted.len() > 64 {
        return None;
    }
    let scored = table.names.iter().map(|name| (edits(&plain(name), &wanted), name));
    let (distance, name) = scored.min_by_key(|&(distance, _)| distance)?;
    (distance <= wanted.chars().count() / 3).then(|| name.clone())
}

/// Levenshtein's distance (characters).
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
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
    use ndarray::array;

    use super::*;

    fn table() -> ClassTable {
        ClassTable {
            names: ["yin yang", "sea horse", "watch"].map(String::from).to_vec(),
            embeddings: array![[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]],
        }
    }

    fn choose(names: &[&str]) -> Result<LabelSet> {
        LabelSet::choose(&table(), names.iter().map(|name| name.to_string()).collect())
    }

    #[test]
    fn labels_keep_their_order() {
        let set = choose(&["watch", "yin yang"]).unwrap();
        assert_eq!(set.embeddings, array![[0.6, 0.8], [1.0, 0.0]]);
    }

    #[test]
    fn bad_label_sets_are_refused_with_advice() {
        assert!(matches!(choose(&[]), Err(Error::LabelCount { found: 0, .. })));
        assert!(matches!(choose(&["watch"]), Err(Error::LabelCount { found: 1, .. })));
        let twice = choose(&["watch", "sea horse", "watch"]);
        assert!(matches!(twice, Err(Error::LabelDuplicate { first: 1, second: 3, .. })));
        let message = choose(&["watch", "Sea_horse"]).unwrap_err().to_string();
        assert!(message.contains("did you mean \"sea horse\"?"), "{message}");
        let message = choose(&["watch", "zebra"]).unwrap_err().to_string();
        assert!(!message.contains("did you mean"), "{message}");
    }

    #[test]
    fn files_may_have_comments_blank_lines_and_a_byte_order_mark() {
        let parsed = parse_labels("\u{feff}# seen here\n\n watch \r\nsea horse\n".as_bytes(), Path::new("x")).unwrap();
        assert_eq!(parsed, ["watch", "sea horse"]);
        for (bytes, problem) in [
            (b"".to_vec(), "holds no label"),
            (b"# only\n\n".to_vec(), "holds no label"),
            (vec![0xff, 0xfe, 0x00], "is not UTF-8"),
            (vec![b'x'; LABEL_BYTES_MAX + 1], "has a label of 1025 bytes"),
            (vec![b'x'; LABELS_FILE_BYTES_MAX as usize + 1], "is larger than"),
        ] {
            let message = parse_labels(&bytes, Path::new("x")).unwrap_err().to_string();
            assert!(message.contains(problem), "{message}");
        }
        assert!(parse_labels(&vec![b'x'; LABEL_BYTES_MAX], Path::new("x")).is_ok());
    }
}
