//! An ONNX file of which the weights are left where they are until something needs them.
//!
//! A model is mostly weights, and each of them is used once, when it is packed for a kernel. So the file's structure is read without them:
//! what stands for a tensor's values is their place in the file.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};
use tract_onnx::pb::{GraphProto, ModelProto, TensorProto};

use super::error::{EncoderError, Result};
use crate::cause::Cause;
use crate::files::SteadyFile;

/// Data of a tensor that are worth being left in the file (bytes).
const LEFT_BYTES_MIN: u64 = 64;

/// Numbers of fields in `onnx.proto`.
mod field {
    pub(super) const MODEL_GRAPH: u32 = 7;
    pub(super) const GRAPH_INITIALIZER: u32 = 5;
    pub(super) const TENSOR_FLOATS: u32 = 4;
    pub(super) const TENSOR_RAW: u32 = 9;
}

/// The bytes of an ONNX file: held, or read from an open file when they are needed.
#[derive(Clone)]
pub struct ModelFile(Content);

#[derive(Clone)]
enum Content {
    Held(Arc<Vec<u8>>),
    Open(Arc<SteadyFile>),
}

impl From<Vec<u8>> for ModelFile {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Content::Held(Arc::new(bytes)))
    }
}

impl From<SteadyFile> for ModelFile {
    fn from(file: SteadyFile) -> Self {
        Self(Content::Open(Arc::new(file)))
    }
}

impl fmt::Debug for ModelFile {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "ModelFile({} bytes)", self.size())
    }
}

impl ModelFile {
    fn size(&self) -> u64 {
        match &self.0 {
            Content::Held(bytes) => bytes.len() as u64,
            Content::Open(file) => file.size(),
        }
    }

    /// Some of the bytes.
    ///
    /// # Errors
    /// They are not within the file, or it cannot be read, or was changed since it was opened.
    pub(super) fn read(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        let length = range.end.saturating_sub(range.start) as usize;
        match &self.0 {
            Content::Held(bytes) => {
                let found = bytes.get(range.start as usize..range.end as usize);
                found.map(Cow::Borrowed).ok_or_else(|| malformed("a field ends behind the file"))
            }
            Content::Open(file) => file.read_at(range.start, length).map(Cow::Owned).map_err(malformed),
        }
    }

    /// The whole file.
    ///
    /// # Errors
    /// As of [`Self::read`].
    #[cfg(feature = "cli")]
    pub(crate) fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        self.read(0..self.size())
    }

    /// The model without the data of its larger tensors.
    ///
    /// # Errors
    /// It is no ONNX model, or the file cannot be read.
    pub(super) fn skeleton(&self) -> Result<Skeleton> {
        let mut rest = Vec::new();
        let mut graphs = Vec::new();
        self.fields(0..self.size(), |number, whole, payload| {
            if let (field::MODEL_GRAPH, Some(payload)) = (number, payload) {
                graphs.push(payload);
            } else {
                rest.extend_from_slice(&self.read(whole)?);
            }
            Ok(())
        })?;
        let mut model = ModelProto::decode(&rest[..]).map_err(malformed)?;
        let mut left = Vec::new();
        if !graphs.is_empty() {
            let mut graph = GraphProto::default();
            for range in graphs {
                self.graph(range, &mut graph, &mut left)?;
            }
            model.graph = Some(graph);
        }
        Ok(Skeleton { model, left })
    }

    fn graph(&self, range: Range<u64>, graph: &mut GraphProto, left: &mut Vec<Left>) -> Result<()> {
        let mut rest = Vec::new();
        self.fields(range, |number, whole, payload| {
            if let (field::GRAPH_INITIALIZER, Some(payload)) = (number, payload) {
                let (tensor, data) = self.tensor(payload)?;
                left.extend(data.map(|data| Left { initializer: graph.initializer.len(), ..data }));
                graph.initializer.push(tensor);
            } else {
                rest.extend_from_slice(&self.read(whole)?);
            }
            Ok(())
        })?;
        graph.merge(&rest[..]).map_err(malformed)
    }

    /// A tensor, and where its data are if they are left out of it.
    fn tensor(&self, range: Range<u64>) -> Result<(TensorProto, Option<Left>)> {
        let mut data: Vec<(u32, Range<u64>)> = Vec::new();
        let mut rest = Vec::new();
        self.fields(range.clone(), |number, whole, payload| {
            match payload {
                Some(payload) if matches!(number, field::TENSOR_RAW | field::TENSOR_FLOATS) => {
                    data.push((number, payload));
                }
                _ => rest.extend_from_slice(&self.read(whole)?),
            }
            Ok(())
        })?;
        // Packed floats are the same bytes as raw ones. Where there is anything else beside them, it is not for us to say what counts.
        if let [(_, payload)] = &data[..]
            && payload.end - payload.start >= LEFT_BYTES_MIN
        {
            let tensor = TensorProto::decode(&rest[..]).map_err(malformed)?;
            if tensor.data_location.unwrap_or(0) == 0 && tensor.float_data.is_empty() {
                return Ok((tensor, Some(Left { initializer: 0, place: payload.clone() })));
            }
        }
        let whole = self.read(range)?;
        Ok((TensorProto::decode(&whole[..]).map_err(malformed)?, None))
    }

    /// Goes through the fields of a message: number, place of the whole field, and of its content where that has a length of its own.
    fn fields(
        &self,
        range: Range<u64>,
        mut visit: impl FnMut(u32, Range<u64>, Option<Range<u64>>) -> Result<()>,
    ) -> Result<()> {
        // A key and a length are varints, of 10 bytes at most each.
        const HEAD: u64 = 20;
        let mut at = range.start;
        while at < range.end {
            let window = self.read(at..range.end.min(at + HEAD))?;
            let mut head = &window[..];
            let (number, wire) = decode_key(&mut head).map_err(malformed)?;
            let after_key = at + (window.len() - head.len()) as u64;
            let (payload, end) = match wire {
                WireType::Varint => {
                    decode_varint(&mut head).map_err(malformed)?;
                    (None, at + (window.len() - head.len()) as u64)
                }
                WireType::SixtyFourBit => (None, after_key + 8),
                WireType::ThirtyTwoBit => (None, after_key + 4),
                WireType::LengthDelimited => {
                    let length = decode_varint(&mut head).map_err(malformed)?;
                    let start = at + (window.len() - head.len()) as u64;
                    let end = start.checked_add(length).ok_or_else(|| malformed("a length is too large"))?;
                    (Some(start..end), end)
                }
                WireType::StartGroup | WireType::EndGroup => {
                    return Err(malformed("it has a group, which ONNX has not"));
                }
            };
            if end > range.end {
                return Err(malformed("a field ends behind its message"));
            }
            visit(number, at..end, payload)?;
            at = end;
        }
        Ok(())
    }
}

