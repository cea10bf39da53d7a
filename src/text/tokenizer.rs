//! Tokenizers of text towers.

use std::collections::HashMap;

use super::bpe::Bpe;
use super::clean::clean;
use super::error::{Result, TextError};
use crate::cause::contained;

/// The names of the token that starts a text, in the tokenizers of CLIP models.
const STARTS: [&str; 2] = ["<|startoftext|>", "<start_of_text>"];
/// The names of the token that ends one.
const ENDS: [&str; 2] = ["<|endoftext|>", "<end_of_text>"];

/// A tokenizer that fits a text tower.
pub struct Tokenizer {
    model: Model,
    start: u32,
    end: u32,
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
    /// # Errors
    /// The content is neither, has tokens that the tower has no row for, or lacks the tokens that start and end a text.
    pub fn parse(file: &str, bytes: &[u8], vocabulary: usize) -> Result<Self> {
        let refused = |problem: String| TextError::Tokenizer { file: file.into(), problem };
        // A list of merges begins with a line that says what it is, or with gzip's two bytes.
        if !bytes.trim_ascii_start().starts_with(b"{") {
            let bpe = Bpe::parse(bytes, vocabulary).map_err(refused)?;
            return Ok(Self { start: bpe.start(), end: bpe.end(), model: Model::OpenAi(Box::new(bpe)) });
        }
        let parsed = contained(|| tokenizers::Tokenizer::from_bytes(bytes));
        let mut parsed = parsed
            .map_err(|panic| refused(panic.to_string()))?
            .map_err(|error| refused(format!("it is not a valid tokenizer.json: {error}")))?;
        // A text that is too long must be an error, and padding is never needed.
        parsed.with_truncation(None).map_err(|error| refused(error.to_string()))?.with_padding(None);
        let token = |names: [&str; 2]| {
            let found = names.iter().find_map(|name| parsed.token_to_id(name));
            found.ok_or_else(|| refused(format!("it has no token {}, which every prompt needs", names.join(" or "))))
        };
        let (start, end) = (token(STARTS)?, token(ENDS)?);
        // With the added tokens: the special ones are often among them.
        let tokens: HashMap<String, u32> = parsed.get_vocab(true);
        let last = tokens.iter().max_by_key(|&(_, &id)| id);
        if let Some((token, id)) = last.filter(|&(_, &id)| id as usize >= vocabulary) {
            return Err(refused(format!(
                "its token {token:?} has number {id}, the tower's token embedding has {vocabulary} rows"
            )));
        }
        Ok(Self { model: Model::HuggingFace(Box::new(parsed)), start, end })
    }

    /// The token that starts a text.
    pub fn start(&self) -> u32 {
        self.start
    }

    /// The token that ends one.
    pub fn end(&self) -> u32 {
        self.end
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
                let encoding = contained(|| tokenizer.encode_fast(clean(text), false));
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
        if tokens.iter().any(|&token| token == self.start || token == self.end) {
            return Err(refused("has a character that the model's vocabulary lacks, or the token that starts or ends a text; use other words".into()));
        }
        Ok(tokens)
    }
}
