//! Bounds on the memory that a model asks for, looked at before any of it is taken.
//!
//! A small ONNX file can ask for any amount: a constant of a given shape, a padding, one factor that is broadcast to another. The engine
//! computes what is constant while it loads a model.

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::DimLike;
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_hir::infer::{Factoid, InferenceFact};

use super::error::{EncoderError, Result};
use super::weights::Weights;
use crate::limits::{ENCODER_RUN_BYTES_MAX, ENCODER_TENSOR_BYTES_MAX, INFERENCE_PASSES_MAX};

/// Operators that hold graphs.
const CONTROL_FLOW: [&str; 3] = ["If", "Loop", "Scan"];
/// Operators whose outputs have a size that depends on the values, but is within a small multiple of the inputs'.
const NEVER_LARGER: [&str; 2] = ["Compress", "NonZero"];

/// Infers the shapes of a model with a batch of `batch`, node by node, and looks at what a node will make before it is made.
///
/// # Errors
/// A tensor would be too large, or the shapes contradict one another.
pub(super) fn infer_within_bounds(model: &mut InferenceModel, batch: usize) -> Result<()> {
    // What later nodes tell about earlier ones needs further passes, until nothing is new.
    for _ in 0..INFERENCE_PASSES_MAX {
        let mut changed = false;
        for node in 0..model.nodes().len() {
            changed |= infer_node(model, node, batch)?;
        }
        if !changed {
            return Ok(());
        }
    }
    let what = format!("its shapes are still open after {INFERENCE_PASSES_MAX} passes");
    Err(EncoderError::Load { stage: "given its input shape", source: what.into() })
}

/// Infers what one node tells of its inputs and outputs; true if anything of it is new.
fn infer_node(model: &mut InferenceModel, id: usize, batch: usize) -> Result<bool> {
    let node = model.node(id);
    let name = node.name.clone();
    let failed = |source: TractError| EncoderError::Load {
        stage: "given its input shape",
        source: format!("node {name:?}: {source:#}").into(),
    };
    let observed = node.op.observe_outlets(model, node).map_err(failed)?;
    let outputs = (0..node.outputs.len()).map(|slot| OutletId::new(id, slot));
    let outlets: [TVec<OutletId>; 3] = [node.inputs.iter().copied().collect(), outputs.collect(), observed.into()];
    let known = |outlets: &TVec<OutletId>| -> TractResult<TVec<InferenceFact>> {
        outlets.iter().map(|&outlet| model.outlet_fact(outlet).cloned()).collect()
    };
    let [inputs, outputs, observed] = &outlets;
    let facts = [known(inputs), known(outputs), known(observed)].map(|facts| facts.map_err(failed));
    let [inputs, outputs, observed] = facts;
    let (inputs, outputs, observed) = (inputs?, outputs?, observed?);
    let unbounded =
        |operator: &str, why| EncoderError::Unbounded { node: name.clone(), operator: operator.into(), why };
    let op = &mut model.node_mut(id).op;
    let operator = op.name();
    if CONTROL_FLOW.contains(&&*operator) {
        // What is constant in it is computed at once, also where the outer shapes are asked for.
        return Err(unbounded(&operator, "which holds a graph of its own"));
    }
    // First the shapes alone. Then `infer` computes the values, too, where those of all inputs are known.
    let shapes =
        op.infer_facts(inputs.iter().collect(), outputs.iter().collect(), observed.iter().collect()).map_err(failed)?;
    shapes.1.iter().try_for_each(|output| check_fact(&name, output, batch))?;
    let of_constants = !shapes.0.is_empty() && shapes.0.iter().all(|input| input.value.is_concrete());
    let open = shapes.1.iter().any(|output| sizes_of(output).is_none());
    if of_constants && open && !NEVER_LARGER.contains(&&*operator) {
        return Err(unbounded(&operator, "of constants, and how much that makes is not known before it is made"));
    }
    let inferred =
        op.infer(inputs.iter().collect(), outputs.iter().collect(), observed.iter().collect()).map_err(failed)?;
    let mut changed = false;
    for (outlets, facts) in outlets.iter().zip([inferred.0, inferred.1, inferred.2]) {
        for (&outlet, fact) in outlets.iter().zip(&facts) {
            let old = model.outlet_fact(outlet).map_err(failed)?;
            let new = fact.unify(old).map_err(failed)?;
            if new != *old {
                model.set_outlet_fact(outlet, new).map_err(failed)?;
                changed = true;
            }
        }
    }
    Ok(changed)
}

