//! Small models, run with our operators and without.

use ndarray::{Array2, Array4};
use prost::Message;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension::Value as Size};
use tract_onnx::pb::type_proto::{Tensor as TensorType, Value as Kind};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto,
};

use super::Kernels;
use crate::encoder::prepared::PreparedStore;
use crate::encoder::{Encoder, EncoderModel, EncoderShape, Layers, ModelFile, Operators, StoredIn, stored_in};
use crate::kernels::{FloatKernel, IntKernel, quantise_weights};

/// A model that is put together node by node.
#[derive(Default)]
struct Graph {
    nodes: Vec<NodeProto>,
    weights: Vec<TensorProto>,
}

enum Attribute<'a> {
    Int(&'a str, i64),
    Ints(&'a str, &'a [i64]),
    Float(&'a str, f32),
}

use Attribute::{Float, Int, Ints};

impl Graph {
    /// Weights without order, of the size that keeps values near 1.
    fn weights(&mut self, name: &str, dims: &[i64], size: f32) -> String {
        let count = dims.iter().product::<i64>() as usize;
        let seed = name.bytes().fold(7_u32, |seed, byte| seed.wrapping_mul(31) + u32::from(byte));
        let float_data = crate::kernels::noise(seed, count).into_iter().map(|value| value * size).collect();
        self.weights.push(TensorProto {
            name: name.into(),
            data_type: 1,
            dims: dims.to_vec(),
            float_data,
            ..TensorProto::default()
        });
        name.into()
    }

    fn number(&mut self, name: &str, value: f32) -> String {
        let tensor = TensorProto { name: name.into(), data_type: 1, float_data: vec![value], ..TensorProto::default() };
        self.weights.push(tensor);
        name.into()
    }

    /// A constant whose values are all the same.
    fn equal(&mut self, name: &str, dims: &[i64], value: f32) -> String {
        let count = dims.iter().product::<i64>() as usize;
        let tensor = TensorProto {
            name: name.into(),
            data_type: 1,
            dims: dims.to_vec(),
            float_data: vec![value; count],
            ..TensorProto::default()
        };
        self.weights.push(tensor);
        name.into()
    }

    fn integers(&mut self, name: &str, values: &[i64]) -> String {
        let dims = vec![values.len() as i64];
        let tensor = TensorProto {
            name: name.into(),
            data_type: 7,
            dims,
            int64_data: values.to_vec(),
            ..TensorProto::default()
        };
        self.weights.push(tensor);
        name.into()
    }

    fn node(&mut self, op: &str, inputs: &[&str], attributes: &[Attribute]) -> String {
        let name = format!("{op}_{}", self.nodes.len());
        let attribute = attributes.iter().map(|attribute| match *attribute {
            Int(name, i) => {
                AttributeProto { name: name.into(), r#type: AttributeType::Int as i32, i, ..AttributeProto::default() }
            }
            Float(name, f) => AttributeProto {
                name: name.into(),
                r#type: AttributeType::Float as i32,
                f,
                ..AttributeProto::default()
            },
            Ints(name, ints) => AttributeProto {
                name: name.into(),
                r#type: AttributeType::Ints as i32,
                ints: ints.to_vec(),
                ..AttributeProto::default()
            },
        });
        self.nodes.push(NodeProto {
            op_type: op.into(),
            name: name.clone(),
            input: inputs.iter().map(|input| input.to_string()).collect(),
            output: vec![name.clone()],
            attribute: attribute.collect(),
            ..NodeProto::default()
        });
        name
    }

    /// The file of the model `[N, 3, side, side]` to `[N, width]`.
    fn into_model(mut self, side: i64, width: i64) -> EncoderModel {
        let value = |name: &str, sizes: &[i64]| {
            let free = Dimension { value: Some(Size::DimParam("n".into())), ..Dimension::default() };
            let sizes =
                sizes.iter().map(|&size| Dimension { value: Some(Size::DimValue(size)), ..Dimension::default() });
            let shape = Some(TensorShapeProto { dim: std::iter::once(free).chain(sizes).collect() });
            let kind =
                TypeProto { value: Some(Kind::TensorType(TensorType { elem_type: 1, shape })), ..TypeProto::default() };
            ValueInfoProto { name: name.into(), r#type: Some(kind), ..ValueInfoProto::default() }
        };
        let last = self.nodes.last_mut().unwrap();
        last.output = vec!["y".into()];
        let graph = GraphProto {
            name: "g".into(),
            node: self.nodes,
            initializer: self.weights,
            input: vec![value("x", &[3, side, side])],
            output: vec![value("y", &[width])],
            ..GraphProto::default()
        };
        let opset = OperatorSetIdProto { domain: String::new(), version: 17 };
        let model =
            ModelProto { ir_version: 8, opset_import: vec![opset], graph: Some(graph), ..ModelProto::default() };
        EncoderModel { onnx: model.encode_to_vec().into(), output: None, projection: None }
    }

    fn conv(&mut self, input: &str, sizes: [i64; 4], stride: i64, pads: [i64; 4]) -> String {
        let [columns, channels, high, wide] = sizes;
        let groups = if channels == 1 { columns } else { 1 };
        let name = format!("w{}", self.nodes.len());
        let size = 1.5 / ((channels * high * wide) as f32).sqrt();
        let weights = self.weights(&name, &sizes, size);
        let bias = self.weights(&format!("{name}.bias"), &[columns], 0.3);
        let attributes = [
            Ints("kernel_shape", &sizes[2..]),
            Ints("strides", &[stride, stride]),
            Ints("pads", &pads),
            Int("group", groups),
        ];
        self.node("Conv", &[input, &weights, &bias], &attributes)
    }

    fn linear(&mut self, input: &str, depth: i64, columns: i64) -> String {
        let name = format!("w{}", self.nodes.len());
        let weights = self.weights(&name, &[depth, columns], 1.5 / (depth as f32).sqrt());
        let bias = self.weights(&format!("{name}.bias"), &[columns], 0.3);
        let product = self.node("MatMul", &[input, &weights], &[]);
        self.node("Add", &[&product, &bias], &[])
    }

    fn norm(&mut self, input: &str, width: i64) -> String {
        let name = format!("n{}", self.nodes.len());
        let gain = self.weights(&name, &[width], 1.0);
        let bias = self.weights(&format!("{name}.bias"), &[width], 0.3);
        self.node("LayerNormalization", &[input, &gain, &bias], &[Int("axis", -1), Float("epsilon", 1e-5)])
    }
}

/// A convolutional network: all kinds of strides and paddings, residuals, clips, pools.
fn convolutions() -> EncoderModel {
    let mut graph = Graph::default();
    let (low, high) = (graph.number("low", 0.0), graph.number("high", 6.0));
    let stem = graph.conv("x", [20, 3, 3, 3], 2, [0, 0, 1, 1]);
    let stem = graph.node("Clip", &[&stem, &low, &high], &[]);
    let deep = graph.conv(&stem, [20, 1, 5, 5], 1, [2, 2, 2, 2]);
    let deep = graph.node("Clip", &[&deep, &low, &high], &[]);
    let point = graph.conv(&deep, [20, 20, 1, 1], 1, [0; 4]);
    let sum = graph.node("Add", &[&stem, &point], &[]);
    // Again with the same weights, as exporters write what is shared.
    let same = graph.node("Identity", &["w4"], &[]);
    let more = graph.node("Conv", &[&sum, &same], &[]);
    let sum = graph.node("Add", &[&sum, &more], &[]);
    let deep = graph.conv(&sum, [20, 1, 3, 3], 2, [1, 1, 1, 1]);
    let wide = graph.conv(&deep, [33, 20, 3, 3], 1, [1, 1, 1, 1]);
    let short = graph.conv(&sum, [33, 20, 1, 1], 2, [0; 4]);
    let sum = graph.node("Add", &[&wide, &short], &[]);
    let sum = graph.node("Relu", &[&sum], &[]);
    // Scales of layers as they are before training: equal, and yet two.
    let scale = graph.equal("scale", &[33, 1, 1], 0.5);
    let sum = graph.node("Mul", &[&sum, &scale], &[]);
    let wide = graph.conv(&sum, [33, 1, 3, 3], 1, [1, 1, 1, 1]);
    let scale = graph.equal("scale2", &[33, 1, 1], 0.5);
    let wide = graph.node("Mul", &[&scale, &wide], &[]);
    let sum = graph.node("Add", &[&sum, &wide], &[]);
    let pooled = graph.node("AveragePool", &[&sum], &[Ints("kernel_shape", &[2, 2]), Ints("strides", &[2, 2])]);
    let most = graph.node("MaxPool", &[&pooled], &[Ints("kernel_shape", &[2, 2]), Ints("strides", &[1, 1])]);
    let mean = graph.node("GlobalAveragePool", &[&most], &[]);
    let flat = graph.node("Flatten", &[&mean], &[]);
    graph.linear(&flat, 33, 12);
    graph.into_model(34, 12)
}

/// What lies between the two layers of a transformer's block.
#[derive(Clone, Copy, Debug)]
enum Between {
    QuickGelu,
    Gelu,
}

/// A vision transformer with queries, keys and values in one product, or in three.
fn transformer(between: Between, is_one_product: bool) -> EncoderModel {
    let mut graph = Graph::default();
    let (width, heads, tokens) = (48, 3, 9);
    let patches = graph.conv("x", [width, 3, 8, 8], 8, [0; 4]);
    let shape = graph.integers("rows", &[0, width, -1]);
    let rows = graph.node("Reshape", &[&patches, &shape], &[]);
    let rows = graph.node("Transpose", &[&rows], &[Ints("perm", &[0, 2, 1])]);
    let places = graph.weights("places", &[1, tokens, width], 0.5);
    let rows = graph.node("Add", &[&rows, &places], &[]);
    let normed = graph.norm(&rows, width);
    let (split, joined) =
        (graph.integers("split", &[0, 0, heads, width / heads]), graph.integers("joined", &[0, 0, width]));
    let head = |graph: &mut Graph, input: &str, perm: &[i64]| {
        let split = graph.node("Reshape", &[input, &split], &[]);
        graph.node("Transpose", &[&split], &[Ints("perm", perm)])
    };
    let parts: Vec<String> = if is_one_product {
        let all = graph.linear(&normed, width, 3 * width);
        let ends = [0, 1, 2, 3].map(|end| graph.integers(&format!("end{end}"), &[end * width]));
        let axis = graph.integers("axis", &[2]);
        (0..3).map(|part| graph.node("Slice", &[&all, &ends[part], &ends[part + 1], &axis], &[])).collect()
    } else {
        (0..3).map(|_| graph.linear(&normed, width, width)).collect()
    };
    let queries = head(&mut graph, &parts[0], &[0, 2, 1, 3]);
    let keys = head(&mut graph, &parts[1], &[0, 2, 3, 1]);
    let values = head(&mut graph, &parts[2], &[0, 2, 1, 3]);
    let scale = graph.number("scale", 0.25);
    let scores = graph.node("MatMul", &[&queries, &keys], &[]);
    let scores = graph.node("Mul", &[&scores, &scale], &[]);
    let shares = graph.node("Softmax", &[&scores], &[Int("axis", -1)]);
    let mixed = graph.node("MatMul", &[&shares, &values], &[]);
    let mixed = graph.node("Transpose", &[&mixed], &[Ints("perm", &[0, 2, 1, 3])]);
    let mixed = graph.node("Reshape", &[&mixed, &joined], &[]);
    let mixed = graph.linear(&mixed, width, width);
    let rows = graph.node("Add", &[&rows, &mixed], &[]);
    let normed = graph.norm(&rows, width);
    let inner = graph.linear(&normed, width, 4 * width);
    let inner = match between {
        Between::QuickGelu => {
            let slope = graph.number("slope", 1.702);
            let gate = graph.node("Mul", &[&inner, &slope], &[]);
            let gate = graph.node("Sigmoid", &[&gate], &[]);
            graph.node("Mul", &[&inner, &gate], &[])
        }
        Between::Gelu => {
            let (root, one, half) =
                (graph.number("root", 2.0_f32.sqrt()), graph.number("one", 1.0), graph.number("half", 0.5));
            let scaled = graph.node("Div", &[&inner, &root], &[]);
            let erf = graph.node("Erf", &[&scaled], &[]);
            let more = graph.node("Add", &[&erf, &one], &[]);
            let product = graph.node("Mul", &[&inner, &more], &[]);
            graph.node("Mul", &[&product, &half], &[])
        }
    };
    let outer = graph.linear(&inner, 4 * width, width);
    let rows = graph.node("Add", &[&rows, &outer], &[]);
    let mean = graph.node("ReduceMean", &[&rows], &[Ints("axes", &[1]), Int("keepdims", 0)]);
    graph.linear(&mean, width, 20);
    graph.into_model(24, 20)
}

const SIDES: [(&str, usize, usize); 2] = [("convolutions", 34, 12), ("transformer", 24, 20)];

fn views(count: usize, side: usize) -> Array4<f32> {
    let values = crate::kernels::noise(5, count * 3 * side * side);
    Array4::from_shape_vec((count, 3, side, side), values).unwrap()
}

fn features(
    model: &EncoderModel,
    shape: EncoderShape,
    batch: usize,
    operators: Operators,
) -> (Array2<f32>, Vec<String>) {
    let encoder = Encoder::load_with(model, shape, batch, operators, None).unwrap();
    (encoder.encode(views(5, shape.resolution).view()).unwrap(), encoder.operators())
}

fn all_models() -> Vec<(String, EncoderModel, EncoderShape)> {
    let shape = |place: usize| EncoderShape { resolution: SIDES[place].1, embedding: SIDES[place].2 };
    let mut models = vec![(SIDES[0].0.to_string(), convolutions(), shape(0))];
    for between in [Between::QuickGelu, Between::Gelu] {
        for is_one_product in [true, false] {
            let name = format!("{} {between:?} {is_one_product}", SIDES[1].0);
            models.push((name, transformer(between, is_one_product), shape(1)));
        }
    }
    models
}

#[test]
fn features_with_our_operators_are_those_of_the_engine() {
    for (name, model, shape) in all_models() {
        let (expected, _) = features(&model, shape, 1, Operators::Engine);
        for batch in [1, 2, 3] {
            for kernel in FloatKernel::available() {
                let (found, operators) = features(
                    &model,
                    shape,
                    batch,
                    Operators::Own(Kernels { float: kernel, int8: IntKernel::Portable }),
                );
                let difference = (&found - &expected).iter().fold(0.0_f32, |most, value| most.max(value.abs()));
                assert!(difference < 2e-6, "{name}, batch {batch}, {kernel:?}: {difference}");
                let left: Vec<&String> = operators
                    .iter()
                    .filter(|operator| {
                        ["EinSum", "Conv", "DepthWiseConv", "Softmax", "RmsNorm", "OptMatMul", "Sigmoid", "GeluExact"]
                            .contains(&operator.as_str())
                    })
                    .collect();
                assert!(left.is_empty(), "{name}, batch {batch}: the engine still does {left:?}");
            }
        }
    }
}

/// The model with all its products in int8.
fn in_int8(model: &EncoderModel) -> EncoderModel {
    let onnx = stored_in(&model.onnx, StoredIn::Int8, |_| true).unwrap().into();
    EncoderModel { onnx, ..model.clone() }
}

fn smallest_cosine(one: &Array2<f32>, other: &Array2<f32>) -> f32 {
    one.rows().into_iter().zip(other.rows()).map(|(one, other)| one.dot(&other)).fold(1.0, f32::min)
}

#[test]
fn bits_do_not_depend_on_the_batch_nor_on_the_kernel_of_int8() {
    let float = FloatKernel::best();
    for (name, model, shape) in all_models() {
        let whole = features(&model, shape, 1, Operators::Own(Kernels { float, int8: IntKernel::Portable })).0;
        let model = in_int8(&model);
        let expected = features(&model, shape, 1, Operators::Own(Kernels { float, int8: IntKernel::Portable })).0;
        for batch in [1, 2, 5] {
            for int8 in IntKernel::available() {
                let (found, operators) = features(&model, shape, batch, Operators::Own(Kernels { float, int8 }));
                assert!(found.mapv(f32::to_bits) == expected.mapv(f32::to_bits), "{name}, batch {batch}, {int8:?}");
                assert!(!operators.contains(&"RtptLinear".to_string()), "{name}: {operators:?}");
                assert!(operators.contains(&"RtptLinearInt8".to_string()), "{name}: {operators:?}");
            }
        }
        let cosine = smallest_cosine(&whole, &expected);
        assert!(cosine > 0.999 && whole != expected, "{name}: {cosine}");
    }
}

#[test]
fn weights_in_int8_and_f16_are_what_the_engine_reads_in_them() {
    for (name, model, shape) in all_models() {
        let (whole, _) = features(&model, shape, 1, Operators::Engine);
        for (stored, least) in [(StoredIn::Int8, 0.999), (StoredIn::F16, 0.999_999)] {
            let onnx = stored_in(&model.onnx, stored, |_| true).unwrap().into();
            let less = EncoderModel { onnx, ..model.clone() };
            // Without our operators: weights in int8, all else in f32.
            let (engine, _) = features(&less, shape, 1, Operators::Engine);
            assert!(smallest_cosine(&whole, &engine) > least && engine != whole, "{name}, {stored:?}");
            let own = Operators::Own(Kernels { float: FloatKernel::best(), int8: IntKernel::available()[0] });
            let (own, _) = features(&less, shape, 1, own);
            let cosine = smallest_cosine(&own, &engine);
            assert!(cosine > least, "{name}, {stored:?}: {cosine}");
        }
    }
}

#[test]
fn only_the_chosen_layers_are_stored_in_less() {
    let model = transformer(Between::Gelu, true);
    let names = |onnx: &ModelFile| {
        Layers::of(onnx).unwrap().in_f32.into_iter().map(|layer| layer.name).collect::<Vec<String>>()
    };
    let all = names(&model.onnx);
    assert_eq!(all.len(), 6, "the patches, queries to values, their mixture, two layers, the embedding: {all:?}");
    let kept = ModelFile::from(stored_in(&model.onnx, StoredIn::Int8, |name| name != all[2]).unwrap());
    assert_eq!(names(&kept), [all[2].clone()]);
    let none = ModelFile::from(stored_in(&model.onnx, StoredIn::Int8, |_| false).unwrap());
    assert_eq!(names(&none), all);
}

#[test]
fn weights_that_layers_share_are_stored_once() {
    let model = convolutions();
    let layers = Layers::of(&model.onnx).unwrap();
    let weights: Vec<usize> = layers.in_f32.iter().map(|layer| layer.weights).collect();
    assert_eq!(weights, [20 * 3 * 9, 20 * 20, 33 * 20 * 9, 33 * 20, 33 * 12], "the depthwise ones stay as they are");
    let layers = Layers::of(&in_int8(&model).onnx).unwrap();
    assert_eq!((layers.in_f32.len(), layers.in_f16, layers.in_int8), (0, 0, 5));
}

#[test]
fn integers_come_back_from_a_file_as_they_were() {
    // What the loading makes of the file are the integers in the file, so that packing them again loses nothing.
    let values: Vec<f32> = crate::kernels::noise(3, 700);
    let (mut integers, mut again) = ([0; 700], [0; 700]);
    let scale = quantise_weights(&values, &mut integers);
    let back: Vec<f32> = integers.iter().map(|&value| f32::from(value) * scale).collect();
    quantise_weights(&back, &mut again);
    assert_eq!(again, integers);
}

#[test]
fn kernels_of_f32_agree_on_products_in_int8() {
    // A last bit before a product may turn into another integer, and that into more than a last bit.
    for (name, model, shape) in all_models() {
        let model = in_int8(&model);
        let with = |float| features(&model, shape, 1, Operators::Own(Kernels { float, int8: IntKernel::Portable })).0;
        let expected = with(FloatKernel::best());
        for float in FloatKernel::available() {
            let difference = (&with(float) - &expected).iter().fold(0.0_f32, |most, value| most.max(value.abs()));
            assert!(difference < 1e-4, "{name}, {float:?}: {difference}");
        }
    }
}

#[test]
fn a_second_start_has_the_packed_weights_of_the_first() {
    for (name, model, shape) in all_models() {
        for model in [in_int8(&model), model] {
            let folder = tempfile::tempdir().unwrap();
            let store = PreparedStore::new(folder.path(), &blake3::hash(name.as_bytes()), 1);
            let load = || {
                let own = Kernels { float: FloatKernel::best(), int8: IntKernel::available()[0] };
                Encoder::load_with(&model, shape, 1, Operators::Own(own), Some(&store)).unwrap()
            };
            let views = views(2, shape.resolution);
            let (first, second) = (load(), load());
            assert!(!first.is_prepared() && second.is_prepared(), "{name}");
            let features = second.encode(views.view()).unwrap();
            assert_eq!(features, first.encode(views.view()).unwrap(), "{name}");
            // Another mode, or its removal by `rtpt cache clear`, is no change of what is mapped.
            let other = load();
            std::fs::remove_dir_all(folder.path()).unwrap();
            assert_eq!(other.encode(views.view()).unwrap(), features, "{name}: removed");
            assert!(!load().is_prepared(), "{name}: stored anew");
            let second = load();
            // Written over while it is in use, as no program of ours does.
            let (path, written) = {
                let entry = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap();
                (entry.path(), std::fs::read(entry.path()).unwrap())
            };
            let mut other = written.clone();
            *other.last_mut().unwrap() ^= 1;
            std::fs::write(&path, &other).unwrap();
            let error = second.encode(views.view()).unwrap_err().to_string();
            assert!(error.contains("another program wrote into it"), "{error}");
            assert_eq!(load().encode(views.view()).unwrap(), features, "{name}: it is packed again");
            assert!(load().is_prepared() && std::fs::read(&path).unwrap() == written, "{name}: and stored again");
        }
    }
}
