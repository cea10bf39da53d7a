//! Attention of many short texts. Where it is causal and they begin alike, each row attends to the shared prefix, then to
//! the rows of its own text up to itself; else to all rows of its text.
//!
//! Queries, keys and values stand beside each other in rows of `[3W]`. There are few rows to attend to, so this is
//! plain loops; the matrix products around it are the work.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, Axis};

use crate::products::Real;
use crate::rows::dot_slices;

/// What a row of a text looks at besides the rows before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mask {
    /// Nothing, as in CLIP's text tower.
    Causal,
    /// The rows after it, as in MobileCLIP's S variants and in SigLIP.
    Full,
}

/// The texts' own rows in a matrix of all rows.
pub(crate) struct Segments {
    mask: Mask,
    ranges: Vec<Range<usize>>,
    /// The row of each text whose state is the text's.
    read: Vec<usize>,
}

/// Rows that ask: in the last layer only one of each text matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queries {
    /// Every row.
    All,
    /// The row of each text that is read.
    Read,
}

/// A row that asks.
#[derive(Clone)]
struct Asking {
    /// Its row among the queries.
    query: usize,
    /// The rows of its text that it looks at.
    seen: Range<usize>,
}

impl Segments {
    /// Causal texts of these lengths (rows), one after the other, whose last row is read.
    pub(crate) fn causal(lengths: impl IntoIterator<Item = usize>) -> Self {
        let ranges = ranges_of(lengths);
        // No text is empty: each has at least its end token.
        let read = ranges.iter().map(|range| range.end - 1).collect();
        Self { mask: Mask::Causal, ranges, read }
    }

    /// Texts of these lengths (rows), one after the other, each with the place of the row in it that is read.
    pub(crate) fn full(texts: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let (lengths, places): (Vec<usize>, Vec<usize>) = texts.into_iter().unzip();
        let ranges = ranges_of(lengths);
        let read = ranges.iter().zip(places).map(|(range, place)| range.start + place).collect();
        Self { mask: Mask::Full, ranges, read }
    }

    /// The row of each text that is read.
    pub(crate) fn read(&self) -> &[usize] {
        &self.read
    }

    /// The rows of each text.
    pub(crate) fn ranges(&self) -> &[Range<usize>] {
        &self.ranges
    }

    /// Rows that ask, in order.
    fn asking(&self, queries: Queries) -> impl Iterator<Item = Asking> {
        let rows = self.ranges.iter().zip(&self.read).flat_map(move |(range, &read)| {
            let rows = if queries == Queries::Read { read..read + 1 } else { range.clone() };
            rows.map(move |row| match self.mask {
                Mask::Causal => range.start..row + 1,
                Mask::Full => range.clone(),
            })
        });
        rows.enumerate().map(|(query, seen)| Asking { query, seen })
    }
}

fn ranges_of(lengths: impl IntoIterator<Item = usize>) -> Vec<Range<usize>> {
    let mut end = 0;
    let ranges = lengths.into_iter().map(|length| {
        let start = end;
        end += length;
        start..end
    });
    ranges.collect()
}

/// Sizes of the attention.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    /// Width W.
    pub width: usize,
    /// Number of heads, which divides W.
    pub count: usize,
}

impl Heads {
    fn size(self) -> usize {
        self.width / self.count
    }

    fn scale<T: Real>(self) -> T {
        T::one() / T::from(self.size()).expect("a head's size fits in any float").sqrt()
    }

    /// The columns of one head's query, key and value in a row of `[3W]`.
    fn columns(self, head: usize) -> [Range<usize>; 3] {
        let start = head * self.size();
        [0, self.width, 2 * self.width].map(|part| part + start..part + start + self.size())
    }
}

/// Inputs of attention: the queries, and the rows that they attend to.
pub(crate) struct Attention<'a, T> {
    /// Sizes.
    pub heads: Heads,
    /// The prefix's rows `[P, 3W]`; its queries are not used.
    pub prefix: ArrayView2<'a, T>,
    /// The texts' own rows `[N, 3W]`; without queries where `q` has them.
    pub qkv: ArrayView2<'a, T>,
    /// The queries `[Q, W]`.
    pub q: ArrayView2<'a, T>,
    /// Row ranges of the texts.
    pub segments: &'a Segments,
    /// Rows that the queries belong to.
    pub queries: Queries,
}

/// Gradients of everything that has a part in attention.
pub(crate) struct AttentionGradients<T> {
    /// Gradient of the queries, `[Q, W]`.
    pub dq: Array2<T>,
    /// Gradient of the texts' keys and values, `[N, 3W]`; the queries' columns are 0.
    pub dkv: Array2<T>,
}

