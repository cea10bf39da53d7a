//! Lists of labels: what a user types, checked.
mod error;
mod file;
mod likeness;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use ndarray::{Array2, ArrayView1};

pub use self::error::LabelsError;
pub(crate) use self::file::{labels_of_file, parse_labels, read_labels, with_line};
pub(crate) use self::likeness::nearest;
use crate::examples::Examples;
use crate::limits::{CLASSES_MAX, CLASSES_MIN, LABEL_BYTES_MAX};
use crate::rows::log_sums;
use crate::setting::SettingError;

type Result<T> = std::result::Result<T, LabelsError>;

/// Reason that a label cannot stand in a labels file.
const COMMENT: &str = "starts with #, as the comments of a labels file do";

/// Labels that differ from one another, and their identifiers, if they have any.
///
/// A label may be a group: a name for several texts, whose probabilities are added up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    names: Vec<String>,
    ids: Option<Vec<String>>,
    groups: Option<Groups>,
    /// Photos that stand for some of the texts.
    examples: Arc<Examples>,
}

/// The texts of labels that are groups.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Groups {
    /// The texts, in the order given.
    members: Vec<String>,
    /// The label of each, by its place.
    of: Vec<usize>,
}

impl Labels {
    /// Labels from texts, such as `["llama", "cup"]`.
    ///
    /// # Errors
    /// Fewer than two labels or too many; a label that is empty, too long, a path or has control characters, or is
    /// given twice.
    pub fn new(names: impl IntoIterator<Item = impl Into<String>>) -> Result<Self> {
        Self::with_ids(names.into_iter().map(Into::into).collect(), None)
    }

