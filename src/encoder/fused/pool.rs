//! Means of windows of images whose channels lie together: `[N, H, W, C]`.

use tract_onnx::tract_core::internal::*;

use super::conv::Geometry;
use super::{contiguous, output};
use crate::kernels::{FloatKernel, Windows};

/// An average pool whose windows lie within the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AveragePool {
    /// Sizes.
    pub geometry: Geometry,
    /// Shape of the output, with the channels last.
    pub shape: TVec<usize>,
    /// Kernel.
    pub kernel: FloatKernel,
}

impl Op for AveragePool {
    fn name(&self) -> StaticName {
        "RtptAveragePool".into()
    }

    op_as_typed_op!();
}

impl EvalOp for AveragePool {
    not_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let Geometry { size, strides, dilations, extent, out: out_extent, channels, .. } = self.geometry;
        let windows = Windows { size, strides, dilations };
        let input = contiguous(&inputs[0])?;
        output(&self.shape, |out| {
            let images = input.chunks_exact(extent[0] * extent[1] * channels);
            for (image, out) in images.zip(out.chunks_exact_mut(out_extent[0] * out_extent[1] * channels)) {
                windows.means(self.kernel, (image, extent[1]), (out, out_extent[1]), channels);
            }
            Ok(())
        })
    }
}

impl TypedOp for AveragePool {
    as_op!();

    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::fact(&*self.shape)))
    }
}
