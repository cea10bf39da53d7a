//! Convolutions of images whose channels lie together: `[N, H, W, C]`.

use std::sync::Arc;

use tract_onnx::tract_core::internal::*;

use super::linear::Packed;
use super::{contiguous, output};
use crate::kernels::{Activation, Depthwise, Epilogue, Extent, FloatKernel, IntRows, Rows, RowsMut};

/// Memory of the rows that are gathered at once (bytes): a part of the second cache.
const GATHERED_BYTES: usize = 192 << 10;
/// Least number of these rows, which share what is brought of the weights; whole tiles of every kernel.
const GATHERED_ROWS: usize = 56;

/// Sizes of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Height and width of a filter.
    pub size: Extent,
    /// Distance of two outputs along both axes.
    pub strides: Extent,
    /// Distance of two pixels of a filter.
    pub dilations: Extent,
    /// Rows above and columns left of the image that filters reach over.
    pub padding: Extent,
    /// Height and width of the image.
    pub extent: Extent,
    /// Height and width of the output.
    pub out: Extent,
    /// Channels of the image.
    pub channels: usize,
}

/// A convolution as a product: each output's pixels are gathered into a row.
#[derive(Clone, Debug)]
pub(super) struct Conv {
    /// Sizes.
    pub geometry: Geometry,
    /// Shape of the output, with the channels last.
    pub shape: TVec<usize>,
    /// Weights `[KH · KW · C, N]`.
    pub packed: Arc<Packed>,
    /// Bias of each column, filled up with zeros to whole panels.
    pub bias: Arc<Vec<f32>>,
    /// What follows.
    pub activation: Activation,
}

impl PartialEq for Conv {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.packed, &other.packed)
            && self.bias == other.bias
            && self.activation == other.activation
            && self.geometry == other.geometry
    }
}

impl Eq for Conv {}

impl Conv {
    fn run(&self, inputs: &[TValue], scratch: &mut Scratch) -> TractResult<TVec<TValue>> {
        let columns = self.packed.columns();
        let residual = inputs.get(1).map(|residual| contiguous(residual)).transpose()?;
        let input = contiguous(&inputs[0])?;
        let Geometry { extent, out: out_extent, channels, .. } = self.geometry;
        let pixels = out_extent[0] * out_extent[1];
        output(&self.shape, |out| {
            let images = input.chunks_exact(extent[0] * extent[1] * channels);
            for (index, (image, out)) in images.zip(out.chunks_exact_mut(pixels * columns)).enumerate() {
                let residual = residual.map(|values| &values[index * pixels * columns..][..pixels * columns]);
                self.run_image(image, residual, scratch, out);
            }
            Ok(())
        })
    }

    /// One image, a block of gathered rows after the other.
    fn run_image(&self, image: &[f32], residual: Option<&[f32]>, scratch: &mut Scratch, out: &mut [f32]) {
        let (depth, columns) = (self.packed.depth(), self.packed.columns());
        let value_bytes = match &*self.packed {
            Packed::Float(_) => size_of::<f32>(),
            Packed::Int(weights) => {
                // Once for the image, whose pixels are in many rows.
                scratch.whole.set(weights.kernel(), Rows::new(image, image.len()));
                1
            }
        };
        let block = (GATHERED_BYTES / (depth * value_bytes)).max(GATHERED_ROWS) / GATHERED_ROWS * GATHERED_ROWS;
        for (place, out) in out.chunks_mut(block * columns).enumerate() {
            let (first, count) = (place * block, out.len() / columns);
            let residual = residual.map(|values| Rows::new(&values[first * columns..][..out.len()], columns));
            let epilogue = Epilogue { bias: &self.bias, residual, activation: self.activation };
            let out = RowsMut::new(out, columns);
            match &*self.packed {
                Packed::Float(weights) => {
                    scratch.gathered.resize(count * depth, 0.0);
                    for (place, row) in scratch.gathered.chunks_exact_mut(depth).enumerate() {
                        self.geometry.gather(image, first + place, 0.0, row);
                    }
                    weights.multiply(Rows::new(&scratch.gathered, depth), epilogue, out);
                }
                Packed::Int(weights) => {
                    let kernel = weights.kernel();
                    scratch.rows.gather(kernel, &scratch.whole, count, depth, |image, place, row| {
                        self.geometry.gather(image, first + place, kernel.offset(), row);
                    });
                    weights.multiply(&scratch.rows, epilogue, out);
                }
            }
        }
    }
}

