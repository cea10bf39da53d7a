//! CLIP's text transformer, and its kin, over many prompts that begin alike, forward and backward.
//!
//! CLIP's tower is causal, and only the hidden state at the end token is read. So a prompt needs no padding; what all
//! prompts share is computed once, and each prompt adds only its own few rows; and in the last layer only the ends
//! ask. The result is that of running every prompt alone and padded, which the tests do.
//!
//! In a tower that is not causal every row sees every other, padding included: there each prompt is run whole.
//!
//! Prompts are worked on in chunks of bounded size, in parallel on the current rayon pool. How they are cut depends on
//! the prompts alone, so that the bits do not depend on the number of threads.

use std::ops::Range;

use ndarray::{Array1, Array2, ArrayView2, Axis, concatenate, parallel::prelude::*, s};

use super::attention::{Queries, Segments};
use super::block::{Block, BlockTape, Scope};
use super::error::{Result, TextError};
use super::layers::{Activation, CLIP_EPSILON, LayerNorm, NormTape};
use super::names::Naming;
use super::prompts::Prompts;
use super::weights::WeightsFile;
use crate::products::{Real, scaled_products};
use crate::rows::{UnitRows, unit_rows, unit_rows_backward};

/// Rows of one chunk: large enough for the matrix products to be efficient, small enough that what backward needs
/// stays in tens of megabytes a thread at CLIP's width of 512.
const CHUNK_ROWS: usize = 126;

/// Sizes of a text tower.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TowerShape {
    /// Transformer layers.
    pub layers: usize,
    /// Width W.
    pub width: usize,
    /// Attention heads; they divide W.
    pub heads: usize,
    /// Longest text L (tokens, start and end included).
    pub context_length: usize,
    /// Rows of the token embedding.
    pub vocabulary: usize,
    /// Embedding width D.
    pub embedding: usize,
    /// Width of the MLPs between their layers.
    pub hidden: usize,
    /// Activation of the MLPs.
    pub activation: Activation,
    /// What it does otherwise than CLIP's.
    pub style: TowerStyle,
}

/// What text towers do differently.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TowerStyle {
    /// How texts are filled up and seen whole; `None` for causal attention, which needs no filling.
    pub whole: Option<WholeTexts>,
    /// Added to the variance in layer norms.
    pub epsilon: f64,
}

/// Texts that a tower without a causal mask sees: filled up to the context length, each row by every row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WholeTexts {
    /// The token that fills them up.
    pub padding: u32,
    /// The row whose state is the text's.
    pub pooling: Pooling,
}

/// The row whose state is the text's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// That of the end token, as in CLIP.
    End,
    /// The last one, whatever is there, as in SigLIP.
    Last,
}

impl TowerStyle {
    /// CLIP's own.
    pub const CLIP: Self = Self { whole: None, epsilon: CLIP_EPSILON };
}

/// The frozen tower. Its token embedding stays in the mapped file and is read by row.
pub struct TextTower<T: Real> {
    shape: TowerShape,
    weights: WeightsFile,
    naming: Naming,
    positions: Array2<T>,
    blocks: Vec<Block<T>>,
    final_norm: LayerNorm<T>,
    /// `[W, D]`.
    projection: Array2<T>,
    /// `[D]`, if it has one.
    projection_bias: Option<Array1<T>>,
    /// The embedding of the token that fills texts up `[W]`, if one does.
    padding: Option<Array1<T>>,
}

/// The shared beginning of all prompts.
pub struct Prefix<T>(Beginning<T>);

enum Beginning<T> {
    /// Run through the tower.
    Run {
        /// Queries, keys and values in every layer but the last, with what backward needs.
        tapes: Vec<BlockTape<T>>,
        /// Queries, keys and values in the last layer, `[P, 3W]`.
        last: Array2<T>,
        last_norm: NormTape<T>,
    },
    /// Its rows `[P, W]` without positions, of which every prompt gets a copy.
    Rows(Array2<T>),
}

/// Intermediates that a forward pass keeps.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// Tapes that the backward pass needs.
    Tapes,
    /// Only the embeddings.
    Nothing,
}

