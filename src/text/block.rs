//! One layer of the transformer: `x += attention(norm1(x))`, then `x += mlp(norm2(x))`.

use ndarray::{Array2, ArrayView2, Axis, s};

use super::attention::{Attention, Heads, Queries, Segments};
use super::layers::{Activation, LayerNorm, Linear, NormTape};
use crate::rows::Real;

/// The weights of one layer.
pub(crate) struct Block<T> {
    /// Before attention.
    pub norm1: LayerNorm<T>,
    /// Query, key and value beside each other: `[W, 3W]`.
    pub qkv: Linear<T>,
    /// After attention: `[W, W]`.
    pub out: Linear<T>,
    /// Before the MLP.
    pub norm2: LayerNorm<T>,
    /// `[W, 4W]`.
    pub up: Linear<T>,
    /// `[4W, W]`.
    pub down: Linear<T>,
    /// Between `up` and `down`.
    pub activation: Activation,
    /// Sizes of the attention.
    pub heads: Heads,
}

/// Intermediates of the forward pass that [`Block::backward`] needs. No weight has a gradient, so no layer's input is
/// kept.
pub(crate) struct BlockTape<T> {
    norm1: NormTape<T>,
    /// Queries, keys and values `[N, 3W]`; without queries where `q` has them.
    pub qkv: Array2<T>,
    /// The queries `[Q, W]`, if not every row asks.
    q: Option<Array2<T>>,
    probabilities: Vec<T>,
    norm2: NormTape<T>,
    /// The MLP before its activation, `[Q, 4W]`.
    up: Array2<T>,
}

/// The texts a layer runs over.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a, T> {
    /// Queries, keys and values of the shared prefix in this layer, `[P, 3W]`.
    pub prefix: ArrayView2<'a, T>,
    /// Row ranges of the texts.
    pub segments: &'a Segments,
    /// Rows that are asked for.
    pub queries: Queries,
}

impl<T: Real> Block<T> {
    /// `x` `[N, W]` to the rows that are asked for, `[Q, W]`.
    pub(crate) fn forward(&self, mut x: Array2<T>, scope: Scope<T>) -> (Array2<T>, BlockTape<T>) {
        let width = self.heads.width;
        let (h, norm1) = self.norm1.forward(x.view());
        let (qkv, q) = match scope.queries {
            Queries::All => (self.qkv.forward(h.view()), None),
            Queries::Last => {
                let ends = scope.segments.ends();
                let q = self.qkv.forward_columns(h.select(Axis(0), &ends).view(), 0..width);
                // Nothing after this layer reads the other rows, so that the residual stream and the MLP go on with the
                // ends alone.
                x = x.select(Axis(0), &ends);
                (self.keys_and_values(h.view()), Some(q))
            }
        };
        let (attended, probabilities) = self.attention(&qkv, q.as_ref(), &scope).forward();
        self.out.add_to(attended.view(), &mut x);
        let (h, norm2) = self.norm2.forward(x.view());
        let up = self.up.forward(h.view());
        self.down.add_to(self.activation.forward(&up).view(), &mut x);
        (x, BlockTape { norm1, qkv, q, probabilities, norm2, up })
    }

    /// Gradient of the input `[N, W]` from that of the output `[Q, W]`.
    ///
    /// The gradients of the prefix's keys and values are added to `dprefix` `[P, 3W]`. `dqkv_extra` `[N, 3W]` is
    /// the gradient of this layer's keys and values that comes from elsewhere.
    pub(crate) fn backward(
        &self,
        tape: &BlockTape<T>,
        scope: Scope<T>,
        dx: Array2<T>,
        dprefix: &mut Array2<T>,
        dqkv_extra: Option<&Array2<T>>,
    ) -> Array2<T> {
        let (dq, dkv, dx) = self.backward_to_attention(tape, scope, dx, dprefix);
        self.backward_from_attention(tape, scope, dq, dkv, dx, dqkv_extra)
    }

    /// The part of [`Self::backward`] that ends at the prefix: in the first layer the texts' own rows are fixed.
    pub(crate) fn backward_to_prefix(
        &self,
        tape: &BlockTape<T>,
        scope: Scope<T>,
        dx: Array2<T>,
        dprefix: &mut Array2<T>,
    ) {
        self.backward_to_attention(tape, scope, dx, dprefix);
    }

