//! Names of a checkpoint's weights: those of Hugging Face's `CLIPTextModelWithProjection`, or those of
//! OpenAI's CLIP, which OpenCLIP shares.

use std::collections::HashSet;

use ndarray::{Array1, Array2, Axis, concatenate};

use super::attention::Heads;
use super::block::Block;
use super::error::Result;
use super::layers::{LayerNorm, Linear};
use super::tower::{TowerShape, TowerStyle};
use super::weights::{SCALE_SUFFIX, WeightsFile};
use crate::products::Real;

/// Naming scheme of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// `text_model.encoder.layers.…`.
    HuggingFace,
    /// `transformer.resblocks.…`, behind this prefix: none, or OpenCLIP's `text.`.
    OpenAi(&'static str),
}

impl Naming {
    /// The scheme of a file, by the name of its token embedding.
    ///
    /// # Errors
    /// The file has a token embedding under none of the known names.
    pub(crate) fn of(weights: &WeightsFile) -> Result<Self> {
        let known = [Self::HuggingFace, Self::OpenAi(""), Self::OpenAi("text.")];
        let found = known.into_iter().find(|naming| weights.has(&naming.tokens()));
        Ok(found.ok_or_else(|| {
            let expected = known.map(|naming| naming.tokens()).join(" or ");
            weights.wrong("the token embedding", &expected, "under none of these names")
        })?)
    }

    /// The token embedding `[vocabulary, W]`.
    pub(crate) fn tokens(self) -> String {
        match self {
            Self::HuggingFace => "text_model.embeddings.token_embedding.weight".into(),
            Self::OpenAi(prefix) => format!("{prefix}token_embedding.weight"),
        }
    }

    /// The position embedding `[L, W]`.
    pub(crate) fn positions(self) -> String {
        match self {
            Self::HuggingFace => "text_model.embeddings.position_embedding.weight".into(),
            Self::OpenAi(prefix) => format!("{prefix}positional_embedding"),
        }
    }

    /// The name that every tensor of a layer begins with.
    pub(crate) fn layer(self, layer: usize) -> String {
        match self {
            Self::HuggingFace => format!("text_model.encoder.layers.{layer}."),
            Self::OpenAi(prefix) => format!("{prefix}transformer.resblocks.{layer}."),
        }
    }

    /// The projection: `[W, D]` as OpenAI's parameter, `[D, W]` as the weight of a linear layer, which SigLIP calls a head.
    fn projection_names(self) -> Vec<String> {
        match self {
            Self::HuggingFace => {
                ["text_projection", "text_projection.weight", "text_model.head.weight"].map(String::from).into()
            }
            Self::OpenAi(prefix) => {
                ["text_projection", "text_projection.weight"].map(|name| format!("{prefix}{name}")).into()
            }
        }
    }

    /// The bias `[D]` after the projection.
    fn projection_bias_names(self) -> Vec<String> {
        let weights = self.projection_names();
        weights.iter().filter_map(|name| Some(format!("{}.bias", name.strip_suffix(".weight")?))).collect()
    }

    /// The names of all tensors that the tower is made of.
    pub(crate) fn tensors(self, weights: &WeightsFile) -> Vec<String> {
        // Checkpoints hold the vision tower as well, under names that begin with `vision_model.` or `visual.`.
        let parts: Vec<String> = match self {
            Self::HuggingFace => vec!["text_model.".into()],
            Self::OpenAi(prefix) => {
                ["transformer.resblocks.", "ln_final."].map(|part| format!("{prefix}{part}")).into()
            }
        };
        let single = [self.tokens(), self.positions()].into_iter().chain(self.projection_names());
        let single: Vec<String> = single.chain(self.projection_bias_names()).collect();
        let belongs = |name: &String| {
            let plain = name.strip_suffix(SCALE_SUFFIX).unwrap_or(name);
            single.iter().any(|one| one == plain) || parts.iter().any(|part| name.starts_with(part))
        };
        // Old checkpoints also store the numbers 0 to L - 1.
        let mut names: Vec<String> = weights.names().into_iter().filter(belongs).collect();
        names.retain(|name| !name.ends_with("position_ids"));
        names.sort();
        names
    }

