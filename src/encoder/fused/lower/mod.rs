//! A model with our operators in the place of the engine's, wherever one of ours does the same.
//!
//! Nodes are gone through in order. What follows an operator of ours (a bias, a residual, an activation) is taken into it, where nothing
//! else reads the value in between. Images are turned so that their channels lie together before the first convolution, and back before the
//! first operator that is the engine's.

mod follow;
mod products;
mod transformers;

use std::collections::HashMap;
use std::sync::Arc;

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::array::Slice;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::cnn::{self, KernelFormat, MaxPool, PoolSpec, SumPool};
use tract_onnx::tract_core::ops::downsample::Downsample;
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_core::ops::math;
use tract_onnx::tract_core::ops::nn::{DataFormat, GeluExact, Reduce, Reducer, RmsNorm, Sigmoid, Silu, Softmax};
use tract_onnx::tract_core::ops::source::TypedSource;

use super::attention::{Attention, View};
use super::contiguous;
use super::conv::{Conv, DepthwiseConv, Geometry};
use super::linear::{Linear, Packed};
use super::norm::Norm;
use super::pool::AveragePool;
use crate::encoder::prepared::{LayerKey, Prepared};
use crate::encoder::weights::{StoredWeights, Weights};
use crate::kernels::{
    Activation, Depthwise, FloatKernel, FloatWeights, INT8_DEPTH_MAX, IntKernel, IntWeights, LayerNorm,
    quantise_weights,
};

/// Columns of the widest panel.
const PANEL_MAX: usize = 32;

/// The kernels that operators are made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernels {
    /// Kernel of f32.
    pub float: FloatKernel,
    /// Kernel of products whose weights are stored in int8.
    pub int8: IntKernel,
}

/// The model with our operators.
///
/// # Errors
/// The model is inconsistent.
pub(in crate::encoder) fn lower(
    model: &TypedModel,
    kernels: Kernels,
    weights: &StoredWeights,
    prepared: &mut Prepared,
) -> TractResult<TypedModel> {
    let mut lowering = Lowering {
        source: model,
        weights,
        prepared,
        stored: HashMap::new(),
        target: TypedModel::default(),
        placed: HashMap::new(),
        open: HashMap::new(),
        kernels,
    };
    for id in model.eval_order()? {
        lowering.node(model.node(id))?;
    }
    let outputs: Vec<OutletId> = model
        .output_outlets()?
        .iter()
        .map(|&outlet| lowering.get(outlet, Layout::Plain))
        .collect::<TractResult<_>>()?;
    let mut target = lowering.target;
    target.select_output_outlets(&outputs)?;
    target.compact()?;
    Ok(target)
}

/// Order of a value's axes in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Layout {
    /// As in the source.
    Plain,
    /// With this axis of the source behind all others: that of an image's channels, `[N, H, W, C]`.
    Last(usize),
}

impl Layout {
    /// The layout in which `axis` of `rank` is the last.
    fn with_last(axis: usize, rank: usize) -> Self {
        if axis + 1 == rank { Self::Plain } else { Self::Last(axis) }
    }

    /// What belongs to the axes of the source, in the order of this layout.
    fn order<T: Copy>(self, mut of_axes: Vec<T>) -> Vec<T> {
        if let Self::Last(axis) = self {
            let moved = of_axes.remove(axis);
            of_axes.push(moved);
        }
        of_axes
    }

    /// The last axis, as one of the source.
    fn last(self, rank: usize) -> usize {
        match self {
            Self::Plain => rank - 1,
            Self::Last(axis) => axis,
        }
    }
}

/// An operator of ours into which what follows may be taken.
#[derive(Clone)]
struct Open {
    op: OpenOp,
    inputs: TVec<OutletId>,
    layout: Layout,
}

#[derive(Clone)]
enum OpenOp {
    Linear(Linear),
    Conv(Conv),
    Depthwise(DepthwiseConv),
    Norm(Norm),
}

impl OpenOp {
    fn activation(&self) -> Option<Activation> {
        match self {
            Self::Linear(op) => Some(op.activation),
            Self::Conv(op) => Some(op.activation),
            Self::Depthwise(op) => Some(op.convolution.activation),
            Self::Norm(_) => None,
        }
    }

