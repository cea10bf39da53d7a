//! The trusted comment of a signature.

use std::path::Path;

use jiff::Zoned;
use jiff::civil::Date;

use super::SigningError;

/// What a signature says of a bundle, besides that it is its maker's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SignedFacts {
    /// Name of the bundle.
    pub name: String,
    /// Version, which grows from one bundle of this name to the next.
    pub version: u64,
    /// Last day on which the bundle may be opened.
    pub expires: Option<Date>,
    /// BLAKE3 of the calibration beside the bundle; without, none is used.
    pub calibration: Option<blake3::Hash>,
    /// Name of the key that signed it.
    pub key: String,
}

/// The first word: a comment that was written for something else is not taken for one of these.
const WORD: &str = "rtpt";

impl SignedFacts {
    /// The facts in a trusted comment, of a signature by `key`; none if it is no such comment.
    pub(super) fn parse(comment: &str, key: String) -> Option<Self> {
        let mut words = comment.split_ascii_whitespace();
        if words.next() != Some(WORD) {
            return None;
        }
        let (mut name, mut version, mut expires, mut calibration) = (None, None, None, None);
        for word in words {
            let (field, value) = word.split_once('=')?;
            // A field that is there twice could be read in two ways.
            let twice = match field {
                "name" => name.replace(value.to_string()).is_some(),
                "version" => version.replace(value.parse().ok()?).is_some(),
                "calibration" => calibration.replace(blake3::Hash::from_hex(value).ok()?).is_some(),
                "expires" => expires.replace(value.parse::<Date>().ok()?).is_some(),
                // A field of a later version may restrict what may be done: it is not passed over.
                _ => return None,
            };
            if twice {
                return None;
            }
        }
        Some(Self { name: name?, version: version?, expires, calibration, key })
    }

    /// The trusted comment that says this.
    pub(super) fn comment(&self) -> String {
        let expires = self.expires.map_or(String::new(), |date| format!(" expires={date}"));
        let calibration = self.calibration.map_or(String::new(), |digest| format!(" calibration={}", digest.to_hex()));
        format!("{WORD} name={} version={}{expires}{calibration}", self.name, self.version)
    }

    /// Checks that the signature `path` has not expired.
    ///
    /// # Errors
    /// It has.
    pub(super) fn check_expiry(&self, path: &Path) -> Result<(), SigningError> {
        match self.over() {
            Some((on, today)) => {
                Err(SigningError::Expired { path: path.into(), on: on.to_string(), today: today.to_string() })
            }
            None => Ok(()),
        }
    }

    /// The last day and today, if that day is over.
    pub(super) fn over(&self) -> Option<(Date, Date)> {
        let today = Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC).date();
        self.expires.filter(|&on| today > on).map(|on| (on, today))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_says_what_it_was_made_of_and_nothing_else_is_read() {
        let facts = SignedFacts {
            name: "demo".into(),
            version: 7,
            expires: Some("2027-01-31".parse().unwrap()),
            calibration: None,
            key: "maker".into(),
        };
        assert_eq!(facts.comment(), "rtpt name=demo version=7 expires=2027-01-31");
        assert_eq!(SignedFacts::parse(&facts.comment(), "maker".into()).unwrap(), facts);
        let with = SignedFacts { calibration: Some(blake3::hash(b"x")), ..facts };
        assert_eq!(SignedFacts::parse(&with.comment(), "maker".into()).unwrap(), with);
        let plain = SignedFacts::parse("rtpt version=1 name=x", "maker".into()).unwrap();
        assert_eq!((plain.name.as_str(), plain.version, plain.expires), ("x", 1, None));
        for comment in [
            "",
            "timestamp:1700000000\tfile:manifest.json",
            "rtpt name=x",
            "rtpt version=1",
            "rtpt name=x version=-1",
            "rtpt name=x version=1 version=2",
            "rtpt name=x version=1 expires=tomorrow",
            "rtpt name=x version=1 expires=2027-02-30",
            "rtpt name=x version=1 calibration=abc",
            "rtpt name=x version=1 only-on=Tuesdays",
        ] {
            assert!(SignedFacts::parse(comment, "maker".into()).is_none(), "{comment}");
        }
    }
}
