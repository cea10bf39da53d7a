//! The text tower and the projections out of a CLIP checkpoint.

use std::collections::HashMap;

use ndarray::Array2;
use safetensors::tensor::TensorView;

use super::config::{Padding, TextConfig, WholeConfig};
use super::source::Source;
use super::{TOWER, wrong};
use crate::bundle::{BundleWriter, TextSection, WholeSection};
use crate::error::Result;
use crate::files::FileError;
use crate::text::{
    Bpe, Cleaning, Naming, TextError, TextTower, Tokenizer, TowerShape, TowerStyle, WeightsFile, WholeTexts,
};

/// File names of checkpoints.
const CHECKPOINTS: [&str; 2] = ["model.safetensors", "open_clip_model.safetensors"];
/// File names of OpenAI's list of merges.
const MERGES: [&str; 2] = ["bpe_simple_vocab_16e6.txt.gz", "bpe_simple_vocab_16e6.txt"];

/// A checked text tower.
pub(crate) struct ImportedTower {
    /// Sizes of the tower, as its tensors have them.
    pub shape: TowerShape,
    naming: Naming,
    weights: WeightsFile,
    tokenizer_name: String,
    tokenizer: Vec<u8>,
    cleaning: Cleaning,
}

/// True if the folder has a checkpoint.
///
/// # Errors
/// Its name leads out of the folder.
pub(crate) fn has_checkpoint(source: &Source) -> Result<bool> {
    Ok(source.find(&CHECKPOINTS)?.is_some())
}

impl ImportedTower {
    /// Reads checkpoint and tokenizer, and checks them against the configuration and one another.
    ///
    /// # Errors
    /// One is missing or malformed, or sizes contradict one another.
    pub(crate) fn read(source: &Source, config: &TextConfig) -> Result<Self> {
        let path = source.find(&CHECKPOINTS)?.ok_or_else(|| {
            let expected =
                format!("{} (several shards or pytorch_model.bin: save it again as one)", CHECKPOINTS.join(" or "));
            wrong(source.folder(), "the checkpoint", &expected, "missing")
        })?;
        let weights = WeightsFile::open(&path)?;
        let naming = Naming::of(&weights)?;
        let vocabulary = weights.shape(&naming.tokens())?.first().copied().unwrap_or_default();
        let (tokenizer_name, tokenizer) = read_tokenizer(source, vocabulary)?;
        let parsed = Tokenizer::parse(&tokenizer_name, &tokenizer, vocabulary, config.cleaning)?;
        let style = style_of(source, &tokenizer_name, &parsed, config)?;
        let shape = shape_of(&weights, naming, config, style)?;
        if config.has_projection_bias != naming.has_projection_bias(&weights) {
            let [expected, found] = [config.has_projection_bias, !config.has_projection_bias]
                .map(|has| if has { "with a bias" } else { "without one" });
            return Err(wrong(
                &path,
                "the text tower's projection",
                &format!("{expected} by the configuration"),
                found,
            ));
        }
        for &(name, expected) in &config.sizes {
            let found = match name {
                "width" => shape.width,
                "layers" => shape.layers,
                "context length" => shape.context_length,
                "vocabulary" => shape.vocabulary,
                _ => shape.embedding,
            };
            if found != expected {
                return Err(wrong(&path, &format!("the {name}"), &format!("{expected} from the configuration"), found));
            }
        }
        if let Some(name) = naming.foreign(&weights, shape.layers) {
            let expected =
                "the tensors of CLIP's text tower alone: the tower has a part that this version does not compute";
            return Err(wrong(&path, "the list of the text tower's tensors", expected, format!("with {name}")));
        }
        // All of it, so that a value that is not finite is found now and not by some label.
        TextTower::<f32>::load(WeightsFile::open(&path)?, shape)?;
        weights.matrix::<f32>(&naming.tokens(), [shape.vocabulary, shape.width])?;
        Ok(Self { shape, naming, weights, tokenizer_name, tokenizer, cleaning: config.cleaning })
    }

    /// `exp` of the checkpoint's `logit_scale`, if it has one.
    ///
    /// # Errors
    /// It is no finite number.
    pub(crate) fn logit_scale(&self) -> Result<Option<f32>> {
        self.weights.has("logit_scale").then(|| Ok(self.weights.number::<f32>("logit_scale")?.exp())).transpose()
    }

    /// The checkpoint's `logit_bias`, if it has one.
    ///
    /// # Errors
    /// It is no finite number.
    pub(crate) fn logit_bias(&self) -> Result<Option<f32>> {
        Ok(self.weights.has("logit_bias").then(|| self.weights.number::<f32>("logit_bias")).transpose()?)
    }

    /// The projection `[D, X]` of the vision model's pooled output; none where the text tower sees texts whole, as SigLIP's.
    ///
    /// # Errors
    /// The checkpoint has none, or one of another height.
    pub(crate) fn visual_projection(&self) -> Result<Option<Array2<f32>>> {
        let name = "visual_projection.weight";
        if self.shape.style.whole.is_some() && !self.weights.has(name) {
            return Ok(None);
        }
        let shape = self.weights.shape(name)?;
        Ok(Some(self.weights.matrix(name, [self.shape.embedding, shape.last().copied().unwrap_or_default()])?))
    }