impl<T: Real> Attention<'_, T> {
    /// The attended values `[Q, W]`, and the probabilities in the order they were computed.
    pub(crate) fn forward(&self) -> (Array2<T>, Vec<T>) {
        let mut attended = Array2::zeros(self.q.dim());
        // One flat list: rows see different numbers of others. `backward` walks it in the same order.
        let mut probabilities = Vec::new();
        for Asking { query, seen } in self.segments.asking(self.queries) {
            let q = contiguous(&self.q, query);
            let mut out = attended.row_mut(query);
            let out = out.as_slice_mut().expect("an owned row is contiguous");
            for head in 0..self.heads.count {
                let [q_columns, k_columns, v_columns] = self.heads.columns(head);
                let begin = probabilities.len();
                let asked = &q[q_columns.clone()];
                probabilities.extend(self.rows(&seen).map(|kv| dot_slices(asked, &kv[k_columns.clone()])));
                softmax_scaled(&mut probabilities[begin..], self.heads.scale());
                for (&probability, kv) in probabilities[begin..].iter().zip(self.rows(&seen)) {
                    add_scaled(&mut out[q_columns.clone()], probability, &kv[v_columns.clone()]);
                }
            }
        }
        (attended, probabilities)
    }

    /// Gradients from `dattended` `[Q, W]`; those of the prefix's keys and values are added to `dprefix` `[P, 3W]`.
    ///
    /// With p the probabilities of one query, `dv = p · dout`, `dp = v · dout`, and through the softmax
    /// `dscore = p (dp - Σ p dp)`; then `dq = Σ dscore k` and `dk = dscore q`, both scaled.
    pub(crate) fn backward(
        &self,
        probabilities: &[T],
        dattended: ArrayView2<T>,
        dprefix: &mut Array2<T>,
    ) -> AttentionGradients<T> {
        let mut dq = Array2::zeros(self.q.dim());
        let mut dkv = Array2::zeros(self.qkv.dim());
        let mut dscores = Vec::new();
        let mut begin = 0;
        let prefix_rows = self.prefix.nrows();
        for Asking { query, seen } in self.segments.asking(self.queries) {
            let (q, dout) = (contiguous(&self.q, query), contiguous(&dattended, query));
            let mut dq_row = dq.row_mut(query);
            let dq_row = dq_row.as_slice_mut().expect("an owned row is contiguous");
            // As many as `rows` gives, and as `forward` kept for this query.
            let count = prefix_rows + seen.len();
            for head in 0..self.heads.count {
                let [q_columns, k_columns, v_columns] = self.heads.columns(head);
                let p = &probabilities[begin..begin + count];
                begin += count;
                let dout = &dout[q_columns.clone()];
                dscores.clear();
                dscores.extend(self.rows(&seen).map(|kv| dot_slices(dout, &kv[v_columns.clone()])));
                softmax_scaled_backward(p, &mut dscores, self.heads.scale());
                for (index, (kv, (&p, &dscore))) in self.rows(&seen).zip(p.iter().zip(&dscores)).enumerate() {
                    add_scaled(&mut dq_row[q_columns.clone()], dscore, &kv[k_columns.clone()]);
                    let mut target = match index.checked_sub(prefix_rows) {
                        None => dprefix.row_mut(index),
                        Some(own) => dkv.row_mut(seen.start + own),
                    };
                    let target = target.as_slice_mut().expect("an owned row is contiguous");
                    add_scaled(&mut target[k_columns.clone()], dscore, &q[q_columns.clone()]);
                    add_scaled(&mut target[v_columns.clone()], p, dout);
                }
            }
        }
        AttentionGradients { dq, dkv }
    }

    /// The rows that are looked at: the prefix's, then those of a text.
    fn rows(&self, seen: &Range<usize>) -> impl Iterator<Item = &[T]> {
        let prefix = (0..self.prefix.nrows()).map(|row| contiguous(&self.prefix, row));
        prefix.chain(seen.clone().map(|row| contiguous(&self.qkv, row)))
    }
}

/// One row as a slice.
fn contiguous<'a, T>(rows: &'a ArrayView2<T>, row: usize) -> &'a [T] {
    rows.index_axis(Axis(0), row).to_slice().expect("rows of these matrices are contiguous")
}

/// `softmax(scale · scores)`, in place.
fn softmax_scaled<T: Real>(scores: &mut [T], scale: T) {
    // The scale is positive, so that it may wait until the maximum is known.
    let largest =
        scores.iter().fold(T::neg_infinity(), |largest, &score| if score > largest { score } else { largest });
    let mut sum = T::zero();
    for score in scores.iter_mut() {
        *score = ((*score - largest) * scale).exp();
        sum += *score;
    }
    // The sum is at least 1, which the largest score contributes.
    let inverse = T::one() / sum;
    scores.iter_mut().for_each(|score| *score *= inverse);
}

/// Gradient of the scores, in place: `dscores` holds dp on entry.
fn softmax_scaled_backward<T: Real>(p: &[T], dscores: &mut [T], scale: T) {
    let along = dot_slices(p, dscores);
    for (d, &p) in dscores.iter_mut().zip(p) {
        *d = p * (*d - along) * scale;
    }
}

fn add_scaled<T: Real>(target: &mut [T], factor: T, source: &[T]) {
    target.iter_mut().zip(source).for_each(|(target, &value)| *target += factor * value);
}