/// One chunk of prompts after the tower.
struct Chunk<T> {
    segments: Segments,
    tapes: Vec<BlockTape<T>>,
    final_norm: NormTape<T>,
    /// Unit rows `[C, D]` and the lengths they had.
    embeddings: UnitRows<T>,
}

impl<T: Real> TextTower<T> {
    /// Reads the tower's weights, by the names of Hugging Face's `CLIPTextModelWithProjection` or of OpenAI's CLIP.
    ///
    /// # Errors
    /// A tensor is missing, of another type or shape, or holds NaN or infinity.
    pub fn load(weights: WeightsFile, shape: TowerShape) -> Result<Self> {
        let naming = Naming::of(&weights)?;
        let TowerShape { width, embedding, style, .. } = shape;
        // The table is read when labels are; its shape must be right before.
        naming.token_rows::<T>(&weights, shape, &[0])?;
        let block = |layer| naming.block(&weights, layer, shape);
        let padding = style
            .whole
            .map(|whole| Ok::<_, TextError>(naming.token_rows(&weights, shape, &[whole.padding])?.row(0).to_owned()));
        Ok(Self {
            positions: weights.matrix(&naming.positions(), [shape.context_length, width])?,
            blocks: (0..shape.layers).map(block).collect::<Result<_>>()?,
            final_norm: naming.final_norm(&weights, width, style.epsilon)?,
            projection: naming.projection(&weights, width, embedding)?,
            projection_bias: naming.projection_bias(&weights, embedding)?,
            padding: padding.transpose()?,
            shape,
            naming,
            weights,
        })
    }

    /// Sizes of the tower.
    pub fn shape(&self) -> TowerShape {
        self.shape
    }

    /// The token embeddings of `tokens`, `[P, W]`, without positions.
    ///
    /// # Errors
    /// A row of the table holds NaN or infinity, or there is no such row.
    pub fn token_embeddings(&self, tokens: &[u32]) -> Result<Array2<T>> {
        self.naming.token_rows(&self.weights, self.shape, tokens)
    }

    /// Runs the shared beginning, given as its token embeddings `[P, W]` (P at least 1; 0 where texts are seen whole).
    pub fn prefix(&self, embeddings: ArrayView2<T>) -> Prefix<T> {
        if self.padding.is_some() {
            return Prefix(Beginning::Rows(embeddings.to_owned()));
        }
        let rows = embeddings.nrows();
        let mut x = &embeddings + &self.positions.slice(s![..rows, ..]);
        let segments = Segments::causal([rows]);
        let nothing = self.no_prefix();
        let scope = Scope { prefix: nothing.view(), segments: &segments, queries: Queries::All };
        let (last_block, blocks) = self.blocks.split_last().expect("a tower has at least one layer");
        let mut tapes = Vec::with_capacity(blocks.len());
        for block in blocks {
            let (next, tape) = block.forward(x, scope);
            x = next;
            tapes.push(tape);
        }
        // Prompts attend to the prefix in the last layer, too, but nobody reads the prefix's own result.
        let (last, last_norm) = last_block.queries_keys_and_values(x.view());
        Prefix(Beginning::Run { tapes, last, last_norm })
    }

    /// The unit-length embeddings `[C, D]` of the prompts that continue `prefix`.
    pub fn encode(&self, prefix: &Prefix<T>, prompts: &Prompts<T>) -> Array2<T> {
        let run = |range| self.run(prefix, prompts, range, Keep::Nothing).embeddings.rows;
        let parts: Vec<Array2<T>> = prompts.chunks(CHUNK_ROWS, self.filled()).into_par_iter().map(run).collect();
        if parts.is_empty() {
            return Array2::zeros((0, self.shape.embedding));
        }
        let views: Vec<ArrayView2<T>> = parts.iter().map(|part| part.view()).collect();
        concatenate(Axis(0), &views).expect("every chunk has rows of width D")
    }