    /// Labels from a file: UTF-8, one label per line, or an identifier, a tab and a label; blank lines and lines that
    /// start with `#` are passed over. What stands before a tab on several lines is a group, and the answer for all of
    /// them; in such a file a line without a tab is a label by itself. Where a file of examples stands beside it, its photos
    /// stand for some of the texts.
    ///
    /// # Errors
    /// The file cannot be read, is too large, is not UTF-8, or its labels are refused as by [`Self::new`]; or so are the
    /// examples.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        read_labels(path.as_ref())
    }

    /// Labels, and as many identifiers if there are any. Identifiers that are given several times are groups.
    ///
    /// # Errors
    /// As [`Self::new`]. A label may be given twice with identifiers that tell the two apart (ImageNet has such labels),
    /// but not in groups.
    pub(crate) fn with_ids(names: Vec<String>, ids: Option<Vec<String>>) -> Result<Self> {
        let trimmed = |texts: Vec<String>| texts.iter().map(|text| trimmed(text).to_string()).collect::<Vec<String>>();
        let (names, ids) = (trimmed(names), ids.map(trimmed));
        check_count(names.len())?;
        if let Some(ids) = ids.as_ref().filter(|ids| ids.len() != names.len()) {
            let (expected, found) = (format!("one per label, {}", names.len()), ids.len().to_string());
            return Err(SettingError { what: "the number of identifiers", expected, found }.into());
        }
        names.iter().chain(ids.iter().flatten()).try_for_each(|text| check_text(text))?;
        match ids {
            Some(ids) if first_twice(&ids).is_some() => Self::grouped(names, ids),
            ids => match first_twice(ids.as_ref().unwrap_or(&names)) {
                Some(duplicate) => Err(duplicate),
                None => Ok(Self { names, ids, groups: None, examples: Arc::default() }),
            },
        }
    }

    /// Labels that are the `groups` of `members`, in the order in which they come first.
    fn grouped(members: Vec<String>, groups: Vec<String>) -> Result<Self> {
        if let Some(duplicate) = first_twice(&members) {
            return Err(duplicate);
        }
        let (mut names, mut places) = (Vec::new(), HashMap::new());
        let mut place_of = |group: String| {
            *places.entry(group).or_insert_with_key(|group| {
                names.push(group.clone());
                names.len() - 1
            })
        };
        let of = groups.into_iter().map(&mut place_of).collect();
        check_count(names.len())?;
        Ok(Self { names, ids: None, groups: Some(Groups { members, of }), examples: Arc::default() })
    }

    /// The labels at some places of the list, in this order; groups with all their members.
    ///
    /// # Errors
    /// Fewer than two, or one twice.
    pub(crate) fn select(&self, places: &[usize]) -> Result<Self> {
        let (texts, left) = self.rows();
        let rows: Vec<usize> = match &self.groups {
            None => places.to_vec(),
            Some(groups) => {
                let of_group = |&place: &usize| (0..groups.of.len()).filter(move |&row| groups.of[row] == place);
                places.iter().flat_map(of_group).collect()
            }
        };
        let chosen = |column: &[String]| rows.iter().map(|&row| column[row].clone()).collect::<Vec<String>>();
        let (texts, left) = (chosen(&texts), left.map(|left| chosen(&left)));
        let selected = match (&self.groups, left) {
            // Groups of one member each would be taken for identifiers.
            (Some(_), Some(groups)) => Self::grouped(texts, groups),
            (_, left) => Self::with_ids(texts, left),
        };
        Ok(selected?.with_examples(&self.examples))
    }

    /// The same labels with those of the examples that are of their texts.
    #[must_use]
    pub(crate) fn with_examples(self, examples: &Examples) -> Self {
        let mut examples = examples.clone();
        if !examples.is_empty() {
            let texts: HashSet<&str> = self.texts().iter().map(String::as_str).collect();
            examples.retain(|text| texts.contains(text));
        }
        Self { examples: Arc::new(examples), ..self }
    }

    /// The same labels, where a photo with the feature `[D]` by an encoder is one more example of `name`, which is added to the
    /// labels if it is not among them.
    ///
    /// # Errors
    /// `name` is refused as by [`Self::new`], or cannot be added to labels that have identifiers.
    pub(crate) fn with_feature(&self, name: &str, encoder: &blake3::Hash, feature: ArrayView1<f32>) -> Result<Self> {
        let labels = self.with_text(name)?;
        let mut examples = labels.examples().clone();
        examples.add(trimmed(name), encoder, feature)?;
        Ok(labels.with_examples(&examples))
    }

    /// The same labels, where `name` is a text again; `None` if it has no examples.
    pub(crate) fn without_examples(&self, name: &str) -> Option<Self> {
        let mut examples = self.examples().clone();
        examples.forget(trimmed(name)).then(|| self.clone().with_examples(&examples))
    }

    /// The photos that stand for some of the texts.
    pub(crate) fn examples(&self) -> &Examples {
        &self.examples
    }

    /// The same labels and `name`, if it is not among them, as a label by itself.
    ///
    /// # Errors
    /// As [`Self::new`], or the labels have identifiers, of which `name` has none.
    fn with_text(&self, name: &str) -> Result<Self> {
        let name = trimmed(name).to_string();
        if self.texts().contains(&name) {
            return Ok(self.clone());
        }
        check_text(&name)?;
        if self.ids.is_some() {
            return Err(LabelsError::NoIdentifier { label: name });
        }
        let (mut texts, left) = self.rows();
        texts.push(name.clone());
        let more = match left {
            // Groups of one member each would be taken for identifiers.
            Some(mut groups) => {
                groups.push(name);
                Self::grouped(texts, groups)?
            }
            None => Self::with_ids(texts, None)?,
        };
        Ok(more.with_examples(&self.examples))
    }

    /// The labels that are answered, in the order given.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The texts that images are compared with: the members of all groups, or the labels.
    pub fn texts(&self) -> &[String] {
        self.groups.as_ref().map_or(&self.names, |groups| &groups.members)
    }

    /// The place of each text's label, where labels are groups.
    pub(crate) fn groups(&self) -> Option<&[usize]> {
        self.groups.as_ref().map(|groups| &groups.of[..])
    }

    /// The logits of the labels, from those of the texts `[N, C]`. A group's is `ln Σ exp` of its members', so that its probability is the sum of
    /// theirs.
    pub(crate) fn of_labels(&self, logits: Array2<f32>) -> Array2<f32> {
        match &self.groups {
            Some(groups) => log_sums(logits.view(), &groups.of, self.names.len()),
            None => logits,
        }
    }

    /// The texts, and what stands before each of them in a file: identifiers or groups.
    pub(crate) fn rows(&self) -> (Vec<String>, Option<Vec<String>>) {
        let left = match &self.groups {
            None => self.ids.clone(),
            Some(groups) => Some(groups.of.iter().map(|&place| self.names[place].clone()).collect()),
        };
        (self.texts().to_vec(), left)
    }

    /// The list as a labels file.
    ///
    /// # Errors
    /// A line would begin with `#`: it would be read as a comment.
    pub(crate) fn to_text(&self) -> Result<String> {
        let (texts, left) = self.rows();
        if let Some(label) = left.as_ref().unwrap_or(&texts).iter().find(|text| text.starts_with('#')) {
            return Err(LabelsError::NotWords { label: label.clone(), problem: COMMENT });
        }
        Ok(match left {
            Some(left) => left.iter().zip(&texts).map(|(left, text)| format!("{left}\t{text}\n")).collect(),
            None => texts.iter().map(|text| format!("{text}\n")).collect(),
        })
    }

    /// The identifiers, if labels have any.
    pub(crate) fn ids(&self) -> Option<&[String]> {
        self.ids.as_deref()
    }

    /// The identifier of a label, if labels have identifiers.
    pub fn id(&self, label: usize) -> Option<&str> {
        self.ids.as_ref().map(|ids| ids[label].as_str())
    }
}

