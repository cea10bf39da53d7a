//! The text cleaning of OpenAI's tokenizer: `ftfy.fix_text`, then two rounds of HTML unescaping and one of whitespace.
//!
//! It follows everything of ftfy 6.3 (default settings) that looks at single characters: HTML entities, terminal
//! escapes, ligatures, widths, curly quotes, line breaks, control characters, NFC. It leaves out the repair of text
//! that was decoded with the wrong encoding ("Ã©" for "é"): that guesses, and a label file has a known encoding.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};
use unicode_normalization::UnicodeNormalization;

/// Message for the failure of a constant pattern, which cannot happen.
const VALID: &str = "the pattern is a constant and valid";

static ENTITY: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"&#?[0-9A-Za-z]{1,24};").expect(VALID));
static TERMINAL_ESCAPE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\x1b\[[0-9;]*[a-zA-Z]").expect(VALID));

/// How texts are cleaned before they are tokenised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cleaning {
    /// As OpenAI's tokenizer cleans them, before the tokenizer puts them in lower case.
    #[default]
    Clip,
    /// The same, in lower case: open_clip's `lower`.
    Lower,
    /// In lower case, `_` a space, without ASCII's punctuation: open_clip's `canonicalize`, and SigLIP's own.
    Canonical,
}

impl Cleaning {
    /// The text, cleaned, with single spaces.
    pub(crate) fn apply(self, text: &str) -> String {
        match self {
            Self::Clip => clean(text),
            Self::Lower => clean(text).to_lowercase(),
            Self::Canonical => {
                let plain =
                    clean(text).replace('_', " ").replace(|c: char| c.is_ascii_punctuation(), "").to_lowercase();
                // Punctuation may have stood alone.
                plain.split_whitespace().collect::<Vec<_>>().join(" ")
            }
        }
    }
}

/// The text as OpenAI's tokenizer has it before it is put in lower case: cleaned, with single spaces.
pub(crate) fn clean(text: &str) -> String {
    let fixed = fix(text);
    let unescaped = unescape(&unescape(&fixed)).into_owned();
    let spaced: Vec<&str> = unescaped.split(char::is_whitespace).filter(|word| !word.is_empty()).collect();
    spaced.join(" ")
}

/// HTML5's rules for text, as `html.unescape` of Python applies them.
fn unescape(text: &str) -> Cow<'_, str> {
    htmlize::unescape(text)
}

/// The part of `ftfy.fix_text` that is followed.
fn fix(text: &str) -> String {
    // Text with "<" may be HTML on purpose, so ftfy leaves its entities to whoever comes next.
    let text = if text.contains('<') { Cow::Borrowed(text) } else { ENTITY.replace_all(text, unescape_entity) };
    // Before the control characters: without its first character a sequence would look like text.
    let text = TERMINAL_ESCAPE.replace_all(&text, "").replace("\r\n", "\n");
    let mut fixed = String::with_capacity(text.len());
    for character in text.chars().filter(|&character| !is_control(character)) {
        match character {
            '\u{2bc}' | '\u{2018}'..='\u{201b}' => fixed.push('\''),
            '\u{201c}'..='\u{201f}' => fixed.push('"'),
            '\r' | '\u{2028}' | '\u{2029}' | '\u{85}' => fixed.push('\n'),
            // ftfy's own tables for these two: NFKC would make a plain s of the long one, and keep the apostrophe of
            // the other as a letter.
            '\u{fb05}' => fixed.push_str("\u{17f}t"),
            '\u{149}' => fixed.push_str("'n"),
            _ if is_compatible(character) => fixed.extend(character.nfkc()),
            _ => fixed.push(character),
        }
    }
    fixed.nfc().collect()
}

/// One entity that ends in a semicolon; names in capitals too ("&EACUTE;"), if they stand for nothing else.
fn unescape_entity(captures: &Captures) -> String {
    let entity = &captures[0];
    let unescaped = unescape(entity);
    // An entity that stands for something loses its semicolon.
    if !unescaped.contains(';') {
        return unescaped.into_owned();
    }
    let name = &entity[1..];
    if name == name.to_uppercase() {
        let lower = entity.to_lowercase();
        let from_lower = unescape(&lower);
        if !from_lower.contains(';') {
            return from_lower.to_uppercase();
        }
    }
    entity.to_string()
}

/// Ligatures, digraphs and forms of another width, which ftfy replaces by plain letters.
fn is_compatible(character: char) -> bool {
    matches!(character,
        '\u{132}' | '\u{133}' | '\u{1c4}'..='\u{1cc}' | '\u{1f1}'..='\u{1f3}' | '\u{fb00}'..='\u{fb06}' | '\u{3000}'
        | '\u{ff01}'..='\u{ffef}')
}

/// Control characters that nobody means to write.
fn is_control(character: char) -> bool {
    matches!(character,
        '\0'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}' | '\u{206a}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffc}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entities_quotes_widths_and_spaces() {
        for (text, cleaned) in [
            ("  Yin\u{a0}\tYang \n", "Yin Yang"),
            ("mac &amp; cheese", "mac & cheese"),
            ("mac &amp;amp; cheese", "mac & cheese"),
            ("P&EACUTE;REZ", "PÉREZ"),
            ("<b>&eacute;</b>", "<b>é</b>"),
            ("<b>&amp;amp;</b>", "<b>&</b>"),
            ("St. Bernard\u{2019}s \u{201c}dog\u{201d}", "St. Bernard's \"dog\""),
            ("\u{ff23}\u{ff21}\u{ff34}\u{3000}\u{fb01}sh", "CAT fish"),
            ("\u{1b}[31mred\u{1b}[0m\u{7}", "red"),
            ("cafe\u{301}", "café"),
        ] {
            assert_eq!(clean(text), cleaned, "{text:?}");
        }
    }
}
