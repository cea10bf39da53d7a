//! Labels files.

use std::path::Path;

use super::error::ALONE;
use super::{COMMENT, Labels, LabelsError, Result, check_text, first_twice, trimmed};
use crate::examples::Examples;
use crate::files::read_up_to;
use crate::limits::{CLASSES_MIN, LABEL_BYTES_MAX, LABELS_FILE_BYTES_MAX};
use crate::wording::quoted;

/// Reads a labels file, as [`Labels::read`] says.
///
/// # Errors
/// The file cannot be read, is too large, is no UTF-8, or its labels are refused by [`Labels::new`].
pub(crate) fn read_labels(path: &Path) -> Result<Labels> {
    let bytes = read_up_to(path, LABELS_FILE_BYTES_MAX)
        .map_err(|source| LabelsError::Unreadable { path: path.into(), source })?;
    Ok(labels_of_file(&bytes, path)?.with_examples(&Examples::beside(path)?))
}

/// As [`parse_labels`], with the file named where it has one label.
///
/// # Errors
/// As [`read_labels`].
pub(crate) fn labels_of_file(bytes: &[u8], path: &Path) -> Result<Labels> {
    parse_labels(bytes, path).map_err(|error| match error {
        LabelsError::Count { found: 1, .. } => {
            let text = String::from_utf8_lossy(bytes);
            let comma = if text.contains(',') { "; a comma does not separate labels" } else { "" };
            let problem = format!("has 1 label, expected at least {CLASSES_MIN}{ALONE}{comma}");
            LabelsError::Malformed { path: path.into(), problem }
        }
        error => error,
    })
}

/// The labels of a file's bytes, and what stands before each; `path` is only named in errors.
///
/// # Errors
/// The bytes are too many, no UTF-8, or have a line that is none of a labels file.
fn entries(bytes: &[u8], path: &Path) -> Result<(Vec<String>, Vec<Option<String>>)> {
    let malformed = |problem: String| LabelsError::Malformed { path: path.into(), problem };
    // `read_up_to` stops one byte past the bound, so that a larger file shows here.
    if bytes.len() as u64 > LABELS_FILE_BYTES_MAX {
        return Err(malformed(format!("is larger than {LABELS_FILE_BYTES_MAX} bytes")));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| malformed(format!("is not UTF-8 ({error})")))?;
    // Editors on Windows begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut names, mut ids) = (Vec::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        if trimmed(line).is_empty() || trimmed(line).starts_with('#') {
            continue;
        }
        let (id, name) = match line.split_once('\t') {
            Some((id, name)) => (Some(trimmed(id)), trimmed(name)),
            None => (None, trimmed(line)),
        };
        if name.is_empty() || id.is_some_and(str::is_empty) || name.contains('\t') {
            let expected = "expected a label, or an identifier, a tab and a label";
            return Err(malformed(format!("has the line {} {}, {expected}", number + 1, quoted(line))));
        }
        if name.len() > LABEL_BYTES_MAX {
            return Err(malformed(format!("has a label of {} bytes, more than {LABEL_BYTES_MAX}", name.len())));
        }
        names.push(name.to_string());
        ids.push(id.map(String::from));
    }
    Ok((names, ids))
}

/// The bytes of a labels file with a line for `name`, which may be there already; `path` is only named in errors.
///
/// # Errors
/// As [`read_labels`], but for the number of labels; or `name` is refused as by [`Labels::new`], or the others have
/// identifiers.
pub(crate) fn with_line(bytes: &[u8], path: &Path, name: &str) -> Result<Vec<u8>> {
    let name = trimmed(name);
    check_text(name)?;
    let (names, ids) = entries(bytes, path)?;
    let mut more = bytes.to_vec();
    if names.iter().any(|other| other == name) {
        return Ok(more);
    }
    let given: Vec<String> = ids.into_iter().flatten().collect();
    if name.starts_with('#') {
        return Err(LabelsError::NotWords { label: name.into(), problem: COMMENT });
    }
    if !given.is_empty() && first_twice(&given).is_none() {
        return Err(LabelsError::NoIdentifier { label: name.into() });
    }
    if more.last().is_some_and(|&byte| byte != b'\n') {
        more.push(b'\n');
    }
    more.extend(format!("{name}\n").into_bytes());
    Ok(more)
}

/// Parses the bytes of a labels file; `path` is only named in errors.
///
/// # Errors
/// As [`read_labels`].
pub(crate) fn parse_labels(bytes: &[u8], path: &Path) -> Result<Labels> {
    let malformed = |problem: String| LabelsError::Malformed { path: path.into(), problem };
    let (names, ids) = entries(bytes, path)?;
    if names.is_empty() {
        return Err(malformed("has no labels".into()));
    }
    let given: Vec<String> = ids.iter().flatten().cloned().collect();
    if given.is_empty() {
        return Labels::with_ids(names, None);
    }
    let are_groups = first_twice(&given).is_some();
    if given.len() < names.len() && !are_groups {
        let problem = format!("has identifiers for {} of its {} labels", given.len(), names.len());
        return Err(malformed(format!("{problem}, and none stands on several lines, as the name of a group does")));
    }
    // Only among groups is there a line without a tab: a group of itself.
    let left = ids.into_iter().zip(&names).map(|(id, name)| id.unwrap_or_else(|| name.clone())).collect();
    Labels::with_ids(names, Some(left))
}
