//! Attention: `softmax(scale Q Kᵀ) V` for every head of every view, from wherever queries, keys and values lie.

use tract_onnx::tract_core::internal::*;

use super::{contiguous, output};
use crate::kernels::{self, FloatKernel, Rows, RowsMut};

/// Where the rows of one operand lie: the strides of the outer axes and of the rows. Values of a row are beside one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    /// Offset of the first value.
    pub offset: usize,
    /// Strides of the axes that all operands share.
    pub outer: TVec<usize>,
    /// Stride of the rows.
    pub row: usize,
}

/// An attention.
#[derive(Clone, Debug)]
pub(super) struct Attention {
    /// Queries `[.., L, D]`.
    pub queries: View,
    /// Keys `[.., M, D]`.
    pub keys: View,
    /// Values `[.., M, E]`.
    pub values: View,
    /// Output `[.., L, E]`.
    pub out: View,
    /// Sizes of the axes that all operands share: views and heads.
    pub outer: TVec<usize>,
    /// L, M, D and E.
    pub sizes: [usize; 4],
    /// Factor of the products.
    pub scale: f32,
    /// Shape of the output.
    pub shape: TVec<usize>,
    /// Kernel.
    pub kernel: FloatKernel,
}

impl PartialEq for Attention {
    fn eq(&self, other: &Self) -> bool {
        self.queries == other.queries
            && self.keys == other.keys
            && self.values == other.values
            && self.out == other.out
            && (&self.outer, self.sizes, &self.shape) == (&other.outer, other.sizes, &other.shape)
            && self.scale.to_bits() == other.scale.to_bits()
    }
}

impl Eq for Attention {}

impl Attention {
    fn run(&self, inputs: &[TValue], memory: &mut Scratch) -> TractResult<TVec<TValue>> {
        let [asked, length, width, out_width] = self.sizes;
        let memory = memory.0.get_or_insert_with(|| kernels::Attention::new(self.kernel, length, width, out_width));
        let operands = [contiguous(&inputs[0])?, contiguous(&inputs[1])?, contiguous(&inputs[2])?];
        let count: usize = self.outer.iter().product();
        output(&self.shape, |out| {
            for index in 0..count {
                let start = |view: &View| view.offset + self.offset(index, &view.outer);
                let queries = Rows::strided(&operands[0][start(&self.queries)..], asked, width, self.queries.row);
                let keys = Rows::strided(&operands[1][start(&self.keys)..], length, width, self.keys.row);
                let values = Rows::strided(&operands[2][start(&self.values)..], length, out_width, self.values.row);
                let out = RowsMut::strided(&mut out[start(&self.out)..], asked, out_width, self.out.row);
                memory.run(queries, keys, values, self.scale, out);
            }
            Ok(())
        })
    }

    /// Offset of the `index`th of the outer places, the last axis first.
    fn offset(&self, mut index: usize, strides: &[usize]) -> usize {
        let mut offset = 0;
        for (&size, &stride) in self.outer.iter().zip(strides).rev() {
            offset += index % size * stride;
            index /= size;
        }
        offset
    }
}

impl Op for Attention {
    fn name(&self) -> StaticName {
        "RtptAttention".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Attention {
    not_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        self.run(&inputs, &mut Scratch::default())
    }

    fn state(&self, _ctx: &EvalContext) -> TractResult<Option<Box<dyn OpState>>> {
        Ok(Some(Box::new(Scratch::default())))
    }
}

impl TypedOp for Attention {
    as_op!();

    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::fact(&*self.shape)))
    }
}

/// Memory of one head, which is used again.
#[derive(Debug, Default)]
struct Scratch(Option<kernels::Attention>);

impl Clone for Scratch {
    fn clone(&self) -> Self {
        // Nothing outlasts a run.
        Self::default()
    }
}

impl OpState for Scratch {
    fn eval(&mut self, _ctx: &EvalContext, op: &dyn Op, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let op = op.downcast_ref::<Attention>().ok_or_else(|| format_err!("the state is another operator's"))?;
        op.run(&inputs, self)
    }

    fn reset_lanes(&mut self, _lanes: &[LaneId]) -> TractResult<()> {
        Ok(())
    }
}
