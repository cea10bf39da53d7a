//! The hash chain over the lines of a part.
//!
//! Every line's last field is `chain`: the BLAKE3 of the chain before it and of the line without the field. A line that is changed, left
//! out or moved no longer fits the line before it. The chain has no key: whoever may write the files can make another one, which only a
//! head that was kept elsewhere shows.

use serde::{Deserialize, Serialize};

/// What stands before a line's chain, and behind it.
const FIELD: (&str, &str) = (",\"chain\":\"", "\"}");
/// Hexadecimal digits of a chain.
const DIGITS: usize = 2 * blake3::OUT_LEN;

/// The end of a chain: that of its last line.
pub(super) type Link = blake3::Hash;

/// The chain of no line.
pub(super) const START: Link = Link::from_bytes([0; blake3::OUT_LEN]);

/// Seals a line, a JSON object with a field or more, behind `before`; returns it with its end, and its link.
pub(super) fn seal(json: &str, before: &Link) -> (String, Link) {
    let link = link(json.as_bytes(), before);
    let open = json.strip_suffix('}').expect("a line is a JSON object");
    (format!("{open}{}{}{}\n", FIELD.0, link.to_hex(), FIELD.1), link)
}

/// The JSON of a sealed line without its end, and the link that it states; none if the line is not sealed.
pub(super) fn unseal(line: &[u8]) -> Option<(Vec<u8>, Link)> {
    let open = line.strip_suffix(FIELD.1.as_bytes())?;
    let (open, digits) = open.split_at_checked(open.len().checked_sub(DIGITS)?)?;
    let mut json = open.strip_suffix(FIELD.0.as_bytes())?.to_vec();
    json.push(b'}');
    Some((json, Link::from_hex(digits).ok()?))
}

/// The link of a line behind `before`.
pub(super) fn link(json: &[u8], before: &Link) -> Link {
    blake3::Hasher::new().update(before.as_bytes()).update(json).finalize()
}

/// The end of a chain, with the number of its lines: what a part had when it was last forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    /// Lines (count), the first one with the settings included.
    pub lines: u64,
    /// The link of the last of them.
    #[serde(with = "hexadecimal")]
    pub chain: Link,
}

impl Head {
    /// The head of a part without a line.
    pub(super) const NONE: Self = Self { lines: 0, chain: START };
}

/// What a part continues: the part before it, as it was on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Continued {
    /// Number of the part before.
    pub part: u64,
    /// Its head.
    pub head: Head,
}

/// Links as 64 hexadecimal digits.
mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Link;

    pub(super) fn serialize<S: Serializer>(link: &Link, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&link.to_hex())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Link, D::Error> {
        let digits = String::deserialize(deserializer)?;
        Link::from_hex(digits).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_line_is_opened_again_and_fits_its_place_alone() {
        let (first, one) = seal(r#"{"a":1}"#, &START);
        let (second, two) = seal(r#"{"a":1}"#, &one);
        assert_ne!(first, second, "equal lines in other places have other links");
        let (json, stated) = unseal(second.trim_end().as_bytes()).unwrap();
        assert_eq!((json.as_slice(), stated), (br#"{"a":1}"#.as_slice(), two));
        assert_eq!(link(&json, &one), two);
        assert_ne!(link(&json, &START), two);
        assert!(serde_json::from_str::<serde_json::Value>(&second).unwrap()["chain"].is_string());
        for line in ["", "{}", r#"{"a":1}"#, r#"{"a":1,"chain":"00"}"#] {
            assert!(unseal(line.as_bytes()).is_none(), "{line}");
        }
    }
}
