//! A model with the weights of its products stored in fewer bits, as any runtime of ONNX reads it.

use std::collections::HashSet;

use half::f16;
use prost::Message;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};

use super::error::Result;
use super::file::{Left, ModelFile, Skeleton};
use super::products::Readers;
use super::weights::{count_in_less, kind, shape_of};
use crate::kernels::quantise_weights;

/// First version of ONNX's operators in which `DequantizeLinear` has a scale for each place along an axis.
pub(crate) const INT8_OPERATORS_MIN: i64 = 13;

/// What weights are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoredIn {
    /// Symmetric int8, with a scale for each column. Products are computed in int8, too.
    Int8,
    /// Half precision. Products are computed in f32.
    F16,
}

/// A product whose weights are stored in f32.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layer {
    /// Name of its node; of the first where several share the weights.
    pub name: String,
    /// Number of its weights.
    pub weights: usize,
}

/// Products of a model.
#[derive(Clone, Debug)]
pub(crate) struct Layers {
    /// Version of ONNX's operators.
    pub operators: i64,
    /// Those whose weights are stored in f32, in the order in which these are in the file.
    pub in_f32: Vec<Layer>,
    /// Number of those in f16.
    pub in_f16: usize,
    /// Number of those in int8.
    pub in_int8: usize,
}

struct Found {
    layer: Layer,
    /// Name of the weights.
    value: String,
    shape: Vec<usize>,
    /// Axis of the columns.
    axis: usize,
}

impl Layers {
    /// The products of a model.
    ///
    /// # Errors
    /// It is no ONNX model, or the file cannot be read.
    pub(crate) fn of(file: &ModelFile) -> Result<Self> {
        let Skeleton { mut model, left } = file.skeleton()?;
        let operators = operators_of(&model);
        let Some(graph) = model.graph.as_mut() else {
            return Ok(Self { operators, in_f32: Vec::new(), in_f16: 0, in_int8: 0 });
        };
        let readers = Readers::of(graph);
        let in_f32: Vec<Layer> =
            left.iter().filter_map(|left| found(graph, &readers, left)).map(|found| found.layer).collect();
        drop(readers);
        let (in_f16, in_int8) = count_in_less(graph, file, left)?;
        Ok(Self { operators, in_f32, in_f16, in_int8 })
    }
}

/// The bytes of the model with the weights of the layers that are `chosen` by name stored in less.
///
/// # Errors
/// It is no ONNX model, or the file cannot be read.
pub(crate) fn stored_in(file: &ModelFile, stored: StoredIn, chosen: impl Fn(&str) -> bool) -> Result<Vec<u8>> {
    let Skeleton { mut model, left } = file.skeleton()?;
    let Some(graph) = model.graph.as_mut() else { return Ok(model.encode_to_vec()) };
    let readers = Readers::of(graph);
    let found: Vec<Option<Found>> =
        left.iter().map(|left| found(graph, &readers, left).filter(|found| chosen(&found.layer.name))).collect();
    drop(readers);
    let mut taken: HashSet<String> = graph.initializer.iter().map(|tensor| tensor.name.clone()).collect();
    taken.extend(graph.node.iter().flat_map(|node| node.output.iter().cloned()));
    taken.extend(graph.input.iter().map(|input| input.name.clone()));
    let mut name_for = |value: &str, what: &str| {
        let mut name = format!("{value}.{what}");
        while !taken.insert(name.clone()) {
            name.push('_');
        }
        name
    };
    let mut nodes = Vec::new();
    let mut scale_tensors = Vec::new();
    for (Left { initializer, place }, found) in left.into_iter().zip(found) {
        let data = file.read(place)?;
        let Some(Found { value, shape, axis, .. }) = found else {
            graph.initializer[initializer].raw_data = data.into_owned();
            continue;
        };
        graph.input.retain(|input| input.name != value);
        let values: Vec<f32> = data.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)).collect();
        let (tensor, inputs, node) = match stored {
            StoredIn::Int8 => {
                let (scales, bytes) = columns_in_int8(&values, &shape, axis);
                let scale = TensorProto {
                    name: name_for(&value, "scale"),
                    data_type: kind::F32,
                    dims: vec![scales.len() as i64],
                    raw_data: scales.iter().flat_map(|scale| scale.to_le_bytes()).collect(),
                    ..TensorProto::default()
                };
                let tensor = (name_for(&value, "int8"), kind::INT8, bytes);
                let inputs = vec![tensor.0.clone(), scale.name.clone()];
                scale_tensors.push(scale);
                (tensor, inputs, ("DequantizeLinear", "axis", axis as i64))
            }
            StoredIn::F16 => {
                let bytes = values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect();
                let tensor = (name_for(&value, "f16"), kind::F16, bytes);
                let inputs = vec![tensor.0.clone()];
                (tensor, inputs, ("Cast", "to", i64::from(kind::F32)))
            }
        };
        let (name, data_type, raw_data) = tensor;
        let dims = graph.initializer[initializer].dims.clone();
        graph.initializer[initializer] = TensorProto { name, data_type, dims, raw_data, ..TensorProto::default() };
        let (op_type, attribute, number) = node;
        nodes.push(NodeProto {
            name: name_for(&value, "values"),
            op_type: op_type.into(),
            input: inputs,
            output: vec![value],
            attribute: vec![AttributeProto {
                name: attribute.into(),
                r#type: AttributeType::Int as i32,
                i: number,
                ..AttributeProto::default()
            }],
            ..NodeProto::default()
        });
    }
    // Nodes come after those that they read from.
    nodes.append(&mut graph.node);
    graph.node = nodes;
    graph.initializer.append(&mut scale_tensors);
    Ok(model.encode_to_vec())
}

