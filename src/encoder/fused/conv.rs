//! Convolutions of images whose channels lie together: `[N, H, W, C]`.

use std::sync::Arc;

use tract_onnx::tract_core::internal::*;

use super::linear::Packed;
use super::{contiguous, output};
use crate::kernels::{Activation, Bordered, Depthwise, Epilogue, Extent, FloatKernel, IntRows, Patches, Rows, RowsMut};

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

/// A convolution as a product: an output's row are the pixels that its filter sees, where they lie in the image with zeros around it.
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
        let bordered = self.geometry.bordered();
        let is_copied = matches!(*self.packed, Packed::Int(_)) || !self.geometry.is_bare();
        let width = if is_copied { bordered.width } else { extent[1] * channels };
        let parts = self.geometry.parts(width);
        let patches = self.geometry.patches(width, &parts);
        output(&self.shape, |out| {
            let images = input.chunks_exact(extent[0] * extent[1] * channels);
            for (index, (image, out)) in images.zip(out.chunks_exact_mut(pixels * columns)).enumerate() {
                let residual = residual.map(|values| &values[index * pixels * columns..][..pixels * columns]);
                let epilogue = |first: usize, count: usize| Epilogue {
                    bias: &self.bias,
                    residual: residual.map(|values| Rows::new(&values[first * columns..][..count * columns], columns)),
                    activation: self.activation,
                };
                let image = Rows::new(image, extent[1] * channels);
                match &*self.packed {
                    Packed::Float(weights) => {
                        let seen = if is_copied {
                            bordered.copy(image, &mut scratch.bordered);
                            &scratch.bordered
                        } else {
                            image.values()
                        };
                        weights.multiply_patches(seen, patches, epilogue(0, pixels), RowsMut::new(out, columns));
                    }
                    Packed::Int(weights) => {
                        scratch.whole.set_image(weights.kernel(), image, bordered);
                        if weights.takes(patches) {
                            let out = RowsMut::new(out, columns);
                            weights.multiply_patches(&scratch.whole, patches, epilogue(0, pixels), out);
                            continue;
                        }
                        let depth = patches.depth();
                        let block = (GATHERED_BYTES / depth).max(GATHERED_ROWS) / GATHERED_ROWS * GATHERED_ROWS;
                        for (place, out) in out.chunks_mut(block * columns).enumerate() {
                            let (first, count) = (place * block, out.len() / columns);
                            scratch.rows.gather(weights.kernel(), &scratch.whole, patches, first..first + count);
                            let out = RowsMut::new(out, columns);
                            weights.multiply(&scratch.rows, epilogue(first, count), out);
                        }
                    }
                }
            }
            Ok(())
        })
    }
}

impl Geometry {
    /// The image with as many zeros around it as filters reach.
    fn bordered(&self) -> Bordered {
        let reached =
            |axis: usize| (self.out[axis] - 1) * self.strides[axis] + (self.size[axis] - 1) * self.dilations[axis] + 1;
        Bordered {
            top: self.padding[0],
            left: self.padding[1] * self.channels,
            lines: reached(0),
            width: reached(1) * self.channels,
        }
    }

    /// True if no filter reaches over the image.
    fn is_bare(&self) -> bool {
        let Bordered { top, left, lines, width } = self.bordered();
        top == 0 && left == 0 && lines <= self.extent[0] && width <= self.extent[1] * self.channels
    }

    /// The pixels of a filter that are beside each other, which are one part: their number along each axis, and the values of a part.
    fn runs(&self) -> ([usize; 2], usize) {
        let Self { size, dilations, channels, .. } = *self;
        if dilations[1] == 1 { ([size[0], 1], size[1] * channels) } else { (size, channels) }
    }

    /// Where the parts of a filter begin, in an image whose lines have `width` values.
    fn parts(&self, width: usize) -> Vec<usize> {
        let ([down, across], _) = self.runs();
        let places = (0..down).flat_map(|y| (0..across).map(move |x| (y, x)));
        places.map(|(y, x)| y * self.dilations[0] * width + x * self.dilations[1] * self.channels).collect()
    }

    /// The pixels `[KH, KW, C]` that the filter of each output sees, in an image whose lines have `width` values; `parts` are [`Self::parts`].
    fn patches<'a>(&self, width: usize, parts: &'a [usize]) -> Patches<'a> {
        Patches {
            line: self.out[1],
            row_distance: self.strides[1] * self.channels,
            line_distance: self.strides[0] * width,
            parts,
            length: self.runs().1,
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

/// Memory that is used again.
#[derive(Clone, Debug, Default)]
struct Scratch {
    /// The image with zeros around it.
    bordered: Vec<f32>,
    /// The same in int8.
    whole: IntRows,
    /// Gathered rows.
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
