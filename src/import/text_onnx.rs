//! A text tower in ONNX out of a model's folder, where nothing says what it is made of.

use std::path::Path;

use super::config::{closed_cleaning, length_of_texts, padding_token};
use super::source::Source;
use super::tower::token_of;
use super::{TEXT_ONNX, read_onnx, wrong};
use crate::bundle::{BundleWriter, TextOnnxSection};
use crate::encoder::{OnnxFile, OnnxValue};
use crate::error::Result;
use crate::limits::{CONTEXT_LENGTH_MAX, VOCABULARY_MAX};
use crate::text::Tokenizer;

/// Usual names of the model.
const MODELS: [&str; 2] = ["onnx/text_model.onnx", "text_model.onnx"];

/// A text tower that only computes.
pub(crate) struct ImportedOnnxText {
    section: TextOnnxSection,
    model: Vec<u8>,
    tokenizer: Vec<u8>,
    /// Embedding width D.
    pub embedding: usize,
}

impl ImportedOnnxText {
    /// Reads the model and its tokenizer; nothing if the folder has no such model.
    ///
    /// # Errors
    /// One is malformed, or something of them is not said anywhere.
    pub(crate) fn find(source: &Source) -> Result<Option<Self>> {
        match source.find(&MODELS)? {
            Some(path) => Self::read(source, &path).map(Some),
            None => Ok(None),
        }
    }

    fn read(source: &Source, path: &Path) -> Result<Self> {
        let onnx = read_onnx(path)?;
        let inputs = onnx.inputs();
        let [OnnxValue { shape, .. }] = &inputs[..] else {
            let names: Vec<String> = inputs.into_iter().map(|input| input.name).collect();
            return Err(wrong(path, "the list of inputs", "the token numbers alone", names.join(", ")));
        };
        let declared = shape.get(1).copied().flatten();
        let context_length = match declared {
            Some(length) => length,
            None => length_of_texts(source)?,
        };
        if !(3..=CONTEXT_LENGTH_MAX).contains(&context_length) {
            let expected = format!("3 to {CONTEXT_LENGTH_MAX}");
            return Err(wrong(path, "the length of its texts (tokens)", &expected, context_length));
        }
        let (output, embedding) = output_of(path, &onnx)?;
        // A list of merges would need the size of the vocabulary, which nothing says.
        let name = "tokenizer.json".to_string();
        let (_, tokenizer) = source.read(&name)?.ok_or_else(|| {
            wrong(source.folder(), "the tokenizer", &format!("{name} beside a text model"), "missing")
        })?;
        let cleaning = closed_cleaning(source)?;
        let parsed = Tokenizer::parse(&name, &tokenizer, VOCABULARY_MAX, cleaning)?;
        let padding = token_of(source, &name, &parsed, &padding_token(source)?)?;
        let section = TextOnnxSection {
            file: TEXT_ONNX.into(),
            tokenizer: name,
            context_length,
            vocabulary: parsed.size(),
            padding,
            output,
            cleaning,
        };
        Ok(Self { section, model: onnx.into_bytes(), tokenizer, embedding })
    }

    /// Writes model and tokenizer into a bundle.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn write(&self, writer: &mut BundleWriter) -> Result<TextOnnxSection> {
        writer.add(TEXT_ONNX, &self.model)?;
        writer.add(&self.section.tokenizer, &self.tokenizer)?;
        Ok(self.section.clone())
    }
}

/// The output with the embeddings, if it has to be named, and their width D.
fn output_of(path: &Path, onnx: &OnnxFile) -> Result<(Option<String>, usize)> {
    let outputs = onnx.outputs();
    let named = outputs.iter().find(|output| output.name == "text_embeds");
    let output = match (named, &outputs[..]) {
        (Some(output), _) | (None, [output]) => output,
        (None, _) => {
            let found: Vec<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
            return Err(wrong(path, "the list of outputs", "text_embeds, or one alone", found.join(", ")));
        }
    };
    match output.shape[..] {
        [_, Some(width)] => Ok((named.map(|output| output.name.clone()), width)),
        _ => Err(wrong(path, "the shape of its output", "[N, D] with a number for D", format!("{:?}", output.shape))),
    }
}