/// Refuses a text that is no label.
fn check_text(text: &str) -> Result<()> {
    // Lengths before words: the messages that follow quote the label.
    let bytes = text.len();
    if !(1..=LABEL_BYTES_MAX).contains(&bytes) {
        let expected = format!("1 to {LABEL_BYTES_MAX} bytes");
        return Err(SettingError { what: "the length of a label", expected, found: bytes.to_string() }.into());
    }
    match not_words(text) {
        Some(problem) => Err(LabelsError::NotWords { label: text.into(), problem }),
        None => Ok(()),
    }
}

fn check_count(found: usize) -> Result<()> {
    if (CLASSES_MIN..=CLASSES_MAX).contains(&found) {
        return Ok(());
    }
    Err(LabelsError::Count { found, min: CLASSES_MIN, max: CLASSES_MAX })
}

/// The error about the first text that is given twice, if one is.
fn first_twice(texts: &[String]) -> Option<LabelsError> {
    let mut seen = HashMap::new();
    texts.iter().enumerate().find_map(|(entry, text)| {
        let first = seen.insert(text, entry)?;
        Some(LabelsError::Duplicate { label: text.clone(), first: first + 1, second: entry + 1 })
    })
}

/// Reason that a label is not words. A mistaken paste would otherwise reach terminals and pages.
fn not_words(label: &str) -> Option<&'static str> {
    if label.chars().any(char::is_control) {
        return Some("has control characters");
    }
    // A slash alone makes no path: "and/or" is words.
    let climbs = label.split(['/', '\\']).any(|part| part == "..");
    (climbs || label.starts_with(['/', '\\'])).then_some("is a path")
}

