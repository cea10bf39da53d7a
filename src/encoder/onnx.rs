//! Declarations of an ONNX file, and its weights brought into one file.

use std::path::Path;

use prost::Message;
use tract_onnx::pb::tensor_proto::DataLocation;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as Size;
use tract_onnx::pb::type_proto::Value as Kind;
use tract_onnx::pb::{GraphProto, ModelProto, TensorProto, ValueInfoProto};

use super::error::{EncoderError, Result};
use crate::files::{FileError, inside, read_range};
use crate::limits::BUNDLE_FILE_BYTES_MAX;

/// A parsed ONNX file.
pub(crate) struct OnnxFile {
    model: ModelProto,
    /// True if the file's own bytes do not hold everything.
    changed: bool,
    bytes: Vec<u8>,
}

/// An input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OnnxValue {
    /// Name of the input or output.
    pub name: String,
    /// Sizes of the dimensions, `None` where they are free.
    pub shape: Vec<Option<usize>>,
}

impl OnnxFile {
    /// Parses the bytes of a file.
    ///
    /// # Errors
    /// They are no ONNX model.
    pub(crate) fn parse(bytes: Vec<u8>) -> Result<Self> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| EncoderError::Load { stage: "parsed", source };
        let model = ModelProto::decode(&bytes[..]).map_err(|error| failed(error.into()))?;
        if model.graph.is_none() {
            return Err(failed("it has no graph".into()));
        }
        Ok(Self { model, changed: false, bytes })
    }

    /// The inputs that are no weights.
    pub(crate) fn inputs(&self) -> Vec<OnnxValue> {
        let graph = self.graph();
        let is_weight = |name: &str| graph.initializer.iter().any(|tensor| tensor.name == name);
        // Before version 4 of ONNX's representation weights had to be listed as inputs, too.
        graph.input.iter().filter(|input| !is_weight(&input.name)).map(value_of).collect()
    }

    /// The outputs.
    pub(crate) fn outputs(&self) -> Vec<OnnxValue> {
        self.graph().output.iter().map(value_of).collect()
    }

    /// Brings weights that are stored beside the file, in `folder`, into it.
    ///
    /// # Errors
    /// A name leads out of the folder, the data is not there, or all of it is more than a bundle's file may hold.
    pub(crate) fn bring_in(&mut self, folder: &Path) -> Result<()> {
        let graph = self.model.graph.as_mut().expect("parse has seen a graph");
        let mut room = BUNDLE_FILE_BYTES_MAX;
        self.changed |= bring_in_graph(graph, folder, &mut room)?;
        Ok(())
    }

    /// The file's bytes: those it was parsed from, unless weights were brought in.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        // Encoded anew, the same model may have other bytes, and loses fields that prost does not know.
        if self.changed { self.model.encode_to_vec() } else { self.bytes }
    }

    fn graph(&self) -> &GraphProto {
        self.model.graph.as_ref().expect("parse has seen a graph")
    }
}

fn value_of(info: &ValueInfoProto) -> OnnxValue {
    let kind = info.r#type.as_ref().and_then(|kind| kind.value.as_ref());
    let shape = kind.and_then(|Kind::TensorType(tensor)| tensor.shape.as_ref());
    let size = |size: Option<&Size>| match size {
        Some(&Size::DimValue(size)) => usize::try_from(size).ok().filter(|&size| size > 0),
        _ => None,
    };
    let shape = shape.map_or(Vec::new(), |shape| shape.dim.iter().map(|dim| size(dim.value.as_ref())).collect());
    OnnxValue { name: info.name.clone(), shape }
}

/// True if anything was brought in.
fn bring_in_graph(graph: &mut GraphProto, folder: &Path, room: &mut u64) -> Result<bool> {
    let mut changed = false;
    for tensor in &mut graph.initializer {
        changed |= bring_in_tensor(tensor, folder, room)?;
    }
    // Constants hold tensors and `If` and `Loop` hold graphs. The depth is bounded: prost reads no message that is
    // nested more than 100 deep.
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        for tensor in attribute.t.iter_mut().chain(&mut attribute.tensors) {
            changed |= bring_in_tensor(tensor, folder, room)?;
        }
        for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
            changed |= bring_in_graph(graph, folder, room)?;
        }
    }
    Ok(changed)
}

fn bring_in_tensor(tensor: &mut TensorProto, folder: &Path, room: &mut u64) -> Result<bool> {
    if tensor.data_location != Some(DataLocation::External as i32) {
        return Ok(false);
    }
    let entry =
        |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
    let number = |key: &str| match entry(key).map(str::parse::<u64>) {
        None => Ok(None),
        // Checked before anything is read: the file itself gives this number.
        Some(Ok(number)) if number <= BUNDLE_FILE_BYTES_MAX => Ok(Some(number)),
        Some(_) => Err(EncoderError::Load {
            stage: "parsed",
            source: format!("the {key} of the external data of {:?} is {:?}", tensor.name, entry(key)).into(),
        }),
    };
    let path = inside(folder, entry("location").unwrap_or_default())?;
    let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
    // Many tensors may name one file, and each would hold its data.
    let data = read_range(&path, offset, length, *room)
        .map_err(|source| FileError::Unreadable { path: path.clone(), source })?;
    *room -= data.len() as u64;
    tensor.raw_data = data;
    tensor.data_location = None;
    tensor.external_data.clear();
    Ok(true)
}
