//! One layer of the transformer: `x += attention(norm1(x))`, then `x += mlp(norm2(x))`.

use ndarray::{Array2, ArrayView2, Axis, s};

use super::attention::{Attention, Heads, Queries, Segments};
use super::layers::{Activation, LayerNorm, Linear, NormTape};
use crate::products::Real;

/// The weights of one layer.
pub(crate) struct Block<T: Real> {
    /// Before attention.
    pub norm1: LayerNorm<T>,
    /// Query, key and value beside each other: `[W, 3W]`.
    pub qkv: Linear<T>,
    /// After attention: `[W, W]`.
    pub out: Linear<T>,
    /// Before the MLP.
    pub norm2: LayerNorm<T>,
    /// `[W, H]`.
    pub up: Linear<T>,
    /// `[H, W]`.
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
    /// Queries, keys and values `[N, 3W]`.
    pub qkv: Array2<T>,
    /// The queries `[Q, W]`, if not every row asks.
    q: Option<Array2<T>>,
    probabilities: Vec<T>,
    norm2: NormTape<T>,
    /// The MLP before its activation, `[Q, H]`.
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
        let (qkv, norm1) = self.queries_keys_and_values(x.view());
        let q = (scope.queries == Queries::Read).then(|| {
            let read = scope.segments.read();
            // Nothing after this layer reads the other rows, so that the residual stream and the MLP go on with these
            // alone.
            x = x.select(Axis(0), read);
            qkv.slice(s![.., ..self.heads.width]).select(Axis(0), read)
        });
        let (attended, probabilities) = self.attention(&qkv, q.as_ref(), &scope).forward();
        let x = self.out.added_to(x.view(), attended.view());
        let (h, norm2) = self.norm2.forward(x.view());
        let up = self.up.forward(h.view());
        let x = self.down.added_to(x.view(), self.activation.forward(&up).view());
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
        if let Some(extra) = dqkv_extra {
            dkv += extra;
        }
        let queries = s![.., ..self.heads.width];
        match scope.queries {
            Queries::All => {
                // The queries' columns have been 0 so far. With them one product takes all three back.
                dkv.slice_mut(queries).assign(&dq);
                self.queries_keys_and_values_backward(&tape.norm1, dkv.view()) + dx
            }
            Queries::Read => {
                let read = scope.segments.read();
                let mut dqueries = dkv.slice_mut(queries);
                read.iter().zip(dq.rows()).for_each(|(&own, row)| dqueries.row_mut(own).assign(&row));
                let mut dh = self.queries_keys_and_values_backward(&tape.norm1, dkv.view());
                // The residual stream passes by the norm: its gradient is added behind it.
                read.iter().zip(dx.rows()).for_each(|(&own, row)| dh.row_mut(own).scaled_add(T::one(), &row));
                dh
            }
        }
    }

    /// Queries, keys and values `[N, 3W]` of x `[N, W]`.
    pub(crate) fn queries_keys_and_values(&self, x: ArrayView2<T>) -> (Array2<T>, NormTape<T>) {
        let (h, norm1) = self.norm1.forward(x);
        (self.qkv.forward(h.view()), norm1)
    }

    /// Gradient of x `[N, W]` from those of its queries, keys and values, `[N, 3W]`.
    pub(crate) fn queries_keys_and_values_backward(&self, tape: &NormTape<T>, dqkv: ArrayView2<T>) -> Array2<T> {
        let mut dh = self.qkv.backward(dqkv);
        self.norm1.backward(tape, &mut dh);
        dh
    }

    fn attention<'a>(&self, qkv: &'a Array2<T>, q: Option<&'a Array2<T>>, scope: &'a Scope<'_, T>) -> Attention<'a, T> {
        let q = q.map_or_else(|| qkv.slice(s![.., ..self.heads.width]), |q| q.view());
        let &Scope { ref prefix, segments, queries } = scope;
        Attention { heads: self.heads, prefix: prefix.view(), qkv: qkv.view(), q, segments, queries }
    }
}
