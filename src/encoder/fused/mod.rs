//! Our own operators inside the engine's model: products with constant weights, convolutions of images whose channels lie together, layer
//! norms and attention, each with what follows it.

mod attention;
mod conv;
mod linear;
mod lower;
mod norm;
mod pool;
// The models are made of the messages that the importer reads.
#[cfg(all(test, feature = "cli"))]
mod tests;

use tract_onnx::tract_core::internal::*;

pub(crate) use lower::Kernels;
pub(super) use lower::lower;

use conv::Conv;
use linear::Linear;
pub(super) use linear::Packed;

/// Name of the kernel of an operator of ours that is a product.
pub(super) fn kernel_of(op: &dyn TypedOp) -> Option<String> {
    let packed =
        op.downcast_ref::<Linear>().map(|op| &op.packed).or_else(|| op.downcast_ref::<Conv>().map(|op| &op.packed))?;
    Some(match &**packed {
        Packed::Float(weights) => weights.kernel().name().to_string(),
        Packed::Int(weights) => weights.kernel().name().to_string(),
    })
}

/// The values of a tensor.
fn contiguous(tensor: &Tensor) -> TractResult<&[f32]> {
    tensor.try_as_plain_ram()?.as_slice::<f32>()
}

/// A tensor of a shape, all of whose values `fill` writes.
fn output(shape: &[usize], fill: impl FnOnce(&mut [f32]) -> TractResult<()>) -> TractResult<TVec<TValue>> {
    // Every kernel writes every value of its output, which its tests ensure.
    let mut tensor = unsafe { Tensor::uninitialized::<f32>(shape)? };
    fill(tensor.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?)?;
    Ok(tvec!(tensor.into_tvalue()))
}
