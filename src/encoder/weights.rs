//! Weights of products that stay in the model's file until they are packed.
//!
//! In the engine's model an operator without inputs stands for them. They are in f32, in f16 behind a `Cast`, or in int8 behind a
//! `DequantizeLinear` with a scale for each column: what any runtime of ONNX reads.

use std::ops::Range;

use half::f16;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_hir::infer::{InferenceOp, InferenceRulesOp, ShapeFactoid, Solver, TensorProxy};
use tract_onnx::tract_hir::to_typed;

use super::error::Result;
use super::file::{Left, ModelFile, Skeleton};
use super::products::{Readers, attribute, integer};

/// Name of the operator, which ONNX has not.
const OPERATOR: &str = "RtptWeights";

/// Types of tensors in `onnx.proto`.
pub(super) mod kind {
    pub(in crate::encoder) const F32: i32 = 1;
    pub(in crate::encoder) const INT8: i32 = 3;
    pub(in crate::encoder) const F16: i32 = 10;
}

/// Weights that are in the model's file.
#[derive(Debug)]
pub(super) struct StoredWeights {
    file: ModelFile,
    tensors: Vec<StoredTensor>,
}

#[derive(Debug)]
struct StoredTensor {
    shape: Vec<usize>,
    place: Range<u64>,
    precision: Precision,
}

#[derive(Debug)]
enum Precision {
    F32,
    F16,
    Int8 {
        /// One for all, or one for each place along `axis`.
        scales: Vec<f32>,
        axis: usize,
    },
}

impl Precision {
    /// Size of a value (bytes).
    fn bytes(&self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::Int8 { .. } => 1,
        }
    }
}

/// The operator that stands for weights in the engine's model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Weights {
    /// Which of the [`StoredWeights`].
    pub index: usize,
    /// Their shape.
    pub shape: TVec<usize>,
}

/// What is to become of a tensor that is left in the file.
struct Plan {
    /// Index among the graph's initializers.
    initializer: usize,
    /// Name of the value that the product reads: the tensor's own, or what a node makes of it.
    value: String,
    tensor: StoredTensor,
}

impl StoredWeights {
    /// The model of a file, in which weights of products are left in the file if `are_left`; all else is brought in.
    ///
    /// # Errors
    /// It is no ONNX model, or the file cannot be read.
    pub(super) fn apart(file: &ModelFile, are_left: bool) -> Result<(ModelProto, Self)> {
        let Skeleton { mut model, left } = file.skeleton()?;
        let Some(graph) = model.graph.as_mut().filter(|_| !left.is_empty()) else {
            return Ok((model, Self { file: file.clone(), tensors: Vec::new() }));
        };
        let (mut plans, mut others) = plans(graph, file, left)?;
        if !are_left {
            others.extend(plans.drain(..).map(|plan| Left { initializer: plan.initializer, place: plan.tensor.place }));
        }
        bring_in(graph, file, others)?;
        let tensors = leave_out(graph, plans);
        Ok((model, Self { file: file.clone(), tensors }))
    }

    /// The engine's reader of ONNX, which knows the operator.
    pub(super) fn reader() -> tract_onnx::Onnx {
        let mut reader = tract_onnx::onnx();
        reader.op_register.insert(OPERATOR, Weights::of_node);
        reader
    }

    /// True if these weights are in int8, and their products are to be.
    pub(super) fn is_int8(&self, index: usize) -> bool {
        self.tensors.get(index).is_some_and(|tensor| matches!(tensor.precision, Precision::Int8 { .. }))
    }

    /// The values of weights in f32.
    ///
    /// # Errors
    /// The file cannot be read, or was changed since it was opened; or there are no such weights.
    pub(super) fn load(&self, weights: &Weights) -> TractResult<Tensor> {
        let stored = self.tensors.get(weights.index).filter(|stored| *stored.shape == *weights.shape);
        let stored = stored.ok_or_else(|| format_err!("the file has an operator {OPERATOR}, which ONNX has not"))?;
        let bytes = self.file.read(stored.place.clone())?;
        let mut tensor = Tensor::zero::<f32>(&stored.shape)?;
        let mut plain = tensor.try_as_plain_ram_mut()?;
        let values = plain.as_slice_mut::<f32>()?;
        match &stored.precision {
            Precision::F32 => {
                values.iter_mut().zip(bytes.as_chunks().0).for_each(|(slot, &four)| *slot = f32::from_le_bytes(four));
            }
            Precision::F16 => {
                values
                    .iter_mut()
                    .zip(bytes.as_chunks().0)
                    .for_each(|(slot, &two)| *slot = f16::from_le_bytes(two).to_f32());
            }
            Precision::Int8 { scales, axis } => {
                let within: usize = stored.shape[axis + 1..].iter().product();
                for (place, (slot, &byte)) in values.iter_mut().zip(&*bytes).enumerate() {
                    *slot = f32::from(byte.cast_signed()) * scales[place / within % scales.len()];
                }
            }
        }
        Ok(tensor)
    }
}

