//! Prompts as the rows a tower reads: token embeddings without positions.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, Axis, concatenate, s};

use super::error::Result;
use super::tower::TextTower;
use crate::products::Real;
use crate::text::PromptTokens;

/// The prompts of one label set.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompts<T> {
    /// Rows that all prompts begin with, `[P, W]`.
    shared: Array2<T>,
    /// Number of those that are no words.
    fixed: usize,
    /// Rows that each prompt adds, one below the other, `[N, W]`.
    own: Array2<T>,
    /// The rows of `own` that are each prompt's, `[C]`.
    ranges: Vec<Range<usize>>,
}

impl<T: Real> Prompts<T> {
    /// Reads the token embeddings of `tokens` from the tower's table.
    ///
    /// # Errors
    /// The table has no such row, or the row holds NaN or infinity.
    pub fn read(tower: &TextTower<T>, tokens: &PromptTokens) -> Result<Self> {
        let mut end = 0;
        let ranges = tokens.own.iter().map(|own| {
            let start = end;
            end += own.len();
            start..end
        });
        Ok(Self {
            ranges: ranges.collect(),
            shared: tower.token_embeddings(&tokens.shared)?,
            fixed: tokens.fixed,
            own: tower.token_embeddings(&tokens.own.concat())?,
        })
    }

    /// The number of prompts C.
    pub fn count(&self) -> usize {
        self.ranges.len()
    }

    /// Rows that all prompts begin with, `[P, W]`: the start token, if there is one, then the context.
    pub fn shared(&self) -> ArrayView2<'_, T> {
        self.shared.view()
    }

    /// Number of the shared rows that are no words: the start token's, if there is one.
    pub fn fixed(&self) -> usize {
        self.fixed
    }

    /// Only some of the prompts, in the order given.
    pub fn select(&self, prompts: &[usize]) -> Self {
        let parts: Vec<ArrayView2<T>> = prompts.iter().map(|&prompt| self.own_rows(prompt..prompt + 1)).collect();
        let own = if parts.is_empty() {
            Array2::zeros((0, self.own.ncols()))
        } else {
            concatenate(Axis(0), &parts).expect("all rows have width W")
        };
        let mut end = 0;
        let ranges = parts.iter().map(|part| {
            let start = end;
            end += part.nrows();
            start..end
        });
        Self { shared: self.shared.clone(), fixed: self.fixed, ranges: ranges.collect(), own }
    }

    /// The rows that some successive prompts add, `[n, W]`.
    pub fn own_rows(&self, prompts: Range<usize>) -> ArrayView2<'_, T> {
        let rows = self.ranges[prompts.start].start..self.ranges[prompts.end - 1].end;
        self.own.slice(s![rows, ..])
    }

    /// Number of rows that each of some successive prompts adds.
    pub fn lengths(&self, prompts: Range<usize>) -> impl Iterator<Item = usize> {
        self.ranges[prompts].iter().map(ExactSizeIterator::len)
    }

    /// Cuts the prompts into runs of about `rows` rows and of about the same size; `filled` is the length of every prompt, where all have
    /// the same.
    pub fn chunks(&self, rows: usize, filled: Option<usize>) -> Vec<Range<usize>> {
        if let Some(length) = filled {
            let each = (rows / length).max(1);
            let starts = (0..self.count()).step_by(each);
            return starts.map(|start| start..(start + each).min(self.count())).collect();
        }
        let total = self.own.nrows();
        let count = total.div_ceil(rows).max(1);
        let mut chunks = Vec::with_capacity(count);
        let mut start = 0;
        for chunk in 1..=count {
            // Prompts are not cut. For the last chunk the bound is the total itself, so that none is left over.
            let end = self.ranges.partition_point(|range| range.end * count <= total * chunk);
            // A prompt longer than a chunk leaves the next one empty.
            if end > start {
                chunks.push(start..end);
                start = end;
            }
        }
        chunks
    }
}
