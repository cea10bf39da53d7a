//! Layer norms of the last axis.

use std::sync::Arc;

use tract_onnx::tract_core::internal::*;

use super::{contiguous, output};
use crate::kernels::{FloatKernel, LayerNorm};

/// A layer norm.
#[derive(Clone, Debug)]
pub(super) struct Norm {
    /// The norm.
    pub layer: Arc<LayerNorm>,
    /// Kernel.
    pub kernel: FloatKernel,
    /// Shape of input and output.
    pub shape: TVec<usize>,
}

impl PartialEq for Norm {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.layer, &other.layer) && self.shape == other.shape
    }
}

impl Eq for Norm {}

impl Op for Norm {
    fn name(&self) -> StaticName {
        "RtptLayerNorm".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Norm {
    not_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = contiguous(&inputs[0])?;
        output(&self.shape, |out| {
            self.layer.run(self.kernel, input, out);
            Ok(())
        })
    }
}

impl TypedOp for Norm {
    as_op!();

    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::fact(&*self.shape)))
    }
}