/// Number of weights in f16 and in int8 among what is left of a model in its file.
///
/// # Errors
/// The file cannot be read.
#[cfg(feature = "cli")]
pub(super) fn count_in_less(graph: &mut GraphProto, file: &ModelFile, left: Vec<Left>) -> Result<(usize, usize)> {
    let (plans, _) = plans(graph, file, left)?;
    let count = |is: fn(&Precision) -> bool| plans.iter().filter(|plan| is(&plan.tensor.precision)).count();
    Ok((
        count(|precision| matches!(precision, Precision::F16)),
        count(|precision| matches!(precision, Precision::Int8 { .. })),
    ))
}

/// What is to become of the weights of products, and all other matrices that are left in the file; vectors are brought in.
fn plans(graph: &mut GraphProto, file: &ModelFile, left: Vec<Left>) -> Result<(Vec<Plan>, Vec<Left>)> {
    // Scales are read along with the weights that they belong to.
    let (matrices, vectors): (Vec<Left>, Vec<Left>) =
        left.into_iter().partition(|left| graph.initializer[left.initializer].dims.len() > 1);
    bring_in(graph, file, vectors)?;
    let readers = Readers::of(graph);
    let mut plans = Vec::new();
    let mut others = Vec::new();
    for left in matrices {
        match plan(graph, &readers, &left) {
            Some(plan) => plans.push(plan),
            None => others.push(left),
        }
    }
    Ok((plans, others))
}

fn bring_in(graph: &mut GraphProto, file: &ModelFile, left: Vec<Left>) -> Result<()> {
    for Left { initializer, place } in left {
        graph.initializer[initializer].raw_data = file.read(place)?.into_owned();
    }
    Ok(())
}

/// What is to become of a tensor, if it is the weights of a product.
fn plan(graph: &GraphProto, readers: &Readers, left: &Left) -> Option<Plan> {
    let tensor = &graph.initializer[left.initializer];
    let shape = shape_of(tensor)?;
    let (value, precision) = match tensor.data_type {
        kind::F32 => (tensor.name.clone(), Precision::F32),
        kind::F16 => {
            let (cast, _) = readers.only(&tensor.name)?;
            let is_to_f32 = cast.op_type == "Cast" && integer(cast, "to") == Some(kind::F32.into());
            (cast.output.first().filter(|_| is_to_f32)?.clone(), Precision::F16)
        }
        kind::INT8 => {
            let (node, slot) = readers.only(&tensor.name)?;
            let precision = scales_of(graph, node, &shape).filter(|_| slot == 0)?;
            (node.output.first()?.clone(), precision)
        }
        _ => return None,
    };
    readers.products(&value, shape.len())?;
    let values = shape.iter().try_fold(precision.bytes(), |bytes, &size| bytes.checked_mul(size as u64))?;
    let tensor = StoredTensor { shape, place: left.place.clone(), precision };
    (values == left.place.end - left.place.start).then_some(Plan { initializer: left.initializer, value, tensor })
}

/// The shape that a tensor declares, if it can be one.
pub(super) fn shape_of(tensor: &TensorProto) -> Option<Vec<usize>> {
    tensor.dims.iter().map(|&size| usize::try_from(size).ok()).collect()
}

