//! CLIP's text transformer over many prompts that begin alike, forward and backward.
//!
//! The tower is causal, and only the hidden state at the end token is read. So a prompt needs no padding; what all
//! prompts share is computed once, and each prompt adds only its own few rows; and in the last layer only the ends
//! ask. The result is that of running every prompt alone and padded, which the tests do.
//!
//! Prompts are worked on in chunks of bounded size, in parallel on the current rayon pool. How they are cut depends on
//! the prompts alone, so that the bits do not depend on the number of threads.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, Axis, concatenate, parallel::prelude::*, s};

use super::attention::{Heads, Queries, Segments};
use super::block::{Block, BlockTape, Scope};
use super::error::Result;
use super::layers::{Activation, LayerNorm, NormTape};
use super::names::Naming;
use super::prompts::Prompts;
use super::weights::WeightsFile;
use crate::products::{Real, scaled_products};
use crate::rows::{UnitRows, unit_rows, unit_rows_backward};

/// Rows of one chunk: large enough for the matrix products to be efficient, small enough that what backward needs
/// stays in tens of megabytes a thread at CLIP's width of 512.
const CHUNK_ROWS: usize = 126;

/// Sizes of a text tower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Activation of the MLPs.
    pub activation: Activation,
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
}

/// The shared beginning of all prompts, run through the tower.
pub struct Prefix<T> {
    /// Queries, keys and values in every layer but the last, with what backward needs.
    tapes: Vec<BlockTape<T>>,
    /// Queries, keys and values in the last layer, `[P, 3W]`.
    last: Array2<T>,
    last_norm: NormTape<T>,
    rows: usize,
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
        let TowerShape { width, embedding, .. } = shape;
        let heads = Heads { width, count: shape.heads };
        // The table is read when labels are; its shape must be right before.
        naming.token_rows::<T>(&weights, shape, &[0])?;
        let block = |layer| naming.block(&weights, layer, heads, shape.activation);
        Ok(Self {
            positions: weights.matrix(&naming.positions(), [shape.context_length, width])?,
            blocks: (0..shape.layers).map(block).collect::<Result<_>>()?,
            final_norm: naming.final_norm(&weights, width)?,
            projection: naming.projection(&weights, width, embedding)?,
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

    /// Runs the shared beginning, given as its token embeddings `[P, W]` (P at least 1).
    pub fn prefix(&self, embeddings: ArrayView2<T>) -> Prefix<T> {
        let rows = embeddings.nrows();
        let mut x = &embeddings + &self.positions.slice(s![..rows, ..]);
        let segments = Segments::of([rows]);
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
        Prefix { tapes, last, last_norm, rows }
    }

    /// The unit-length embeddings `[C, D]` of the prompts that continue `prefix`.
    pub fn encode(&self, prefix: &Prefix<T>, prompts: &Prompts<T>) -> Array2<T> {
        let run = |range| self.run(prefix, prompts, range, Keep::Nothing).embeddings.rows;
        let parts: Vec<Array2<T>> = prompts.chunks(CHUNK_ROWS).into_par_iter().map(run).collect();
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
        let parts: Vec<Vec<Array2<T>>> = prompts.chunks(CHUNK_ROWS).into_par_iter().map(run).collect();
        let mut parts = parts.into_iter();
        let mut dprefix = parts.next().unwrap_or_else(|| self.no_gradients(prefix.rows));
        // In the order of the chunks, whichever thread was done first: the order of a sum decides its last bits.
        for part in parts {
            dprefix.iter_mut().zip(&part).for_each(|(sum, part)| *sum += part);
        }
        self.prefix_backward(prefix, &dprefix)
    }

    /// Runs the own rows of some successive prompts.
    fn run(&self, prefix: &Prefix<T>, prompts: &Prompts<T>, range: Range<usize>, keep: Keep) -> Chunk<T> {
        let segments = Segments::of(prompts.lengths(range.clone()));
        // Every prompt goes on where the shared beginning ends.
        let positions = prompts.lengths(range.clone()).flat_map(|length| (prefix.rows..).take(length));
        let mut x = prompts.own_rows(range).to_owned();
        x.rows_mut().into_iter().zip(positions).for_each(|(mut row, position)| row += &self.positions.row(position));
        let mut tapes = Vec::with_capacity(self.blocks.len());
        for (layer, block) in self.blocks.iter().enumerate() {
            let scope = Scope { prefix: prefix.layer(layer), segments: &segments, queries: self.queries(layer) };
            let (next, tape) = block.forward(x, scope);
            x = next;
            // Without a backward pass a layer's intermediates are freed before the next layer runs.
            if keep == Keep::Tapes {
                tapes.push(tape);
            }
        }
        let (h, final_norm) = self.final_norm.forward(x.view());
        let embeddings = unit_rows(scaled_products(T::one(), h.view(), self.projection.t()));
        Chunk { segments, tapes, final_norm, embeddings }
    }

    /// Gradients of the prefix's keys and values, `[P, 3W]` a layer, from those of a chunk's unit embeddings.
    fn run_backward(&self, prefix: &Prefix<T>, chunk: Chunk<T>, mut dunit: Array2<T>) -> Vec<Array2<T>> {
        let Chunk { segments, mut tapes, final_norm, embeddings } = chunk;
        let mut dprefix = self.no_gradients(prefix.rows);
        unit_rows_backward(embeddings.rows.view(), embeddings.lengths.view(), &mut dunit);
        let mut dx = scaled_products(T::one(), dunit.view(), self.projection.view());
        self.final_norm.backward(&final_norm, &mut dx);
        for layer in (0..self.blocks.len()).rev() {
            let scope = Scope { prefix: prefix.layer(layer), segments: &segments, queries: self.queries(layer) };
            // What a layer needed is given back before the layer below it asks for memory.
            let tape = tapes.pop().expect("one tape a layer");
            let (block, dprefix) = (&self.blocks[layer], &mut dprefix[layer]);
            if layer == 0 {
                block.backward_to_prefix(&tape, scope, dx, dprefix);
                break;
            }
            dx = block.backward(&tape, scope, dx, dprefix, None);
        }
        dprefix
    }

    fn prefix_backward(&self, prefix: &Prefix<T>, dprefix: &[Array2<T>]) -> Array2<T> {
        let segments = Segments::of([prefix.rows]);
        // The prefix has no prefix itself: what the layers would add to its gradient goes into an array without rows.
        let mut nothing = self.no_prefix();
        // In the last layer the prefix has keys and values alone.
        let last = self.blocks.len() - 1;
        let mut dx = self.blocks[last].queries_keys_and_values_backward(&prefix.last_norm, dprefix[last].view());
        for layer in (0..last).rev() {
            let empty = self.no_prefix();
            let scope = Scope { prefix: empty.view(), segments: &segments, queries: Queries::All };
            dx = self.blocks[layer].backward(&prefix.tapes[layer], scope, dx, &mut nothing, Some(&dprefix[layer]));
        }
        dx
    }

    fn queries(&self, layer: usize) -> Queries {
        if layer + 1 == self.blocks.len() { Queries::Last } else { Queries::All }
    }

    fn no_prefix(&self) -> Array2<T> {
        Array2::zeros((0, 3 * self.shape.width))
    }

    fn no_gradients(&self, rows: usize) -> Vec<Array2<T>> {
        vec![Array2::zeros((rows, 3 * self.shape.width)); self.blocks.len()]
    }
}

impl<T: Real> Prefix<T> {
    /// Queries, keys and values of one layer, `[P, 3W]`.
    fn layer(&self, layer: usize) -> ArrayView2<'_, T> {
        self.tapes.get(layer).map_or(self.last.view(), |tape| tape.qkv.view())
    }
}
