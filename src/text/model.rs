//! A text tower with its tokenizer: from labels and a prompt to class embeddings.

use std::sync::Arc;

use ndarray::Array2;

use super::error::{Result, TextError};
use super::prompt::{Prompt, context_tokens, template_tokens};
use super::prompts::Prompts;
use super::tokenizer::Tokenizer;
use super::tower::TextTower;
use crate::rows::unit_rows;
use crate::setting::SettingError;

/// A text tower and the tokenizer that belongs to it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct TextModel {
    /// Tokenizer: text to tokens.
    pub tokenizer: Arc<Tokenizer>,
    /// Tower: tokens to embeddings.
    pub tower: Arc<TextTower<f32>>,
}

/// The unit embeddings `[C, D]` of labels. With several templates each is their mean, at unit length.
///
/// # Errors
/// A label cannot be tokenised or does not fit, or the tower gives it an embedding without direction.
pub(crate) fn embed(model: &TextModel, names: &[String], prompt: &Prompt) -> Result<Array2<f32>> {
    let mut sum = Array2::zeros((names.len(), model.tower.shape().embedding));
    for template in prompt.templates() {
        let length = model.tower.shape().context_length;
        let tokens = template_tokens(&model.tokenizer, &template, names, length)?;
        let prompts = Prompts::read(&model.tower, &tokens)?;
        // Of unit length each, so that every template counts alike, as in CLIP's ensemble.
        sum += &model.tower.encode(&model.tower.prefix(prompts.shared()), &prompts);
    }
    let embeddings = unit_rows(sum).rows;
    // A sum of 0, which opposite templates give, has no direction and became NaN.
    match embeddings.rows().into_iter().zip(names).find(|(row, _)| !row.iter().all(|value| value.is_finite())) {
        Some((_, name)) => Err(TextError::NotFinite { label: name.clone() }),
        None => Ok(embeddings),
    }
}

/// The prompts of labels under a context, for the method that tunes it.
///
/// # Errors
/// The prompt is an ensemble of templates, the context is empty, or a label cannot be tokenised or does not fit.
pub(crate) fn context_prompts(model: &TextModel, names: &[String], prompt: &Prompt) -> Result<Prompts<f32>> {
    let refused = |found: &str| SettingError {
        what: "the prompt",
        expected: "one context of at least one word, which the method context tunes".into(),
        found: found.into(),
    };
    let Prompt::Context(context) = prompt else { return Err(refused("an ensemble of templates").into()) };
    let tokens = context_tokens(&model.tokenizer, context, names, model.tower.shape().context_length)?;
    // The start token alone leaves nothing to tune.
    if tokens.shared.len() == tokens.fixed {
        return Err(refused("empty").into());
    }
    Prompts::read(&model.tower, &tokens)
}