/// The scales of a `DequantizeLinear` without zero points.
fn scales_of(graph: &GraphProto, node: &NodeProto, shape: &[usize]) -> Option<Precision> {
    let constant = |slot: usize| {
        let name = node.input.get(slot)?;
        graph.initializer.iter().find(|tensor| tensor.name == *name)
    };
    if node.op_type != "DequantizeLinear" || attribute(node, "block_size").is_some_and(|size| size.i != 0) {
        return None;
    }
    let has_zero_point = node.input.get(2).is_some_and(|name| !name.is_empty());
    if has_zero_point && !constant(2).is_some_and(is_zero) {
        return None;
    }
    let scales = floats(constant(1)?)?;
    let axis = integer(node, "axis").unwrap_or(1);
    let axis = usize::try_from(if axis < 0 { axis + shape.len() as i64 } else { axis }).ok()?;
    let fits = scales.len() == 1 || shape.get(axis) == Some(&scales.len());
    let axis = if scales.len() == 1 { 0 } else { axis };
    (fits && !shape.is_empty()).then_some(Precision::Int8 { scales, axis })
}

fn is_zero(tensor: &TensorProto) -> bool {
    tensor.data_type == kind::INT8
        && tensor.raw_data.iter().all(|&byte| byte == 0)
        && tensor.int32_data.iter().all(|&value| value == 0)
}

/// The values of a small tensor in f32.
fn floats(tensor: &TensorProto) -> Option<Vec<f32>> {
    let of_raw = || tensor.raw_data.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)).collect();
    let values = if tensor.float_data.is_empty() { of_raw() } else { tensor.float_data.clone() };
    (tensor.data_type == kind::F32 && !values.is_empty()).then_some(values)
}

/// Puts an operator in the place of each of these tensors.
fn leave_out(graph: &mut GraphProto, plans: Vec<Plan>) -> Vec<StoredTensor> {
    let mut is_left = vec![false; graph.initializer.len()];
    let mut tensors = Vec::with_capacity(plans.len());
    let mut sources = Vec::new();
    for Plan { initializer, value, tensor } in plans {
        is_left[initializer] = true;
        let node = Weights { index: tensors.len(), shape: tensor.shape.iter().copied().collect() }.to_node(&value);
        match graph.node.iter_mut().find(|node| node.output.first() == Some(&value)) {
            Some(converting) => *converting = node,
            None => sources.push(node),
        }
        tensors.push(tensor);
    }
    let mut names = Vec::new();
    let mut index = 0;
    graph.initializer.retain(|tensor| {
        if is_left[index] {
            names.push(tensor.name.clone());
        }
        index += 1;
        !is_left[index - 1]
    });
    // Before version 4 of ONNX's representation weights had to be listed as inputs, too.
    graph.input.retain(|input| !names.contains(&input.name));
    sources.append(&mut graph.node);
    graph.node = sources;
    tensors
}

impl Weights {
    fn to_node(&self, value: &str) -> NodeProto {
        let ints = |name: &str, ints: Vec<i64>| AttributeProto {
            name: name.into(),
            r#type: AttributeType::Ints as i32,
            ints,
            ..AttributeProto::default()
        };
        NodeProto {
            name: value.into(),
            op_type: OPERATOR.into(),
            output: vec![value.into()],
            attribute: vec![
                ints("index", vec![self.index as i64]),
                ints("shape", self.shape.iter().map(|&size| size as i64).collect()),
            ],
            ..NodeProto::default()
        }
    }

    fn of_node(_context: &ParsingContext, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
        let numbers = |name: &str| -> Option<TVec<usize>> {
            attribute(node, name)?.ints.iter().map(|&number| usize::try_from(number).ok()).collect()
        };
        // A file may have such a node itself: what it says is compared with the stored weights when they are loaded.
        match (numbers("index").as_deref(), numbers("shape")) {
            (Some(&[index]), Some(shape)) => Ok((Box::new(Self { index, shape }), Vec::new())),
            _ => bail!("the file has an operator {OPERATOR}, which ONNX has not"),
        }
    }
}

impl Op for Weights {
    fn name(&self) -> StaticName {
        OPERATOR.into()
    }

    op_as_typed_op!();
}

impl EvalOp for Weights {
    // Lowering puts the values in its place.
    not_out_of_plan!();
}

impl InferenceRulesOp for Weights {
    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        _inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> TractResult<()> {
        solver.equals(&outputs[0].datum_type, f32::datum_type())?;
        solver.equals(&outputs[0].shape, self.shape.iter().map(|size| size.to_dim()).collect::<ShapeFactoid>())
    }

    as_op!();
    to_typed!();
}

impl TypedOp for Weights {
    as_op!();

    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::fact(&*self.shape)))
    }
}