    fn with_activation(mut self, activation: Activation) -> Self {
        match &mut self {
            Self::Linear(op) => op.activation = activation,
            Self::Conv(op) => op.activation = activation,
            Self::Depthwise(op) => {
                let Depthwise { size, stride, padding, weights, bias, .. } = &*op.convolution;
                op.convolution = Arc::new(Depthwise {
                    size: *size,
                    stride: *stride,
                    padding: *padding,
                    weights: weights.clone(),
                    bias: bias.clone(),
                    activation,
                });
            }
            Self::Norm(_) => {}
        }
        self
    }

    fn into_typed(self) -> Box<dyn TypedOp> {
        match self {
            Self::Linear(op) => Box::new(op),
            Self::Conv(op) => Box::new(op),
            Self::Depthwise(op) => Box::new(op),
            Self::Norm(op) => Box::new(op),
        }
    }
}

struct Lowering<'a> {
    source: &'a TypedModel,
    weights: &'a StoredWeights,
    prepared: &'a mut Prepared,
    /// Nodes that give stored weights, turned or cut perhaps, and the index of these.
    stored: HashMap<usize, usize>,
    target: TypedModel,
    /// Outlets of the source in the target, in each layout they are there in; the first is the one they were made in.
    placed: HashMap<OutletId, TVec<(Layout, OutletId)>>,
    /// Outlets into whose operator what follows may be taken.
    open: HashMap<OutletId, Open>,
    kernels: Kernels,
}