fn check_fact(node: &str, fact: &InferenceFact, batch: usize) -> Result<()> {
    let Some(kind) = fact.datum_type.concretize() else { return Ok(()) };
    // A size that is no number is unknown yet, or negative, or too large for one: the engine refuses these by itself.
    let Some(sizes) = sizes_of(fact) else { return Ok(()) };
    check_tensor(node, &sizes, kind, batch)
}

/// The shape, where all of it is known and is numbers.
fn sizes_of(fact: &InferenceFact) -> Option<Vec<usize>> {
    fact.shape.concretize()?.iter().map(|size| size.to_usize().ok()).collect()
}

/// Checks every tensor of a typed model, and what a run holds at once.
///
/// # Errors
/// A tensor, or all that a run holds, would be too large.
pub(super) fn check_model(model: &TypedModel, batch: usize) -> Result<()> {
    let failed = |source: TractError| EncoderError::Load { stage: "read", source: source.into() };
    let order = model.eval_order().map_err(failed)?;
    // Position in the order of the last node that reads each node's outputs.
    let mut last_use = vec![0; model.nodes().len()];
    for (position, &node) in order.iter().enumerate() {
        last_use[node] = last_use[node].max(position);
        model.node(node).inputs.iter().for_each(|input| last_use[input.node] = position);
    }
    let mut ending = vec![0_u64; order.len()];
    let mut held = 0_u64;
    for (position, &id) in order.iter().enumerate() {
        let node = model.node(id);
        let mut bytes = 0_u64;
        for output in &node.outputs {
            if let Some(sizes) = output.fact.shape.as_concrete() {
                check_tensor(&node.name, sizes, output.fact.datum_type, batch)?;
                bytes = bytes.saturating_add(tensor_bytes(sizes, output.fact.datum_type));
            }
        }
        // Weights are there once, whatever runs.
        if !node.op_is::<Const>() && !node.op_is::<Weights>() {
            held = held.saturating_add(bytes);
            ending[last_use[id]] = ending[last_use[id]].saturating_add(bytes);
        }
        check_bytes(&node.name, held, ENCODER_RUN_BYTES_MAX, batch)?;
        held -= ending[position];
    }
    Ok(())
}

fn check_tensor(node: &str, sizes: &[usize], kind: DatumType, batch: usize) -> Result<()> {
    check_bytes(node, tensor_bytes(sizes, kind), ENCODER_TENSOR_BYTES_MAX, batch)
}

fn tensor_bytes(sizes: &[usize], kind: DatumType) -> u64 {
    sizes.iter().fold(kind.size_of() as u64, |bytes, &size| bytes.saturating_mul(size as u64))
}

fn check_bytes(node: &str, found: u64, a_view: u64, batch: usize) -> Result<()> {
    let limit = a_view.saturating_mul(batch as u64);
    if found > limit {
        return Err(EncoderError::Memory { node: node.into(), found, limit });
    }
    Ok(())
}