/// A text without white space and byte order marks around it.
fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::LABELS_FILE_BYTES_MAX;

    fn parse(text: &str) -> Result<Labels> {
        parse_labels(text.as_bytes(), Path::new("x"))
    }

    #[test]
    fn a_label_more_is_checked_and_trimmed_in_groups_too() {
        for text in ["cup\nwatch", "a\tcup\na\tmug\nb\twatch"] {
            let labels = parse(text).unwrap();
            let more = labels.with_text("  lamp ").unwrap();
            assert_eq!((more.names().last().unwrap(), more.texts().last().unwrap()), (&"lamp".into(), &"lamp".into()));
            assert_eq!(more.with_text("lamp\t").unwrap(), more, "it is there already");
            for (name, problem) in
                [("/etc", "is a path"), ("a\nb", "has control characters"), (" ", "length of a label")]
            {
                let message = labels.with_text(name).unwrap_err().to_string();
                assert!(message.contains(problem), "{message}");
            }
        }
        let numbered = parse("1\tcup\n2\twatch").unwrap();
        assert!(matches!(numbered.with_text("lamp"), Err(LabelsError::NoIdentifier { .. })));
        let line = |name: &str| with_line(b"cup\nwatch", Path::new("x"), name).map_err(|error| error.to_string());
        assert_eq!(line("lamp").unwrap(), b"cup\nwatch\nlamp\n");
        assert!(line("#lamp").unwrap_err().contains("starts with #, as the comments of a labels file do"));
    }

    #[test]
    fn bad_lists_are_refused_with_advice() {
        assert!(matches!(Labels::with_ids(vec![], None), Err(LabelsError::Count { found: 0, .. })));
        assert!(matches!(parse("watch"), Err(LabelsError::Count { found: 1, .. })));
        assert!(matches!(parse("watch\ncup\nwatch"), Err(LabelsError::Duplicate { first: 1, second: 3, .. })));
        assert!(matches!(parse("a\tcup\na\twatch"), Err(LabelsError::Count { found: 1, .. })), "one group alone");
        assert!(matches!(parse("a\tcup\nb\twatch\na\tcup"), Err(LabelsError::Duplicate { first: 1, second: 3, .. })));
        let many = |count: usize| Labels::new((0..count).map(|index| index.to_string()));
        assert!(many(CLASSES_MAX).is_ok());
        assert!(matches!(many(CLASSES_MAX + 1), Err(LabelsError::Count { .. })));
        for (text, problem) in [
            ("", "has no labels"),
            ("# only\n\n", "has no labels"),
            ("1\tcup\nwatch", "has identifiers for 1 of its 2 labels, and none stands on several lines"),
            ("1\t\n2\tcup", "has the line 1 \"1\\t\""),
            ("\tcup\n2\twatch", "expected a label, or an identifier, a tab and a label"),
            ("1\tcup\tmug\n2\twatch", "has the line 1"),
        ] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains(problem), "{message}");
        }
        for (bytes, problem) in [
            (vec![0xff, 0xfe, 0x00], "is not UTF-8"),
            (vec![b'x'; LABEL_BYTES_MAX + 1], "has a label of 1025 bytes"),
            (vec![b'x'; LABELS_FILE_BYTES_MAX as usize + 1], "is larger than"),
        ] {
            let message = parse_labels(&bytes, Path::new("x")).unwrap_err().to_string();
            assert!(message.contains(problem), "{message}");
        }
        for (text, problem) in [
            ("cup\n../../etc/passwd", "is a path"),
            ("/etc/passwd\ncup", "is a path"),
            ("cup\na\\..\\b", "is a path"),
            ("cup\nbell\u{7}", "has control characters"),
            ("cup\nnul\0", "has control characters"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(matches!(error, LabelsError::NotWords { .. }) && error.to_string().contains(problem), "{error}");
        }
        let numbered = Labels::new(["cup", "\u{feff}#1"]).unwrap();
        assert!(numbered.to_text().unwrap_err().to_string().contains("as the comments"), "in a file it would be lost");
        let ids = |ids: &[&str]| {
            Labels::with_ids(["a", "b"].map(String::from).into(), Some(ids.iter().map(|id| id.to_string()).collect()))
        };
        assert!(ids(&["1", "2"]).is_ok());
        for wrong in [&["1"][..], &["1", ""], &["1", "2\u{1b}[2J"], &["1", "1"]] {
            assert!(ids(wrong).is_err(), "{wrong:?}");
        }
        assert!(parse("men's t-shirt / top\nand/or...\nU.S.A.").is_ok());
        let longest = format!("cup\n{}", "x".repeat(LABEL_BYTES_MAX));
        assert!(parse(&longest).is_ok());
    }

    #[test]
    fn files_may_have_comments_blank_lines_and_a_byte_order_mark() {
        let parsed = parse("\u{feff}# seen here\n\n watch \r\n # indented\nsea horse\n").unwrap();
        assert_eq!(parsed.names(), ["watch", "sea horse"]);
        assert_eq!(Labels::new([" watch", "sea horse\t"]).unwrap(), parsed);
        assert_eq!(parsed.id(0), None);
    }

    #[test]
    fn identifiers_tell_equal_labels_apart() {
        let parsed = parse("n04008634\tmissile\nn03773504\tmissile\n").unwrap();
        assert_eq!(parsed.names(), ["missile", "missile"]);
        assert_eq!((parsed.id(0), parsed.id(1)), (Some("n04008634"), Some("n03773504")));
    }

    #[test]
    fn what_stands_before_several_labels_is_a_group() {
        let parsed = parse("dog\tbeagle\nmug\ndog\tdog\ncar\tsports car\n").unwrap();
        assert_eq!(parsed.names(), ["dog", "mug", "car"]);
        assert_eq!(parsed.texts(), ["beagle", "mug", "dog", "sports car"]);
        assert_eq!((parsed.groups(), parsed.id(0)), (Some(&[0, 1, 0, 2][..]), None));
        let text = parsed.to_text().unwrap();
        assert_eq!(text, "dog\tbeagle\nmug\tmug\ndog\tdog\ncar\tsports car\n");
        assert_eq!(parse(&text).unwrap(), parsed);
        let (texts, left) = parsed.rows();
        assert_eq!(Labels::with_ids(texts, left).unwrap(), parsed);
        let chosen = parsed.select(&[2, 0]).unwrap();
        assert_eq!(chosen.names(), ["car", "dog"]);
        assert_eq!(chosen.texts(), ["sports car", "beagle", "dog"]);
        let alone = parsed.select(&[1, 2]).unwrap();
        assert_eq!((alone.names(), alone.groups()), (&["mug", "car"].map(String::from)[..], Some(&[0, 1][..])));
    }
}