    /// Gradient of the prefix's token embeddings `[P, W]` from that of the unit-length embeddings, `[C, D]`.
    ///
    /// The prompts' own rows are run again, chunk by chunk, so that only a chunk's intermediates are in memory.
    pub fn backward(&self, prefix: &Prefix<T>, prompts: &Prompts<T>, dembeddings: ArrayView2<T>) -> Array2<T> {
        let run = |range: Range<usize>| {
            let chunk = self.run(prefix, prompts, range.clone(), Keep::Tapes);
            self.run_backward(prefix, chunk, dembeddings.slice(s![range, ..]).to_owned())
        };
        let chunks = prompts.chunks(CHUNK_ROWS, self.filled());
        let parts: Vec<Vec<Array2<T>>> = chunks.into_par_iter().map(run).collect();
        let mut parts = parts.into_iter();
        let mut dprefix = parts.next().unwrap_or_else(|| self.no_gradients(prefix));
        // In the order of the chunks, whichever thread was done first: the order of a sum decides its last bits.
        for part in parts {
            dprefix.iter_mut().zip(&part).for_each(|(sum, part)| *sum += part);
        }
        match &prefix.0 {
            Beginning::Rows(_) => dprefix.swap_remove(0),
            Beginning::Run { tapes, last_norm, .. } => self.prefix_backward(tapes, last_norm, &dprefix),
        }
    }

    /// The rows of every prompt, where all are filled up to the same length.
    fn filled(&self) -> Option<usize> {
        self.padding.as_ref().map(|_| self.shape.context_length)
    }

    /// The rows that some successive prompts add, with their positions, and what of them is read.
    fn rows(&self, prefix: &Prefix<T>, prompts: &Prompts<T>, range: Range<usize>) -> (Array2<T>, Segments) {
        let own = prompts.own_rows(range.clone());
        match (&prefix.0, self.shape.style.whole, &self.padding) {
            (Beginning::Rows(shared), Some(whole), Some(padding)) => {
                let (count, length) = (range.len(), self.shape.context_length);
                let mut x = Array2::zeros((count * length, self.shape.width));
                let (mut read, mut from) = (Vec::with_capacity(count), 0);
                for (mut rows, own_length) in x.axis_chunks_iter_mut(Axis(0), length).zip(prompts.lengths(range)) {
                    let end = shared.nrows() + own_length;
                    rows.slice_mut(s![..shared.nrows(), ..]).assign(shared);
                    rows.slice_mut(s![shared.nrows()..end, ..]).assign(&own.slice(s![from..from + own_length, ..]));
                    rows.slice_mut(s![end.., ..]).assign(padding);
                    rows += &self.positions;
                    from += own_length;
                    read.push(if whole.pooling == Pooling::End { end - 1 } else { length - 1 });
                }
                (x, Segments::full(read.into_iter().map(|read| (length, read))))
            }
            _ => {
                let segments = Segments::causal(prompts.lengths(range.clone()));
                // Every prompt goes on where the shared beginning ends.
                let first = prefix.rows();
                let positions = prompts.lengths(range).flat_map(|length| (first..).take(length));
                let mut x = own.to_owned();
                x.rows_mut()
                    .into_iter()
                    .zip(positions)
                    .for_each(|(mut row, position)| row += &self.positions.row(position));
                (x, segments)
            }
        }
    }

    /// Runs the own rows of some successive prompts, or whole prompts.
    fn run(&self, prefix: &Prefix<T>, prompts: &Prompts<T>, range: Range<usize>, keep: Keep) -> Chunk<T> {
        let (mut x, segments) = self.rows(prefix, prompts, range);
        let nothing = self.no_prefix();
        let mut tapes = Vec::with_capacity(self.blocks.len());
        for (layer, block) in self.blocks.iter().enumerate() {
            let seen = prefix.layer(layer).unwrap_or(nothing.view());
            let scope = Scope { prefix: seen, segments: &segments, queries: self.queries(layer) };
            let (next, tape) = block.forward(x, scope);
            x = next;
            // Without a backward pass a layer's intermediates are freed before the next layer runs.
            if keep == Keep::Tapes {
                tapes.push(tape);
            }
        }
        let (h, final_norm) = self.final_norm.forward(x.view());
        let mut projected = scaled_products(T::one(), h.view(), self.projection.t());
        if let Some(bias) = &self.projection_bias {
            projected += bias;
        }
        Chunk { segments, tapes, final_norm, embeddings: unit_rows(projected) }
    }