    /// Writes tower and tokenizer into a bundle; the tensors keep their type and names.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn write(&self, writer: &mut BundleWriter) -> Result<TextSection> {
        let target = writer.folder().join(TOWER);
        let kept = self.naming.tensors(&self.weights);
        let mut tensors = Vec::new();
        for name in &kept {
            tensors.push((name, self.weights.stored(name)?));
        }
        let views = tensors.iter().map(|(name, stored)| {
            let view = TensorView::new(stored.dtype, stored.shape.clone(), &stored.data);
            (name.as_str(), view.expect("the header was validated against the file"))
        });
        safetensors::serialize_to_file(views, None, &target).map_err(|error| FileError::Unwritable {
            path: target.clone(),
            source: std::io::Error::other(error.to_string()),
        })?;
        writer.record(TOWER)?;
        writer.add(&self.tokenizer_name, &self.tokenizer)?;
        let TowerShape { layers, width, heads, context_length, vocabulary, hidden, activation, style, .. } = self.shape;
        Ok(TextSection {
            file: TOWER.into(),
            tokenizer: self.tokenizer_name.clone(),
            layers,
            width,
            heads,
            context_length,
            vocabulary,
            activation,
            hidden: (hidden != 4 * width).then_some(hidden),
            whole: style.whole.map(|WholeTexts { padding, pooling }| WholeSection { padding, pooling }),
            epsilon: style.epsilon,
            cleaning: self.cleaning,
        })
    }
}

/// What the tower does otherwise than CLIP's.
fn style_of(source: &Source, name: &str, tokenizer: &Tokenizer, config: &TextConfig) -> Result<TowerStyle> {
    let whole = match &config.whole {
        None => None,
        Some(WholeConfig { padding, pooling }) => {
            let padding = token_of(source, name, tokenizer, padding)?;
            Some(WholeTexts { padding, pooling: *pooling })
        }
    };
    Ok(TowerStyle { whole, epsilon: config.epsilon })
}

/// The number of a token that a configuration names; `name` is the tokenizer's file.
///
/// # Errors
/// There is no such token.
pub(super) fn token_of(source: &Source, name: &str, tokenizer: &Tokenizer, token: &Padding) -> Result<u32> {
    match token {
        Padding::Number(number) => Ok(*number),
        Padding::Text(text) => tokenizer.token(text).ok_or_else(|| {
            let what = format!("{text:?}, which fills texts up");
            wrong(source.folder(), &what, &format!("a token of {name}"), "none")
        }),
    }
}

fn shape_of(weights: &WeightsFile, naming: Naming, config: &TextConfig, style: TowerStyle) -> Result<TowerShape> {
    let matrix = |name: String| -> Result<[usize; 2]> {
        match weights.shape(&name)?[..] {
            [rows, columns] => Ok([rows, columns]),
            ref other => Err(weights.wrong(&format!("the shape of {name}"), "two axes", format!("{other:?}")).into()),
        }
    };
    let [vocabulary, width] = matrix(naming.tokens())?;
    let [context_length, _] = matrix(naming.positions())?;
    let names = weights.names();
    // The prefix ends in a dot, so that layer 10 does not count as layer 1.
    let layers = (0..).take_while(|&layer| names.iter().any(|name| name.starts_with(&naming.layer(layer)))).count();
    if layers == 0 || config.heads == 0 || !width.is_multiple_of(config.heads) {
        let found = format!("{layers} layers of width {width} with {} heads", config.heads);
        return Err(weights
            .wrong("the text tower", "at least one layer, and heads that divide its width", found)
            .into());
    }
    let embedding = naming.embedding(weights)?;
    let TextConfig { heads, activation, mlp_ratio, .. } = *config;
    // Rounded as by open_clip.
    let hidden = (width as f64 * mlp_ratio) as usize;
    Ok(TowerShape { layers, width, heads, context_length, vocabulary, embedding, hidden, activation, style })
}

/// Name and bytes of the tokenizer as the bundle will have it.
fn read_tokenizer(source: &Source, vocabulary: usize) -> Result<(String, Vec<u8>)> {
    if let Some((_, bytes)) = source.read("tokenizer.json")? {
        return Ok(("tokenizer.json".into(), bytes));
    }
    for name in MERGES {
        if let Some((_, bytes)) = source.read(name)? {
            return Ok((name.into(), bytes));
        }
    }
    let (Some((_, merges)), Some((path, vocab))) = (source.read("merges.txt")?, source.read("vocab.json")?) else {
        let expected = "tokenizer.json, or vocab.json and merges.txt, or bpe_simple_vocab_16e6.txt.gz";
        return Err(wrong(source.folder(), "the tokenizer", expected, "missing"));
    };
    let vocab: HashMap<String, u32> = serde_json::from_slice(&vocab)
        .map_err(|error| wrong(&path, "the content", "a JSON map of tokens to numbers", error))?;
    let refused = |problem| TextError::Tokenizer { file: "vocab.json".into(), problem };
    // Compared first: `agrees_with` looks up the tokens that the merges give, and would not notice further ones.
    if vocab.len() > vocabulary {
        return Err(
            refused(format!("it has {} tokens, the tower's token embedding {vocabulary} rows", vocab.len())).into()
        );
    }
    let bpe = Bpe::parse(&merges, vocabulary)
        .map_err(|problem| TextError::Tokenizer { file: "merges.txt".into(), problem })?;
    // The numbers follow from the merges, which is all that a bundle keeps.
    bpe.agrees_with(&merges, &vocab).map_err(refused)?;
    Ok(("merges.txt".into(), merges))
}
