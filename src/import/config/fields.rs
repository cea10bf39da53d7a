//! Fields of configurations that are not computed with: what they may say.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::error::Result;
use crate::import::wrong;

/// The only value of a field that this program's tower computes.
#[derive(Clone, Copy)]
pub(super) enum Understood {
    /// Any: it does not change what is computed.
    Any,
    False,
    /// Nothing, or an empty table.
    Nothing,
    Word(&'static str),
    /// One of these.
    Words(&'static [&'static str]),
    True,
}

impl Understood {
    pub(super) fn takes(self, value: &Value) -> bool {
        // `null` is a field that was left out: the default, which these are.
        value.is_null()
            || match self {
                Self::Any => true,
                Self::False => value == &Value::Bool(false),
                Self::Nothing => value.as_object().is_some_and(serde_json::Map::is_empty),
                Self::Word(word) => value.as_str() == Some(word),
                Self::Words(words) => value.as_str().is_some_and(|word| words.contains(&word)),
                Self::True => value == &Value::Bool(true),
            }
    }

    pub(super) fn expected(self) -> String {
        match self {
            Self::Any => "anything".into(),
            Self::False => "false".into(),
            Self::Nothing => "nothing".into(),
            Self::Word(word) => word.into(),
            Self::Words(words) => words.join(" or "),
            Self::True => "true".into(),
        }
    }
}

/// Refuses fields that are not known, or whose value asks for what is not computed here: such a model would be imported, and be wrong.
pub(super) fn check_fields(
    path: &Path,
    section: &str,
    found: &BTreeMap<String, Value>,
    known: &[(&str, Understood)],
) -> Result<()> {
    for (name, value) in found {
        let understood = known.iter().find(|(known, _)| known == name).map(|&(_, understood)| understood);
        if !understood.is_some_and(|understood| understood.takes(value)) {
            let expected =
                understood.map_or("no such field, which this version does not know".into(), Understood::expected);
            let field = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
            return Err(wrong(path, &field, &expected, value));
        }
    }
    Ok(())
}