    /// Gradients of the prefix from those of a chunk's unit embeddings: of its keys and values, `[P, 3W]` a layer; or of its
    /// rows alone, `[P, W]`, where every prompt has a copy of them.
    fn run_backward(&self, prefix: &Prefix<T>, chunk: Chunk<T>, mut dunit: Array2<T>) -> Vec<Array2<T>> {
        let Chunk { segments, mut tapes, final_norm, embeddings } = chunk;
        let mut dprefix = self.no_gradients(prefix);
        unit_rows_backward(embeddings.rows.view(), embeddings.lengths.view(), &mut dunit);
        let mut dx = scaled_products(T::one(), dunit.view(), self.projection.view());
        self.final_norm.backward(&final_norm, &mut dx);
        for layer in (0..self.blocks.len()).rev() {
            // What a layer needed is given back before the layer below it asks for memory.
            let tape = tapes.pop().expect("one tape a layer");
            let (block, queries) = (&self.blocks[layer], self.queries(layer));
            let mut nothing = self.no_prefix();
            let Some(seen) = prefix.layer(layer) else {
                let empty = self.no_prefix();
                let scope = Scope { prefix: empty.view(), segments: &segments, queries };
                dx = block.backward(&tape, scope, dx, &mut nothing, None);
                continue;
            };
            let scope = Scope { prefix: seen, segments: &segments, queries };
            let dprefix = &mut dprefix[layer];
            if layer > 0 {
                dx = block.backward(&tape, scope, dx, dprefix, None);
                continue;
            }
            block.backward_to_prefix(&tape, scope, dx, dprefix);
            // The texts' own rows are fixed.
            dx = Array2::zeros((0, 0));
        }
        if let Beginning::Rows(shared) = &prefix.0 {
            for range in segments.ranges() {
                dprefix[0] += &dx.slice(s![range.start..range.start + shared.nrows(), ..]);
            }
        }
        dprefix
    }

    fn prefix_backward(&self, tapes: &[BlockTape<T>], last_norm: &NormTape<T>, dprefix: &[Array2<T>]) -> Array2<T> {
        let segments = Segments::causal([dprefix[0].nrows()]);
        // The prefix has no prefix itself: what the layers would add to its gradient goes into an array without rows.
        let mut nothing = self.no_prefix();
        // In the last layer the prefix has keys and values alone.
        let last = self.blocks.len() - 1;
        let mut dx = self.blocks[last].queries_keys_and_values_backward(last_norm, dprefix[last].view());
        for layer in (0..last).rev() {
            let empty = self.no_prefix();
            let scope = Scope { prefix: empty.view(), segments: &segments, queries: Queries::All };
            dx = self.blocks[layer].backward(&tapes[layer], scope, dx, &mut nothing, Some(&dprefix[layer]));
        }
        dx
    }

    fn queries(&self, layer: usize) -> Queries {
        if layer + 1 == self.blocks.len() { Queries::Read } else { Queries::All }
    }

    fn no_prefix(&self) -> Array2<T> {
        Array2::zeros((0, 3 * self.shape.width))
    }

    fn no_gradients(&self, prefix: &Prefix<T>) -> Vec<Array2<T>> {
        match &prefix.0 {
            Beginning::Rows(rows) => vec![Array2::zeros(rows.dim())],
            Beginning::Run { .. } => vec![Array2::zeros((prefix.rows(), 3 * self.shape.width)); self.blocks.len()],
        }
    }
}

impl<T: Real> Prefix<T> {
    /// Number of rows P.
    fn rows(&self) -> usize {
        match &self.0 {
            Beginning::Run { last, .. } => last.nrows(),
            Beginning::Rows(rows) => rows.nrows(),
        }
    }

    /// Queries, keys and values of one layer, `[P, 3W]`; none where every prompt has a copy of the beginning.
    fn layer(&self, layer: usize) -> Option<ArrayView2<'_, T>> {
        match &self.0 {
            Beginning::Run { tapes, last, .. } => Some(tapes.get(layer).map_or(last.view(), |tape| tape.qkv.view())),
            Beginning::Rows(_) => None,
        }
    }
}