/// A tensor that is the weights of a product in f32.
fn found(graph: &GraphProto, readers: &Readers, left: &Left) -> Option<Found> {
    let tensor = &graph.initializer[left.initializer];
    let shape = shape_of(tensor).filter(|_| tensor.data_type == kind::F32)?;
    let weights = shape.iter().try_fold(1_usize, |count, &size| count.checked_mul(size))?;
    let (products, axis) = readers.products(&tensor.name, shape.len())?;
    if weights == 0 || weights as u64 * 4 != left.place.end - left.place.start {
        return None;
    }
    let product = products.first()?;
    // Names are optional, those of outputs are not.
    let name = if product.name.is_empty() { product.output.first()? } else { &product.name };
    Some(Found { layer: Layer { name: name.clone(), weights }, value: tensor.name.clone(), shape, axis })
}

/// The scale of each place along an axis, and all values in int8.
fn columns_in_int8(values: &[f32], shape: &[usize], axis: usize) -> (Vec<f32>, Vec<u8>) {
    let within: usize = shape[axis + 1..].iter().product();
    let columns = shape[axis];
    let mut bytes = vec![0; values.len()];
    let mut scales = Vec::with_capacity(columns);
    let mut in_int8 = vec![0; values.len() / columns];
    for column in 0..columns {
        let blocks = || (column * within..values.len()).step_by(columns * within);
        let places = || blocks().flat_map(|start| start..start + within);
        let of_column: Vec<f32> = places().map(|place| values[place]).collect();
        scales.push(quantise_weights(&of_column, &mut in_int8));
        places().zip(&in_int8).for_each(|(place, value)| bytes[place] = value.cast_unsigned());
    }
    (scales, bytes)
}

fn operators_of(model: &ModelProto) -> i64 {
    let own = model.opset_import.iter().find(|import| import.domain.is_empty() || import.domain == "ai.onnx");
    own.map_or(0, |import| import.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_along_the_axis_has_its_scale() {
        let values: Vec<f32> = (0..24).map(|value| value as f32 - 11.5).collect();
        for (axis, size) in [(0, 2), (1, 3), (2, 4)] {
            let (scales, bytes) = columns_in_int8(&values, &[2, 3, 4], axis);
            assert_eq!(scales.len(), size);
            let of_place = |place: usize| [place / 12, place / 4 % 3, place % 4][axis];
            for (place, (&value, byte)) in values.iter().zip(bytes).enumerate() {
                let scale = scales[of_place(place)];
                assert!((f32::from(byte.cast_signed()) * scale - value).abs() <= scale / 2.0, "{axis} {place}");
            }
        }
    }
}