impl Geometry {
    /// The pixels that the filter of one output sees, `[KH, KW, C]`; those around the image are `zero`.
    fn gather<T: Copy>(&self, image: &[T], output: usize, zero: T, row: &mut [T]) {
        let Self { size, strides, dilations, padding, extent, out, channels, .. } = *self;
        let (y, x) = (output / out[1] * strides[0], output % out[1] * strides[1]);
        for (ky, slots) in row.chunks_exact_mut(size[1] * channels).enumerate() {
            let Some(line) = (y + ky * dilations[0]).checked_sub(padding[0]).filter(|&line| line < extent[0]) else {
                slots.fill(zero);
                continue;
            };
            let line = &image[line * extent[1] * channels..][..extent[1] * channels];
            let left = x.checked_sub(padding[1]);
            if let Some(left) = left.filter(|left| dilations[1] == 1 && left + size[1] <= extent[1]) {
                slots.copy_from_slice(&line[left * channels..][..size[1] * channels]);
                continue;
            }
            for (kx, slots) in slots.chunks_exact_mut(channels).enumerate() {
                let column = (x + kx * dilations[1]).checked_sub(padding[1]).filter(|&column| column < extent[1]);
                match column {
                    Some(column) => slots.copy_from_slice(&line[column * channels..][..channels]),
                    None => slots.fill(zero),
                }
            }
        }
    }
}

impl Op for Conv {
    fn name(&self) -> StaticName {
        "RtptConv".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Conv {
    not_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        self.run(&inputs, &mut Scratch::default())
    }

    fn state(&self, _ctx: &EvalContext) -> TractResult<Option<Box<dyn OpState>>> {
        Ok(Some(Box::new(Scratch::default())))
    }
}

impl TypedOp for Conv {
    as_op!();

    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::fact(&*self.shape)))
    }
}

/// Gathered rows, in memory that is used again.
#[derive(Clone, Debug, Default)]
struct Scratch {
    gathered: Vec<f32>,
    whole: IntRows,
    rows: IntRows,
}

impl OpState for Scratch {
    fn eval(&mut self, _ctx: &EvalContext, op: &dyn Op, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let op = op.downcast_ref::<Conv>().ok_or_else(|| format_err!("the state is another operator's"))?;
        op.run(&inputs, self)
    }

    fn reset_lanes(&mut self, _lanes: &[LaneId]) -> TractResult<()> {
        Ok(())
    }
}

/// A depthwise convolution.
#[derive(Clone, Debug)]
pub(super) struct DepthwiseConv {
    /// Sizes.
    pub geometry: Geometry,
    /// Shape of the output, with the channels last.
    pub shape: TVec<usize>,
    /// Weights, bias and what follows.
    pub convolution: Arc<Depthwise>,
    /// Kernel.
    pub kernel: FloatKernel,
}

impl PartialEq for DepthwiseConv {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.convolution, &other.convolution) && self.geometry == other.geometry
    }
}

impl Eq for DepthwiseConv {}

impl Op for DepthwiseConv {
    fn name(&self) -> StaticName {
        "RtptDepthwise".into()
    }

    op_as_typed_op!();
}

impl EvalOp for DepthwiseConv {
    not_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let Geometry { extent, out: out_extent, channels, .. } = self.geometry;
        let input = contiguous(&inputs[0])?;
        output(&self.shape, |out| {
            let images = input.chunks_exact(extent[0] * extent[1] * channels);
            for (image, out) in images.zip(out.chunks_exact_mut(out_extent[0] * out_extent[1] * channels)) {
                self.convolution.run(self.kernel, image, extent, out, out_extent);
            }
            Ok(())
        })
    }
}

impl TypedOp for DepthwiseConv {
    as_op!();

    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::fact(&*self.shape)))
    }
}