impl Lowering<'_> {
    fn node(&mut self, node: &TypedNode) -> TractResult<()> {
        let outlet = OutletId::new(node.id, 0);
        if node.op_is::<Const>() {
            // Made where something of the engine's reads it: weights that are packed are not in the model twice.
            return Ok(());
        }
        if let Some(index) = self.stored_index(node) {
            self.stored.insert(node.id, index);
            return Ok(());
        }
        if node.op_is::<TypedSource>() {
            let source = self.target.add_source(&node.name, node.outputs[0].fact.clone())?;
            self.placed.insert(outlet, tvec!((Layout::Plain, source)));
            return Ok(());
        }
        let is_ours = if let Some(op) = node.op_as::<TypedBinOp>() {
            self.binary(node, op)?
        } else if let Some(op) = node.op_as::<ElementWiseOp>() {
            self.unary(node, op)?
        } else if let Some(op) = node.op_as::<cnn::Conv>() {
            self.conv(node, op)?
        } else if let Some(op) = node.op_as::<EinSum>() {
            self.attention(node, op)? || self.product(node, op)?
        } else if let Some(op) = node.op_as::<RmsNorm>() {
            self.layer_norm(node, op)?
        } else {
            self.turned(node)?
        };
        if is_ours { Ok(()) } else { self.unchanged(node, node.op.clone()) }
    }

    /// The engine's operator, as it is.
    fn unchanged(&mut self, node: &TypedNode, op: Box<dyn TypedOp>) -> TractResult<()> {
        let inputs =
            node.inputs.iter().map(|&input| self.get(input, Layout::Plain)).collect::<TractResult<TVec<_>>>()?;
        let outlets = self.target.wire_node(&node.name, op, &inputs)?;
        for (slot, outlet) in outlets.into_iter().enumerate() {
            self.placed.insert(OutletId::new(node.id, slot), tvec!((Layout::Plain, outlet)));
        }
        Ok(())
    }

    /// Places an operator for the only output of `node`.
    fn place(
        &mut self,
        node: &TypedNode,
        op: Box<dyn TypedOp>,
        inputs: &[OutletId],
        layout: Layout,
    ) -> TractResult<()> {
        // A node that took in what followed it is named by the last of these.
        let outlet = self.target.wire_node(&node.name, op, inputs)?[0];
        self.placed.insert(OutletId::new(node.id, 0), tvec!((layout, outlet)));
        Ok(())
    }

    /// Places an operator of ours, into which what follows may be taken.
    fn place_open(&mut self, node: &TypedNode, open: Open) -> TractResult<()> {
        self.place(node, open.op.clone().into_typed(), &open.inputs, open.layout)?;
        self.open.insert(OutletId::new(node.id, 0), open);
        Ok(())
    }

    /// An outlet of the source in the target, in a layout.
    fn get(&mut self, outlet: OutletId, layout: Layout) -> TractResult<OutletId> {
        if !self.placed.contains_key(&outlet) {
            let constant = self.constant(outlet)?.ok_or_else(|| format_err!("outlet {outlet:?} is not there yet"))?;
            let placed = self.target.add_const(&self.source.node(outlet.node).name, constant)?;
            self.placed.insert(outlet, tvec!((Layout::Plain, placed)));
        }
        let known = &self.placed[&outlet];
        if let Some(&(_, found)) = known.iter().find(|(known, _)| *known == layout) {
            return Ok(found);
        }
        let (known, from) = known[0];
        let rank = self.shape(outlet)?.len();
        // By way of the source's own order where neither is that.
        let (turn, word) = match (known, layout) {
            (Layout::Last(axis), Layout::Plain) => (AxisOp::Move(rank - 1, axis), "plain".to_string()),
            (Layout::Plain, Layout::Last(axis)) => (AxisOp::Move(axis, rank - 1), format!("last{axis}")),
            _ => {
                let plain = self.get(outlet, Layout::Plain)?;
                let Layout::Last(axis) = layout else { return Ok(plain) };
                let name = format!("{}.last{axis}", self.target.node(plain.node).name);
                let name = self.target.unique_name(name).into_owned();
                let turned = self.target.wire_node(name, AxisOp::Move(axis, rank - 1), &[plain])?[0];
                self.placed.get_mut(&outlet).expect("it was placed above").push((layout, turned));
                return Ok(turned);
            }
        };
        // Constants that are equal are one node in the target, whose turns have one name.
        let name = self.target.unique_name(format!("{}.{word}", self.target.node(from.node).name)).into_owned();
        let turned = self.target.wire_node(name, turn, &[from])?[0];
        self.placed.get_mut(&outlet).expect("it was placed above").push((layout, turned));
        Ok(turned)
    }

    /// The layout that an outlet was made in.
    fn layout(&self, outlet: OutletId) -> Layout {
        self.placed.get(&outlet).map_or(Layout::Plain, |known| known[0].0)
    }

    fn shape(&self, outlet: OutletId) -> TractResult<TVec<usize>> {
        let fact = self.source.outlet_fact(outlet)?;
        Ok(fact.shape.as_concrete().ok_or_else(|| format_err!("a shape is open"))?.into())
    }

    /// Index of the stored weights that a node gives, if it gives any.
    fn stored_index(&self, node: &TypedNode) -> Option<usize> {
        if let Some(op) = node.op_as::<Weights>() {
            return Some(op.index);
        }
        let turns = node.op_is::<AxisOp>() || node.op_is::<Slice>();
        node.inputs.first().filter(|_| turns).and_then(|input| self.stored.get(&input.node)).copied()
    }

    fn is_constant(&self, outlet: OutletId) -> bool {
        self.known(outlet).is_some() || self.stored.contains_key(&outlet.node)
    }

    /// A constant that the model holds.
    fn known(&self, outlet: OutletId) -> Option<&Arc<Tensor>> {
        self.source.outlet_fact(outlet).ok()?.konst.as_ref()
    }

    /// A constant that the model holds, or weights, which are read from the file now.
    fn constant(&self, outlet: OutletId) -> TractResult<Option<Arc<Tensor>>> {
        if let Some(known) = self.known(outlet) {
            return Ok(Some(known.clone()));
        }
        let node = self.source.node(outlet.node);
        if !self.stored.contains_key(&node.id) {
            return Ok(None);
        }
        if let Some(op) = node.op_as::<Weights>() {
            return Ok(Some(Arc::new(self.weights.load(op)?)));
        }
        let Some(input) = self.constant(node.inputs[0])? else { return Ok(None) };
        let turned = node.op.eval_out_of_plan(tvec!(input.into_tvalue()))?;
        Ok(turned.and_then(|turned| turned.into_iter().next()).map(|turned| turned.into_arc_tensor()))
    }

    /// A constant of one value.
    fn scalar(&self, outlet: OutletId) -> Option<f32> {
        let constant = self.known(outlet).filter(|constant| constant.len() == 1)?;
        constant.cast_to_scalar::<f32>().ok()
    }

    /// True if one node alone reads an outlet, once.
    fn is_read_once(&self, outlet: OutletId) -> bool {
        self.source.outlet_successors(outlet).len() == 1 && !self.source.outputs.contains(&outlet)
    }

    /// The operator that an outlet comes from, if what follows may be taken into it.
    fn open_at(&self, outlet: OutletId) -> Option<Open> {
        self.open.get(&outlet).filter(|_| self.is_read_once(outlet)).cloned()
    }
}

/// The axis of an image's channels: the engine leaves out the axis of a batch of one.
fn channel_axis(rank: usize) -> usize {
    rank - 3
}

fn is_channels_first(format: DataFormat) -> bool {
    matches!(format, DataFormat::NCHW | DataFormat::CHW)
}