    /// Gradients of the queries `[Q, W]`, of the keys and values `[N, 3W]`, and of the residual stream `[Q, W]`.
    fn backward_to_attention(
        &self,
        tape: &BlockTape<T>,
        scope: Scope<T>,
        mut dx: Array2<T>,
        dprefix: &mut Array2<T>,
    ) -> (Array2<T>, Array2<T>, Array2<T>) {
        let mut dup = self.down.backward(dx.view());
        self.activation.backward(&tape.up, &mut dup);
        let mut dh = self.up.backward(dup.view());
        self.norm2.backward(&tape.norm2, &mut dh);
        dx += &dh;
        let dattended = self.out.backward(dx.view());
        let attention = self.attention(&tape.qkv, tape.q.as_ref(), &scope);
        let gradients = attention.backward(&tape.probabilities, dattended.view(), dprefix);
        (gradients.dq, gradients.dkv, dx)
    }

    fn backward_from_attention(
        &self,
        tape: &BlockTape<T>,
        scope: Scope<T>,
        dq: Array2<T>,
        mut dkv: Array2<T>,
        dx: Array2<T>,
        dqkv_extra: Option<&Array2<T>>,
    ) -> Array2<T> {
        let width = self.heads.width;
        if let Some(extra) = dqkv_extra {
            dkv += extra;
        }
        match scope.queries {
            Queries::All => {
                // The queries' columns have been 0 so far. With them one product takes all three back.
                dkv.slice_mut(s![.., ..width]).assign(&dq);
                let mut dh = self.qkv.backward(dkv.view());
                self.norm1.backward(&tape.norm1, &mut dh);
                dh + dx
            }
            Queries::Last => {
                let ends = scope.segments.ends();
                let mut dh = Array2::zeros((dkv.nrows(), width));
                self.add_keys_and_values_backward(dkv.view(), &mut dh);
                let mut dh_ends = Array2::zeros(dq.dim());
                self.qkv.add_backward(dq.view(), 0..width, &mut dh_ends);
                // Queries are made of the normalised rows: their gradient goes back through the norm.
                ends.iter().zip(dh_ends.rows()).for_each(|(&end, row)| dh.row_mut(end).scaled_add(T::one(), &row));
                self.norm1.backward(&tape.norm1, &mut dh);
                // The residual stream passes by the norm: its gradient is added behind it.
                ends.iter().zip(dx.rows()).for_each(|(&end, row)| dh.row_mut(end).scaled_add(T::one(), &row));
                dh
            }
        }
    }

    /// The keys and values of all rows where nothing else of this layer is needed: `x` `[N, W]` to `[N, 3W]`, with
    /// zeros for the queries.
    pub(crate) fn keys_and_values_of(&self, x: ArrayView2<T>) -> (Array2<T>, NormTape<T>) {
        let (h, norm1) = self.norm1.forward(x);
        (self.keys_and_values(h.view()), norm1)
    }

    /// Gradient of x `[N, W]` from those of its keys and values, `[N, 3W]`.
    pub(crate) fn keys_and_values_backward(&self, tape: &NormTape<T>, dkv: ArrayView2<T>) -> Array2<T> {
        let mut dh = Array2::zeros((dkv.nrows(), self.heads.width));
        self.add_keys_and_values_backward(dkv, &mut dh);
        self.norm1.backward(tape, &mut dh);
        dh
    }

    fn keys_and_values(&self, h: ArrayView2<T>) -> Array2<T> {
        let width = self.heads.width;
        // One layout for all layers: attention finds keys and values in the same columns, with queries or without.
        let mut qkv = Array2::zeros((h.nrows(), 3 * width));
        qkv.slice_mut(s![.., width..]).assign(&self.qkv.forward_columns(h, width..3 * width));
        qkv
    }

    fn add_keys_and_values_backward(&self, dkv: ArrayView2<T>, dh: &mut Array2<T>) {
        let width = self.heads.width;
        self.qkv.add_backward(dkv.slice(s![.., width..]), width..3 * width, dh);
    }

    fn attention<'a>(&self, qkv: &'a Array2<T>, q: Option<&'a Array2<T>>, scope: &'a Scope<'_, T>) -> Attention<'a, T> {
        let q = q.map_or_else(|| qkv.slice(s![.., ..self.heads.width]), |q| q.view());
        let &Scope { ref prefix, segments, queries } = scope;
        Attention { heads: self.heads, prefix: prefix.view(), qkv: qkv.view(), q, segments, queries }
    }
}