    /// A tensor beside those that the tower is made of, under names that begin like theirs: a part of a tower of another kind.
    pub(crate) fn foreign(self, weights: &WeightsFile, layers: usize) -> Option<String> {
        let (norms, of_layer, prefix): (_, &[&str], _) = match self {
            Self::HuggingFace => (
                "text_model.final_layer_norm",
                &[
                    "layer_norm1",
                    "layer_norm2",
                    "self_attn.q_proj",
                    "self_attn.k_proj",
                    "self_attn.v_proj",
                    "self_attn.out_proj",
                    "mlp.fc1",
                    "mlp.fc2",
                ],
                "",
            ),
            Self::OpenAi(prefix) => ("ln_final", &["ln_1", "ln_2", "attn.out_proj", "mlp.c_fc", "mlp.c_proj"], prefix),
        };
        let pair = |name: String| [format!("{name}.weight"), format!("{name}.bias")];
        let mut known: HashSet<String> = pair(format!("{prefix}{norms}")).into();
        for at in (0..layers).map(|layer| self.layer(layer)) {
            known.extend(of_layer.iter().flat_map(|name| pair(format!("{at}{name}"))));
            known.extend(["attn.in_proj_weight", "attn.in_proj_bias"].map(|name| format!("{at}{name}")));
        }
        known.extend([self.tokens(), self.positions()]);
        // One projection is read, and its bias.
        let (read, _) = self.projection_name(weights);
        known.extend(read.strip_suffix(".weight").map(|name| format!("{name}.bias")));
        known.insert(read);
        let projection = format!("{prefix}text_projection.");
        let mut names = self.tensors(weights);
        names.extend(weights.names().into_iter().filter(|name| name.starts_with(&projection)));
        names.into_iter().find(|name| !known.contains(name.strip_suffix(SCALE_SUFFIX).unwrap_or(name)))
    }

    /// The projection's name, and the axis of D.
    fn projection_name(self, weights: &WeightsFile) -> (String, usize) {
        let names = self.projection_names();
        // Where there is none, the parameter is what is missing.
        let place = names.iter().position(|name| weights.has(name)).unwrap_or_default();
        (names[place].clone(), usize::from(place == 0))
    }

    /// The embedding width D that the projection leads to.
    ///
    /// # Errors
    /// There is no projection, or it is no matrix.
    pub(crate) fn embedding(self, weights: &WeightsFile) -> Result<usize> {
        let (name, axis) = self.projection_name(weights);
        match weights.shape(&name)?[..] {
            [rows, columns] => Ok([rows, columns][axis]),
            ref other => Err(weights.wrong(&format!("the shape of {name}"), "two axes", format!("{other:?}")).into()),
        }
    }

