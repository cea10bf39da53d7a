//! Tokenizers of text towers.

use std::collections::HashMap;

use super::bpe::Bpe;
use super::clean::Cleaning;
use super::error::{Result, TextError};
use crate::cause::contained;

/// The names of the token that starts a text, in the tokenizers of CLIP models.
const STARTS: [&str; 2] = ["<|startoftext|>", "<start_of_text>"];
/// The names of the token that ends one.
const ENDS: [&str; 2] = ["<|endoftext|>", "<end_of_text>"];

/// A tokenizer that fits a text tower.
pub struct Tokenizer {
    model: Model,
    cleaning: Cleaning,
    start: Option<u32>,
    end: Option<u32>,
    /// The token that stands for what the vocabulary lacks, if it has one of its own.
    unknown: Option<u32>,
}

enum Model {
    /// Hugging Face's `tokenizer.json`, given text that is cleaned as OpenAI's tokenizer cleans it: that is what CLIP
    /// models were trained on. `transformers` leaves it out.
    HuggingFace(Box<tokenizers::Tokenizer>),
    /// OpenAI's list of merges.
    OpenAi(Box<Bpe>),
}

impl Tokenizer {
    /// Reads a tokenizer for a token embedding of `vocabulary` rows: a `tokenizer.json`, or a list of merges as in
    /// `bpe_simple_vocab_16e6.txt.gz` or `merges.txt`. `file` is its name in errors.
    ///
    /// What starts and ends a text are CLIP's tokens, or else what the `tokenizer.json` itself puts around one.
    ///
    /// # Errors
    /// The content is neither, has tokens that the tower has no row for, or lacks the token that ends a text.
    pub fn parse(file: &str, bytes: &[u8], vocabulary: usize, cleaning: Cleaning) -> Result<Self> {
        let refused = |problem: String| TextError::Tokenizer { file: file.into(), problem };
        // A list of merges begins with a line that says what it is, or with gzip's two bytes.
        if !bytes.trim_ascii_start().starts_with(b"{") {
            let bpe = Bpe::parse(bytes, vocabulary).map_err(refused)?;
            let (start, end) = (Some(bpe.start()), Some(bpe.end()));
            return Ok(Self { start, end, unknown: None, cleaning, model: Model::OpenAi(Box::new(bpe)) });
        }
        let parsed = contained(|| tokenizers::Tokenizer::from_bytes(bytes));
        let mut parsed = parsed
            .map_err(|panic| refused(panic.to_string()))?
            .map_err(|error| refused(format!("it is not a valid tokenizer.json: {error}")))?;
        // A text that is too long must be an error, and padding is never needed.
        parsed.with_truncation(None).map_err(|error| refused(error.to_string()))?.with_padding(None);
        let token = |names: [&str; 2]| {
            let found = names.iter().find_map(|name| parsed.token_to_id(name));
            found.ok_or_else(|| format!("it has no token {}, which every prompt needs", names.join(" or ")))
        };
        let (start, end) = match (token(STARTS), token(ENDS)) {
            (Ok(start), Ok(end)) => (Some(start), Some(end)),
            // One of the two is a CLIP's that is damaged.
            (Err(problem), Ok(_)) | (Ok(_), Err(problem)) => return Err(refused(problem)),
            (Err(problem), Err(_)) => around(&parsed).ok_or_else(|| refused(problem))?,
        };
        // With the added tokens: the special ones are often among them.
        let tokens: HashMap<String, u32> = parsed.get_vocab(true);
        let last = tokens.iter().max_by_key(|&(_, &id)| id);
        if let Some((token, id)) = last.filter(|&(_, &id)| id as usize >= vocabulary) {
            return Err(refused(format!(
                "its token {token:?} has number {id}, the tower's token embedding has {vocabulary} rows"
            )));
        }
        let unknown = unknown_token(bytes, &tokens).filter(|&id| Some(id) != end);
        Ok(Self { model: Model::HuggingFace(Box::new(parsed)), cleaning, start, end, unknown })
    }

    /// The number of a token, if there is such a token.
    pub fn token(&self, text: &str) -> Option<u32> {
        match &self.model {
            Model::HuggingFace(tokenizer) => tokenizer.token_to_id(text),
            // A list of merges names none.
            Model::OpenAi(_) => None,
        }
    }

    /// Numbers of tokens: all are below.
    pub fn size(&self) -> usize {
        match &self.model {
            Model::HuggingFace(tokenizer) => {
                tokenizer.get_vocab(true).values().max().map_or(0, |&last| last as usize + 1)
            }
            Model::OpenAi(bpe) => bpe.end() as usize + 1,
        }
    }

    /// The token that starts a text, if one does.
    pub fn start(&self) -> Option<u32> {
        self.start
    }

    /// The token that ends one, if one does.
    pub fn end(&self) -> Option<u32> {
        self.end
    }

    /// The tokens of `text`, with those that start and end it.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_whole(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.start.into_iter().chain(self.encode(text)?).chain(self.end).collect())
    }

    /// The tokens of `text`, without those that start and end it.
    ///
    /// # Errors
    /// The text contains one of those, or a character the tokenizer does not know.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let refused = |problem: String| TextError::Tokens { text: text.into(), problem };
        let tokens = match &self.model {
            Model::HuggingFace(tokenizer) => {
                // Start and end are added by the caller, who cuts prompts between them.
                let encoding = contained(|| tokenizer.encode_fast(self.cleaning.apply(text), false));
                let encoding = encoding
                    .map_err(|panic| refused(panic.to_string()))?
                    .map_err(|error| refused(error.to_string()))?;
                encoding.get_ids().to_vec()
            }
            Model::OpenAi(bpe) => {
                // The pattern for words would take the name apart, and its pieces are tokens like any other.
                if STARTS.iter().chain(&ENDS).any(|special| text.to_lowercase().contains(special)) {
                    return Err(refused("contains the name of a special token".into()));
                }
                bpe.encode(text)
            }
        };
        // CLIP's `tokenizer.json` has the end token stand for what it does not know, so that the two cannot be told
        // apart.
        let special = [self.start, self.end, self.unknown];
        if tokens.iter().any(|&token| special.contains(&Some(token))) {
            return Err(refused("has a character that the model's vocabulary lacks, or the token that starts or ends a text; use other words".into()));
        }
        Ok(tokens)
    }
}

/// The tokens that a tokenizer puts before and behind a text, at most one each; `None` if it puts none behind it.
fn around(tokenizer: &tokenizers::Tokenizer) -> Option<(Option<u32>, Option<u32>)> {
    let ids = |special| Some(contained(|| tokenizer.encode_fast("a", special)).ok()?.ok()?.get_ids().to_vec());
    let (plain, whole) = (ids(false)?, ids(true)?);
    let at = whole.windows(plain.len().max(1)).position(|window| window == plain)?;
    let (before, behind) = (&whole[..at], &whole[at + plain.len()..]);
    match (before, behind) {
        ([], &[end]) => Some((None, Some(end))),
        (&[start], &[end]) => Some((Some(start), Some(end))),
        _ => None,
    }
}

/// The token of a `tokenizer.json` for what its vocabulary lacks.
fn unknown_token(bytes: &[u8], tokens: &HashMap<String, u32>) -> Option<u32> {
    let file: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let model = file.get("model")?;
    match model.get("unk_id").and_then(serde_json::Value::as_u64) {
        Some(id) => u32::try_from(id).ok(),
        None => tokens.get(model.get("unk_token")?.as_str()?).copied(),
    }
}
