//! Products of rows with constant weights: fully connected layers, and 1×1 convolutions of images whose channels lie together.

use std::sync::Arc;

use tract_onnx::tract_core::internal::*;

use super::{contiguous, output};
use crate::kernels::{Activation, Epilogue, FloatWeights, IntRows, IntWeights, Rows, RowsMut};

/// Weights packed for one of the kernels.
#[derive(Debug)]
pub(in crate::encoder) enum Packed {
    /// In f32.
    Float(FloatWeights),
    /// In int8.
    Int(IntWeights),
}

impl Packed {
    /// K, the terms of each sum.
    pub(super) fn depth(&self) -> usize {
        match self {
            Self::Float(weights) => weights.depth(),
            Self::Int(weights) => weights.depth(),
        }
    }

    /// N, the sums of each row.
    pub(super) fn columns(&self) -> usize {
        match self {
            Self::Float(weights) => weights.columns(),
            Self::Int(weights) => weights.columns(),
        }
    }

    /// The parts as bytes.
    pub(in crate::encoder) fn parts(&self) -> Vec<&[u8]> {
        match self {
            Self::Float(weights) => weights.parts().to_vec(),
            Self::Int(weights) => weights.parts().to_vec(),
        }
    }

    /// `activation(input · weights + bias + residual)` into `out`.
    pub(in crate::encoder) fn multiply(&self, input: Rows<f32>, epilogue: Epilogue, rows: &mut IntRows, out: RowsMut) {
        match self {
            Self::Float(weights) => weights.multiply(input, epilogue, out),
            Self::Int(weights) => {
                rows.set(weights.kernel(), input);
                weights.multiply(rows, epilogue, out);
            }
        }
    }
}

/// A product with what follows it: `activation(x W + bias + residual)`.
#[derive(Clone, Debug)]
pub(super) struct Linear {
    /// The weights `[K, N]`.
    pub packed: Arc<Packed>,
    /// Bias of each column, filled up with zeros to whole panels.
    pub bias: Arc<Vec<f32>>,
    /// What follows.
    pub activation: Activation,
    /// Shape of the output; its last sizes make up N.
    pub shape: TVec<usize>,
}

impl PartialEq for Linear {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.packed, &other.packed)
            && self.bias == other.bias
            && self.activation == other.activation
            && self.shape == other.shape
    }
}

impl Eq for Linear {}

impl Linear {
    fn run(&self, inputs: &[TValue], rows: &mut IntRows) -> TractResult<TVec<TValue>> {
        let packed = &self.packed;
        let (depth, columns) = (packed.depth(), packed.columns());
        let residual = inputs.get(1).map(|residual| contiguous(residual)).transpose()?;
        let epilogue = Epilogue {
            bias: &self.bias,
            residual: residual.map(|values| Rows::new(values, columns)),
            activation: self.activation,
        };
        output(&self.shape, |out| {
            packed.multiply(Rows::new(contiguous(&inputs[0])?, depth), epilogue, rows, RowsMut::new(out, columns));
            Ok(())
        })
    }
}

impl Op for Linear {
    fn name(&self) -> StaticName {
        match *self.packed {
            Packed::Float(_) => "RtptLinear".into(),
            Packed::Int(_) => "RtptLinearInt8".into(),
        }
    }

    op_as_typed_op!();
}

impl EvalOp for Linear {
    not_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        self.run(&inputs, &mut IntRows::default())
    }

    fn state(&self, _ctx: &EvalContext) -> TractResult<Option<Box<dyn OpState>>> {
        let keeps = matches!(*self.packed, Packed::Int(_));
        Ok(keeps.then(|| Box::new(Scratch::default()) as Box<dyn OpState>))
    }
}

impl TypedOp for Linear {
    as_op!();

    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::fact(&*self.shape)))
    }
}

/// Rows in int8, in memory that is used again.
#[derive(Clone, Debug, Default)]
struct Scratch(IntRows);

impl OpState for Scratch {
    fn eval(&mut self, _ctx: &EvalContext, op: &dyn Op, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let op = op.downcast_ref::<Linear>().ok_or_else(|| format_err!("the state is another operator's"))?;
        op.run(&inputs, &mut self.0)
    }

    fn reset_lanes(&mut self, _lanes: &[LaneId]) -> TractResult<()> {
        Ok(())
    }
}
