//! A text tower with its tokenizer: from labels and a prompt to class embeddings.

use std::sync::Arc;

use ndarray::{Array2, ArrayView2};

use super::error::{Result, TextError};
use super::prompt::{Prompt, context_tokens, filled_tokens, template_tokens};
use super::prompts::Prompts;
use super::tokenizer::Tokenizer;
use super::tower::TextTower;
use crate::cause::Cause;
use crate::rows::unit_rows;
use crate::setting::SettingError;

/// A text tower and the tokenizer that belongs to it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct TextModel {
    /// Tokenizer: text to tokens.
    pub tokenizer: Arc<Tokenizer>,
    /// Tower: tokens to embeddings.
    pub tower: Tower,
}

/// A text tower.
#[derive(Clone)]
pub(crate) enum Tower {
    /// One whose layers are known, and which has gradients.
    Known(Arc<TextTower<f32>>),
    /// One that only computes.
    Closed(Arc<ClosedTower>),
}

/// A text tower that only computes: whole texts in, embeddings out.
pub(crate) struct ClosedTower {
    /// What computes it.
    pub encoder: Box<dyn TokenEncoder>,
    /// Length of every text L (tokens).
    pub context_length: usize,
    /// The token that fills texts up.
    pub padding: u32,
    /// Embedding width D.
    pub embedding: usize,
}

/// What computes a [`ClosedTower`].
pub(crate) trait TokenEncoder: Send + Sync {
    /// The embeddings `[N, D]`, of any length, of texts `[N, L]`. Runs on the current rayon pool.
    ///
    /// # Errors
    /// The model fails.
    fn encode(&self, tokens: ArrayView2<i64>) -> std::result::Result<Array2<f32>, Cause>;
}

impl Tower {
    /// Embedding width D.
    fn embedding(&self) -> usize {
        match self {
            Self::Known(tower) => tower.shape().embedding,
            Self::Closed(tower) => tower.embedding,
        }
    }

    /// Longest text L (tokens).
    fn context_length(&self) -> usize {
        match self {
            Self::Known(tower) => tower.shape().context_length,
            Self::Closed(tower) => tower.context_length,
        }
    }
}

impl ClosedTower {
    /// The unit embeddings `[N, D]` of texts.
    fn encode(&self, texts: &[Vec<u32>]) -> Result<Array2<f32>> {
        let mut tokens = Array2::from_elem((texts.len(), self.context_length), i64::from(self.padding));
        for (mut row, text) in tokens.rows_mut().into_iter().zip(texts) {
            row.iter_mut().zip(text).for_each(|(slot, &token)| *slot = token.into());
        }
        let embeddings = self.encoder.encode(tokens.view()).map_err(|source| TextError::Model { source })?;
        Ok(unit_rows(embeddings).rows)
    }
}

/// The unit embeddings `[C, D]` of labels. With several templates each is their mean, at unit length.
///
/// # Errors
/// A label cannot be tokenised or does not fit, or the tower gives it an embedding without direction.
pub(crate) fn embed(model: &TextModel, names: &[String], prompt: &Prompt) -> Result<Array2<f32>> {
    let mut sum = Array2::zeros((names.len(), model.tower.embedding()));
    for template in prompt.templates() {
        let length = model.tower.context_length();
        // Of unit length each, so that every template counts alike, as in CLIP's ensemble.
        match &model.tower {
            Tower::Known(tower) => {
                let prompts = Prompts::read(tower, &template_tokens(&model.tokenizer, &template, names, length)?)?;
                sum += &tower.encode(&tower.prefix(prompts.shared()), &prompts);
            }
            Tower::Closed(tower) => {
                sum += &tower.encode(&filled_tokens(&model.tokenizer, &template, names, length)?)?;
            }
        }
    }
    let embeddings = unit_rows(sum).rows;
    // A sum of 0, which opposite templates give, has no direction and became NaN.
    match embeddings.rows().into_iter().zip(names).find(|(row, _)| !row.iter().all(|value| value.is_finite())) {
        Some((_, name)) => Err(TextError::NotFinite { label: name.clone() }),
        None => Ok(embeddings),
    }
}

/// The tower and the prompts of labels under a context, for the method that tunes it.
///
/// # Errors
/// The tower has no gradients, the prompt is an ensemble of templates, the context is empty, or a label cannot be tokenised or does not fit.
pub(crate) fn context_prompts(
    model: TextModel,
    names: &[String],
    prompt: &Prompt,
) -> Result<(Arc<TextTower<f32>>, Prompts<f32>)> {
    let refused = |found: &str| SettingError {
        what: "the prompt",
        expected: "one context of at least one word, which the method context tunes".into(),
        found: found.into(),
    };
    let Tower::Known(tower) = model.tower else { return Err(TextError::NoGradients) };
    let Prompt::Context(context) = prompt else { return Err(refused("an ensemble of templates").into()) };
    let tokens = context_tokens(&model.tokenizer, context, names, tower.shape().context_length)?;
    // The start token alone leaves nothing to tune.
    if tokens.shared.len() == tokens.fixed {
        return Err(refused("empty").into());
    }
    let prompts = Prompts::read(&tower, &tokens)?;
    Ok((tower, prompts))
}