    /// Rows of the token embedding.
    ///
    /// # Errors
    /// It is not as wide as the tower, or such a row is missing or holds NaN or infinity.
    pub(crate) fn token_rows<T: Real>(
        self,
        weights: &WeightsFile,
        shape: TowerShape,
        tokens: &[u32],
    ) -> Result<Array2<T>> {
        let name = self.tokens();
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= shape.vocabulary) {
            return Err(weights
                .wrong("a token", &format!("below {}, the rows of {name}", shape.vocabulary), token)
                .into());
        }
        weights.rows(&name, [shape.vocabulary, shape.width], tokens)
    }

    /// The layer norm before the projection.
    ///
    /// # Errors
    /// As [`WeightsFile::vector`].
    pub(crate) fn final_norm<T: Real>(self, weights: &WeightsFile, width: usize, epsilon: f64) -> Result<LayerNorm<T>> {
        match self {
            Self::HuggingFace => norm(weights, "text_model.final_layer_norm", width, epsilon),
            Self::OpenAi(prefix) => norm(weights, &format!("{prefix}ln_final"), width, epsilon),
        }
    }

    /// The projection as `[W, D]`.
    ///
    /// # Errors
    /// As [`WeightsFile::matrix`].
    pub(crate) fn projection<T: Real>(
        self,
        weights: &WeightsFile,
        width: usize,
        embedding: usize,
    ) -> Result<Array2<T>> {
        let (name, axis) = self.projection_name(weights);
        if axis == 1 {
            return weights.matrix(&name, [width, embedding]);
        }
        // Copied into the parameter's layout, so that products do not depend on which name a checkpoint has.
        Ok(weights.matrix(&name, [embedding, width])?.reversed_axes().as_standard_layout().into_owned())
    }

    /// True if there is a bias after the projection.
    pub(crate) fn has_projection_bias(self, weights: &WeightsFile) -> bool {
        self.projection_bias_names().iter().any(|name| weights.has(name))
    }

    /// The bias `[D]` after the projection, if there is one.
    ///
    /// # Errors
    /// As [`WeightsFile::vector`].
    pub(crate) fn projection_bias<T: Real>(self, weights: &WeightsFile, embedding: usize) -> Result<Option<Array1<T>>> {
        let names = self.projection_bias_names();
        let name = names.iter().find(|name| weights.has(name));
        name.map(|name| weights.vector(name, embedding)).transpose()
    }

    /// One layer's weights.
    ///
    /// # Errors
    /// As [`WeightsFile::matrix`].
    pub(crate) fn block<T: Real>(self, weights: &WeightsFile, layer: usize, shape: TowerShape) -> Result<Block<T>> {
        let TowerShape { width, hidden, activation, style: TowerStyle { epsilon, .. }, .. } = shape;
        let (at, heads) = (self.layer(layer), Heads { width, count: shape.heads });
        let [norm1, out, norm2, up, down] = match self {
            Self::HuggingFace => ["layer_norm1", "self_attn.out_proj", "layer_norm2", "mlp.fc1", "mlp.fc2"],
            Self::OpenAi(_) => ["ln_1", "attn.out_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"],
        };
        Ok(Block {
            norm1: norm(weights, &format!("{at}{norm1}"), width, epsilon)?,
            qkv: self.query_key_value(weights, &at, width)?,
            out: linear(weights, &format!("{at}{out}"), width, width)?,
            norm2: norm(weights, &format!("{at}{norm2}"), width, epsilon)?,
            up: linear(weights, &format!("{at}{up}"), width, hidden)?,
            down: linear(weights, &format!("{at}{down}"), hidden, width)?,
            activation,
            heads,
        })
    }

    /// Query, key and value as one layer `[W, 3W]`.
    fn query_key_value<T: Real>(self, weights: &WeightsFile, at: &str, width: usize) -> Result<Linear<T>> {
        if let Self::OpenAi(_) = self {
            let weight: Array2<T> = weights.matrix(&format!("{at}attn.in_proj_weight"), [3 * width, width])?;
            let bias: Array1<T> = weights.vector(&format!("{at}attn.in_proj_bias"), 3 * width)?;
            return Ok(Linear::new(weight.t(), bias.view()));
        }
        let part = |name: &str| stored::<T>(weights, &format!("{at}self_attn.{name}_proj"), width, width);
        // Side by side, as OpenAI stores them: one product instead of three.
        let parts = [part("q")?, part("k")?, part("v")?];
        let join = "three matrices of the same width";
        let weight = concatenate(Axis(0), &parts.each_ref().map(|(weight, _)| weight.view())).expect(join);
        let bias = concatenate(Axis(0), &parts.each_ref().map(|(_, bias)| bias.view())).expect(join);
        Ok(Linear::new(weight.t(), bias.view()))
    }
}

fn norm<T: Real>(weights: &WeightsFile, name: &str, width: usize, epsilon: f64) -> Result<LayerNorm<T>> {
    let gain = weights.vector(&format!("{name}.weight"), width)?;
    Ok(LayerNorm { epsilon, gain, bias: weights.vector(&format!("{name}.bias"), width)? })
}

fn linear<T: Real>(weights: &WeightsFile, name: &str, inputs: usize, outputs: usize) -> Result<Linear<T>> {
    let (weight, bias) = stored(weights, name, inputs, outputs)?;
    Ok(Linear::new(weight.t(), bias.view()))
}

/// Weight `[outputs, inputs]`, as PyTorch stores it, and bias.
fn stored<T: Real>(weights: &WeightsFile, name: &str, inputs: usize, outputs: usize) -> Result<(Array2<T>, Array1<T>)> {
    let weight = weights.matrix(&format!("{name}.weight"), [outputs, inputs])?;
    Ok((weight, weights.vector(&format!("{name}.bias"), outputs)?))
}
