//! Tokens of the labels' prompts, cut where the prompts begin to differ.

use super::error::{Result, TextError};
use crate::limits::{TEMPLATE_BYTES_MAX, TEMPLATES_MAX};
use crate::setting::SettingError;
use crate::wording::quoted;

use super::tokenizer::Tokenizer;

/// Placeholder of the class name in a template.
const PLACE: &str = "{}";

/// Text written around a class name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// `"{context} {class}."`, R-TPT's prompt; the tokens of the context are what the head `context` tunes.
    Context(String),
    /// Templates, each with one `{}` for the class name. The class embedding is the mean of theirs, at unit length
    /// (CLIP's prompt ensemble).
    Templates(Vec<String>),
}

/// The tokens of all labels' prompts under one template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptTokens {
    /// Tokens that all prompts begin with, the start token first, if there is one: `[P]`.
    pub shared: Vec<u32>,
    /// Number of those that are no words: 1 with a start token, else 0.
    pub fixed: usize,
    /// Tokens that each label adds, the end token last: `[C]` lists of at least one token.
    pub own: Vec<Vec<u32>>,
}

impl Prompt {
    /// Checks that templates can be filled in.
    ///
    /// # Errors
    /// No template, too many, one that is too long, or one that has not exactly one place for the class name.
    pub fn check(&self) -> Result<()> {
        let texts = match self {
            Self::Context(context) => std::slice::from_ref(context),
            Self::Templates(templates) => templates,
        };
        let refused =
            |expected: String, found: String| Err(SettingError { what: "the prompt", expected, found }.into());
        if texts.is_empty() || texts.len() > TEMPLATES_MAX {
            return refused(format!("1 to {TEMPLATES_MAX} templates"), texts.len().to_string());
        }
        if let Some(long) = texts.iter().find(|text| text.len() > TEMPLATE_BYTES_MAX) {
            return refused(format!("at most {TEMPLATE_BYTES_MAX} bytes"), format!("{} bytes long", long.len()));
        }
        // A context with a place in it was meant as a template.
        let places = if matches!(self, Self::Context(_)) { 0 } else { 1 };
        match texts.iter().find(|text| text.matches(PLACE).count() != places) {
            Some(text) => {
                let (what, found, expected) = if places == 0 {
                    ("the context", quoted(text), format!("words without {PLACE}, which belongs in a template"))
                } else {
                    let count = text.matches(PLACE).count();
                    let has = if count == 0 { "no".to_string() } else { count.to_string() };
                    let expected = format!("one {PLACE} where the label goes, as in \"a photo of a {PLACE}.\"");
                    ("the template", format!("{}, which has {has} {PLACE}", quoted(text)), expected)
                };
                Err(SettingError { what, expected, found }.into())
            }
            None => Ok(()),
        }
    }

    /// The texts of this prompt as templates.
    pub fn templates(&self) -> Vec<String> {
        match self {
            // An empty context would leave a space in front.
            Self::Context(context) => vec![format!("{context} {PLACE}.").trim_start().to_string()],
            Self::Templates(templates) => templates.clone(),
        }
    }
}

/// Cuts the prompts of `labels` where the context ends: the shared tokens are the start token and the context's.
///
/// # Errors
/// A label cannot be tokenised or does not fit `context_length` (tokens), or the context's tokens depend on the label.
pub fn context_tokens(
    tokenizer: &Tokenizer,
    context: &str,
    labels: &[String],
    context_length: usize,
) -> Result<PromptTokens> {
    let mut shared: Vec<u32> = tokenizer.start().into_iter().collect();
    let fixed = shared.len();
    // Tokenised alone, and compared below: a tokenizer may join the context's last word with the label.
    shared.extend(tokenizer.encode(context)?);
    let template = Prompt::Context(context.into()).templates().remove(0);
    let rows = filled_tokens(tokenizer, &template, labels, context_length)?;
    cut(rows, (shared, fixed), labels, &template)
}

/// Cuts the prompts of `labels` where the first differs from another.
///
/// # Errors
/// As [`context_tokens`].
pub fn template_tokens(
    tokenizer: &Tokenizer,
    template: &str,
    labels: &[String],
    context_length: usize,
) -> Result<PromptTokens> {
    let rows = filled_tokens(tokenizer, template, labels, context_length)?;
    let mut shared = rows.first().cloned().unwrap_or_default();
    for row in &rows {
        let alike = shared.iter().zip(row).take_while(|(a, b)| a == b).count();
        // Every prompt keeps at least its end, where its embedding is read.
        shared.truncate(alike.min(row.len() - 1));
    }
    let fixed = shared.len().min(tokenizer.start().iter().len());
    cut(rows, (shared, fixed), labels, template)
}

/// The tokens of each filled template, start and end included.
///
/// # Errors
/// A label cannot be tokenised or does not fit `context_length` (tokens).
pub(super) fn filled_tokens(
    tokenizer: &Tokenizer,
    template: &str,
    labels: &[String],
    context_length: usize,
) -> Result<Vec<Vec<u32>>> {
    let filled = labels.iter().map(|label| {
        // As the reference does: class names of data sets are often folder names.
        let text = template.replacen(PLACE, &label.replace('_', " "), 1);
        let tokens = tokenizer.encode_whole(&text)?;
        if tokens.len() > context_length {
            return Err(TextError::TooLong { label: label.clone(), tokens: tokens.len(), limit: context_length });
        }
        Ok(tokens)
    });
    filled.collect()
}

fn cut(
    rows: Vec<Vec<u32>>,
    (shared, fixed): (Vec<u32>, usize),
    labels: &[String],
    template: &str,
) -> Result<PromptTokens> {
    // A prompt that does not begin with the context's own tokens has a token of both, and the context could not be
    // tuned alone.
    let own = rows.into_iter().zip(labels).map(|(row, label)| match row.strip_prefix(&shared[..]) {
        Some(own) if !own.is_empty() => Ok(own.to_vec()),
        _ => Err(TextError::Tokens {
            text: template.replacen(PLACE, label, 1),
            problem: "joins tokens of the context with the label's; end the context with a whole word".into(),
        }),
    });
    Ok(PromptTokens { own: own.collect::<Result<_>>()?, shared, fixed })
}