/// A model without the data of its larger tensors.
pub(super) struct Skeleton {
    /// The model. Tensors whose data are left in the file have none.
    pub model: ModelProto,
    /// Where these data are.
    pub left: Vec<Left>,
}

/// Data left in the file.
#[derive(Clone, Debug)]
pub(super) struct Left {
    /// Index of the tensor among the graph's initializers.
    pub initializer: usize,
    /// Place of its values in the file, little-endian.
    pub place: Range<u64>,
}

pub(super) fn malformed(source: impl Into<Cause>) -> EncoderError {
    EncoderError::Load { stage: "parsed", source: source.into() }
}

// The models are made of the messages that the importer reads.
#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> ModelProto {
        let tensor = |name: &str, count: usize| TensorProto {
            name: name.into(),
            data_type: 1,
            dims: vec![count as i64],
            float_data: (0..count).map(|value| value as f32).collect(),
            ..TensorProto::default()
        };
        let raw = TensorProto {
            name: "raw".into(),
            data_type: 3,
            dims: vec![2000],
            raw_data: (0..2000).map(|value| value as u8).collect(),
            ..TensorProto::default()
        };
        let graph = GraphProto {
            name: "g".into(),
            initializer: vec![tensor("small", 4), tensor("large", 500), raw],
            ..GraphProto::default()
        };
        ModelProto { ir_version: 8, producer_name: "x".repeat(300), graph: Some(graph), ..ModelProto::default() }
    }

    fn on_disk(bytes: &[u8]) -> (tempfile::NamedTempFile, ModelFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let open = SteadyFile::open(file.path()).unwrap().into();
        (file, open)
    }

    #[test]
    fn a_skeleton_and_what_is_left_are_the_model() {
        let whole = model();
        let bytes = whole.encode_to_vec();
        let (_kept, open) = on_disk(&bytes);
        for file in [ModelFile::from(bytes.clone()), open] {
            let Skeleton { model: mut found, left } = file.skeleton().unwrap();
            let names: Vec<usize> = left.iter().map(|left| left.initializer).collect();
            assert_eq!(names, [1, 2], "the small one is not worth it");
            let graph = found.graph.as_mut().unwrap();
            for Left { initializer, place } in left {
                let data = file.read(place).unwrap();
                let tensor = &mut graph.initializer[initializer];
                assert!(tensor.float_data.is_empty() && tensor.raw_data.is_empty());
                if tensor.data_type == 1 {
                    tensor.float_data =
                        data.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
                } else {
                    tensor.raw_data = data.into_owned();
                }
            }
            assert!(found == whole);
        }
    }

    #[test]
    fn every_cut_file_is_refused_or_is_another_model() {
        let whole = model();
        let bytes = whole.encode_to_vec();
        for length in 0..bytes.len() {
            let cut = ModelFile::from(bytes[..length].to_vec());
            match cut.skeleton() {
                Err(error) => assert!(matches!(error, EncoderError::Load { stage: "parsed", .. }), "{error}"),
                // A message may end between two of its fields.
                Ok(skeleton) => assert!(ModelProto::decode(&bytes[..length]).is_ok() && skeleton.model.graph.is_none()),
            }
        }
    }

    #[test]
    fn what_is_no_field_is_refused() {
        let long: &[u8] = &[0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        let cases: [&[u8]; 5] = [b"not a model at all", &[0x3b], &[0x3a, 0x7f], long, &[0x08]];
        for bytes in cases {
            assert!(ModelFile::from(bytes.to_vec()).skeleton().is_err(), "{bytes:?}");
        }
    }
}