// The models are made of the messages that the importer reads.
#[cfg(all(test, feature = "cli"))]
mod tests {
    use prost::Message;
    use tract_onnx::pb::attribute_proto::AttributeType;
    use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension::Value as Size};
    use tract_onnx::pb::type_proto::{Tensor as TensorType, Value as Kind};
    use tract_onnx::pb::{
        AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
        TypeProto, ValueInfoProto,
    };

    use crate::encoder::{Encoder, EncoderError, EncoderModel, EncoderShape};

    fn value(name: &str, sizes: &[i64]) -> ValueInfoProto {
        let dim = sizes.iter().map(|&size| Dimension { value: Some(Size::DimValue(size)), ..Dimension::default() });
        let shape = Some(TensorShapeProto { dim: dim.collect() });
        let tensor = Kind::TensorType(TensorType { elem_type: 1, shape });
        let kind = TypeProto { value: Some(tensor), ..TypeProto::default() };
        ValueInfoProto { name: name.into(), r#type: Some(kind), ..ValueInfoProto::default() }
    }

    fn node(op: &str, inputs: &[&str], output: &str, attributes: &[(&str, i64)]) -> NodeProto {
        let attribute = attributes.iter().map(|&(name, number)| AttributeProto {
            name: name.into(),
            r#type: AttributeType::Int as i32,
            i: number,
            ..AttributeProto::default()
        });
        NodeProto {
            op_type: op.into(),
            name: output.into(),
            input: inputs.iter().map(|name| name.to_string()).collect(),
            output: vec![output.into()],
            attribute: attribute.collect(),
            ..NodeProto::default()
        }
    }

    fn numbers(name: &str, values: &[i64], scalar: bool) -> TensorProto {
        let dims = if scalar { Vec::new() } else { vec![values.len() as i64] };
        TensorProto { name: name.into(), data_type: 7, dims, int64_data: values.to_vec(), ..TensorProto::default() }
    }

    /// An encoder `[1, 3, 8, 8]` to `[1, 192]` beside which `nodes` make `big`, whose sum is added.
    fn load(nodes: Vec<NodeProto>, initializer: Vec<TensorProto>) -> Result<Encoder, EncoderError> {
        let mut all = vec![node("Flatten", &["x"], "flat", &[])];
        all.extend(nodes);
        all.push(node("ReduceMax", &["big"], "sum", &[("keepdims", 0)]));
        all.push(node("Add", &["flat", "sum"], "y", &[]));
        let graph = GraphProto {
            name: "g".into(),
            node: all,
            initializer,
            input: vec![value("x", &[1, 3, 8, 8])],
            output: vec![value("y", &[1, 192])],
            ..GraphProto::default()
        };
        let opset = OperatorSetIdProto { domain: String::new(), version: 13 };
        let model =
            ModelProto { ir_version: 8, opset_import: vec![opset], graph: Some(graph), ..ModelProto::default() };
        let model = EncoderModel { onnx: model.encode_to_vec().into(), output: None, projection: None };
        Encoder::load(&model, EncoderShape { resolution: 8, embedding: 192 }, 1)
    }

    #[test]
    fn what_would_take_gigabytes_is_refused_before_it_is_made() {
        // 7 GiB of f32 each.
        let huge = 7 << 28;
        let cast = |from: &str| node("Cast", &[from], "big", &[("to", 1)]);
        type Case = (&'static str, Vec<NodeProto>, Vec<TensorProto>);
        let cases: [Case; 6] = [
            (
                "a constant of a shape",
                vec![node("ConstantOfShape", &["shape"], "big", &[])],
                vec![numbers("shape", &[huge], false)],
            ),
            (
                "a tensor repeated",
                vec![node("Expand", &["flat", "shape"], "big", &[])],
                vec![numbers("shape", &[huge / 192, 192], false)],
            ),
            (
                "a constant repeated",
                vec![node("Expand", &["one", "shape"], "wide", &[]), cast("wide")],
                vec![numbers("one", &[1], false), numbers("shape", &[huge], false)],
            ),
            (
                "tiles",
                vec![node("Tile", &["flat", "times"], "big", &[])],
                vec![numbers("times", &[huge / 192, 1], false)],
            ),
            (
                "a range",
                vec![node("Range", &["from", "to", "by"], "wide", &[]), cast("wide")],
                vec![numbers("from", &[0], true), numbers("to", &[huge], true), numbers("by", &[1], true)],
            ),
            (
                "a column times a row",
                vec![
                    node("ConstantOfShape", &["column"], "a", &[]),
                    node("ConstantOfShape", &["row"], "b", &[]),
                    node("Add", &["a", "b"], "big", &[]),
                ],
                vec![numbers("column", &[1 << 16, 1], false), numbers("row", &[1, huge >> 16], false)],
            ),
        ];
        for (what, nodes, tensors) in cases {
            match load(nodes, tensors) {
                Err(EncoderError::Memory { found, limit, .. }) => {
                    assert!(found >= 7_000_000_000 && limit == 512 << 20, "{what}: {found} over {limit}")
                }
                Err(error) => panic!("{what}: {error}"),
                Ok(_) => panic!("{what} was loaded"),
            }
        }
        // Each test is a process of its own: this is what the whole of it took.
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kilobytes < 2 << 20, "{kilobytes} kB");
    }

    /// A graph that makes `big` of nothing but `tensors`.
    fn branch(nodes: Vec<NodeProto>, initializer: Vec<TensorProto>) -> AttributeProto {
        let graph = GraphProto {
            name: "branch".into(),
            node: nodes,
            initializer,
            output: vec![value("inner", &[])],
            ..GraphProto::default()
        };
        AttributeProto { r#type: AttributeType::Graph as i32, g: Some(graph), ..AttributeProto::default() }
    }

    #[test]
    fn what_cannot_be_bounded_is_refused_before_it_is_made() {
        // 7 GiB in a branch; boxes that are as many as a number says.
        let huge = 7 << 28;
        let mut choice = node("If", &["condition"], "big", &[]);
        for (name, size) in [("then_branch", huge), ("else_branch", 1)] {
            let nodes = vec![
                node("ConstantOfShape", &["size"], "made", &[]),
                node("ReduceMax", &["made"], "inner", &[("keepdims", 0)]),
            ];
            choice
                .attribute
                .push(AttributeProto { name: name.into(), ..branch(nodes, vec![numbers("size", &[size], false)]) });
        }
        let condition =
            TensorProto { name: "condition".into(), data_type: 9, int32_data: vec![1], ..TensorProto::default() };
        let floats = |name: &str, dims: &[i64]| TensorProto {
            name: name.into(),
            data_type: 1,
            dims: dims.to_vec(),
            float_data: vec![0.5; dims.iter().product::<i64>() as usize],
            ..TensorProto::default()
        };
        let boxes = vec![
            node("NonMaxSuppression", &["boxes", "scores", "most"], "kept", &[]),
            node("Cast", &["kept"], "big", &[("to", 1)]),
        ];
        let tensors = vec![floats("boxes", &[1, 4, 4]), floats("scores", &[1, 1, 4]), numbers("most", &[4], false)];
        for (operator, nodes, tensors) in [("If", vec![choice], vec![condition]), ("NonMaxSuppression", boxes, tensors)]
        {
            match load(nodes, tensors) {
                Err(EncoderError::Unbounded { operator: found, .. }) => assert_eq!(found, operator),
                other => panic!("{operator}: {:?}", other.err()),
            }
        }
    }

    #[test]
    fn what_depends_on_values_but_is_small_is_loaded() {
        let nodes = vec![node("NonZero", &["values"], "places", &[]), node("Cast", &["places"], "big", &[("to", 1)])];
        load(nodes, vec![numbers("values", &[0, 3, 0, 5], false)]).unwrap();
    }

    #[test]
    fn many_tensors_that_are_held_at_once_are_refused() {
        // Each is within the bound for one, and all are needed at the end.
        let mut nodes = vec![node("ReduceMax", &["x"], "one", &[("keepdims", 1)])];
        let mut shapes = vec![numbers("shape", &[1, 1, 10_000, 10_000], false)];
        shapes.push(numbers("unused", &[1], false));
        nodes.push(node("Expand", &["one", "shape"], "p0", &[]));
        for number in 1..4 {
            nodes.push(node("Exp", &[&format!("p{}", number - 1)], &format!("p{number}"), &[]));
        }
        nodes.push(node("Sum", &["p0", "p1", "p2", "p3"], "big", &[]));
        match load(nodes, shapes) {
            Err(EncoderError::Memory { found, limit, .. }) => assert!(found > limit && limit == 1 << 30, "{found}"),
            other => panic!("{:?}", other.err()),
        }
    }

    #[test]
    fn what_is_within_the_bounds_is_loaded() {
        let nodes =
            vec![node("ConstantOfShape", &["shape"], "zeros", &[]), node("Cast", &["zeros"], "big", &[("to", 1)])];
        load(nodes, vec![numbers("shape", &[1 << 20], false)]).unwrap();
    }
}
