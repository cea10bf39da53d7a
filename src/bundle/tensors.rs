//! Tensors out of the bundle's safetensors files, with their types, shapes and values checked.

use std::collections::HashMap;

use half::f16;
use ndarray::{Array2, ArrayD, Ix2, IxDyn};
use safetensors::{Dtype, SafeTensors};

use super::error::Result;
use crate::limits::{CLASSES_MAX, LABEL_BYTES_MAX};
use crate::rows::length;
use crate::text::TensorError;
use crate::views::Pixels;

/// One parsed tensor file; `name` is used in errors.
pub(crate) struct TensorFile<'a> {
    name: &'a str,
    tensors: SafeTensors<'a>,
    metadata: HashMap<String, String>,
}

/// All class embeddings of a bundle.
#[derive(Clone, Debug)]
pub(crate) struct ClassTable {
    /// Class names `[C]`, all different.
    pub names: Vec<String>,
    /// T `[C, D]`, unit rows.
    pub embeddings: Array2<f32>,
}

/// Names of the golden features and logits.
pub(crate) const GOLDEN_NAMES: [&str; 2] = ["features", "logits"];
/// Names of those of an encoder with weights in int8 where its products are computed in f32.
pub(crate) const GOLDEN_NAMES_IN_F32: [&str; 2] = ["features_f32", "logits_f32"];

/// The expected results of one image.
#[derive(Clone, Debug)]
pub(crate) struct Goldens {
    /// The image.
    pub image: Pixels,
    /// Clean view `[3, R, R]`.
    pub view: ArrayD<f32>,
    /// Results of the image encoder.
    pub encoded: GoldenFeatures,
    /// The same of an encoder with weights in int8 where its products are computed in f32, as the engine does; others have none.
    pub encoded_in_f32: Option<GoldenFeatures>,
    /// Results of the text tower for some texts, if there is one.
    pub texts: Option<GoldenTexts>,
}

/// The expected results of an image encoder.
#[derive(Clone, Debug)]
pub(crate) struct GoldenFeatures {
    /// Features `[1, D]`, a unit row.
    pub features: ArrayD<f32>,
    /// Logits `[1, C]` for the default labels, if there are any.
    pub logits: Option<ArrayD<f32>>,
}

/// The expected results of some texts.
#[derive(Clone, Debug)]
pub(crate) struct GoldenTexts {
    /// The texts `[N]`, whole prompts.
    pub texts: Vec<String>,
    /// Their tokens, start and end included.
    pub tokens: Vec<Vec<i64>>,
    /// Their features `[N, D]`, unit rows.
    pub features: ArrayD<f32>,
}

impl<'a> TensorFile<'a> {
    /// Parses the header of `bytes`.
    pub(crate) fn parse(name: &'a str, bytes: &'a [u8]) -> Result<Self> {
        let malformed = |error: safetensors::SafeTensorError| TensorError {
            file: name.into(),
            what: "the content".into(),
            expected: "the safetensors format".into(),
            found: error.to_string(),
        };
        let tensors = SafeTensors::deserialize(bytes).map_err(malformed)?;
        // Read a second time, because `SafeTensors` does not hand out the metadata.
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(malformed)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        Ok(Self { name, tensors, metadata })
    }

    /// The classes: `embeddings` `[C, D]` with `names` in the metadata.
    pub(crate) fn classes(&self, embedding: usize) -> Result<ClassTable> {
        let names = self.class_names()?;
        let values = self.floats("embeddings", &[names.len(), embedding])?;
        let mut embeddings = values.into_dimensionality::<Ix2>().expect("the shape was just checked to have two axes");
        for (mut row, name) in embeddings.rows_mut().into_iter().zip(&names) {
            let norm = length(row.view());
            // Rounding, even to half precision, stays below. A larger difference means rows of another kind.
            let has_unit_length = (norm - 1.0).abs() < 1e-3;
            if !has_unit_length {
                return Err(self.wrong(&format!("the embedding of {name:?}"), "a row of length 1", norm).into());
            }
            row.mapv_inplace(|value| value / norm);
        }
        Ok(ClassTable { names, embeddings })
    }

    /// The projection `[D, X]` after an image encoder.
    pub(crate) fn projection(&self, embedding: usize) -> Result<Array2<f32>> {
        let shape = self.tensors.tensor("projection").map(|view| view.shape().to_vec()).unwrap_or_default();
        let inputs = shape.last().copied().unwrap_or_default();
        let values = self.floats("projection", &[embedding, inputs])?;
        Ok(values.into_dimensionality::<Ix2>().expect("the shape was just checked to have two axes"))
    }

    /// The golden image `[H, W, 3]` (u8) and texts, and their expected results.
    pub(crate) fn goldens(&self, resolution: usize, embedding: usize, labels: Option<usize>) -> Result<Goldens> {
        let encoded = |[features, logits]: [&str; 2]| -> Result<GoldenFeatures> {
            Ok(GoldenFeatures {
                features: self.floats(features, &[1, embedding])?,
                logits: labels.map(|labels| self.floats(logits, &[1, labels])).transpose()?,
            })
        };
        let is_in_f32_too = self.tensors.names().contains(&GOLDEN_NAMES_IN_F32[0]);
        Ok(Goldens {
            image: self.pixels("image")?,
            view: self.floats("view", &[3, resolution, resolution])?,
            encoded: encoded(GOLDEN_NAMES)?,
            encoded_in_f32: is_in_f32_too.then(|| encoded(GOLDEN_NAMES_IN_F32)).transpose()?,
            texts: self.golden_texts(embedding)?,
        })
    }

    /// The metadata `texts`, a JSON list; their `text_tokens` `[N, L]` (i64, filled up with -1) and `text_features`.
    fn golden_texts(&self, embedding: usize) -> Result<Option<GoldenTexts>> {
        let Some(text) = self.metadata.get("texts") else { return Ok(None) };
        let texts: Vec<String> = serde_json::from_str(text)
            .map_err(|error| self.wrong("the metadata entry \"texts\"", "a JSON list of texts", error))?;
        let (_, shape, bytes) = self.data("text_tokens", &[Dtype::I64], None)?;
        if shape.len() != 2 || shape[0] != texts.len() || texts.is_empty() {
            let expected = format!("[{}, L]", texts.len());
            return Err(self.wrong("the shape of text_tokens", &expected, format!("{shape:?}")).into());
        }
        let value = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().expect("chunks of eight bytes"));
        let row = |row: &[u8]| row.chunks_exact(8).map(value).take_while(|&token| token >= 0).collect();
        // `chunks` panics over 0, which a tensor without columns would make it.
        let tokens = bytes.chunks(8 * shape[1].max(1)).map(row).collect();
        let features = self.floats("text_features", &[texts.len(), embedding])?;
        Ok(Some(GoldenTexts { texts, tokens, features }))
    }

    fn class_names(&self) -> Result<Vec<String>> {
        let text = self.metadata.get("names").map_or("", String::as_str);
        let names: Vec<String> = serde_json::from_str(text)
            .map_err(|error| self.wrong("the metadata entry \"names\"", "a JSON list of class names", error))?;
        if names.is_empty() || names.len() > CLASSES_MAX {
            return Err(self.wrong("the number of names", &format!("1 to {CLASSES_MAX}"), names.len()).into());
        }
        let mut seen = HashMap::new();
        for (index, name) in names.iter().enumerate() {
            if name.is_empty() || name.len() > LABEL_BYTES_MAX {
                let expected = format!("1 to {LABEL_BYTES_MAX} bytes");
                return Err(self.wrong(&format!("the length of name {index}"), &expected, name.len()).into());
            }
            if let Some(first) = seen.insert(name, index) {
                return Err(self
                    .wrong(&format!("name {index}"), "different from all others", format!("name {first}"))
                    .into());
            }
        }
        Ok(names)
    }

    /// Values in f32 or f16.
    fn floats(&self, tensor: &str, shape: &[usize]) -> Result<ArrayD<f32>> {
        let (dtype, _, data) = self.data(tensor, &[Dtype::F32, Dtype::F16], Some(shape))?;
        let values: Vec<f32> = if dtype == Dtype::F16 {
            data.chunks_exact(2)
                .map(|bytes| f16::from_le_bytes(bytes.try_into().expect("chunks of two bytes")).to_f32())
                .collect()
        } else {
            data.chunks_exact(4)
                .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("chunks of four bytes")))
                .collect()
        };
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(self.wrong(&format!("value {index} of {tensor}"), "a finite number", values[index]).into());
        }
        Ok(ArrayD::from_shape_vec(IxDyn(shape), values).expect("safetensors checks sizes against shapes"))
    }

    fn pixels(&self, tensor: &str) -> Result<Pixels> {
        let (_, shape, bytes) = self.data(tensor, &[Dtype::U8], None)?;
        match shape[..] {
            [height, width, 3] if height > 0 && width > 0 => Ok(Pixels::new(width, height, bytes.to_vec())),
            _ => Err(self.wrong(&format!("the shape of {tensor}"), "[H, W, 3]", format!("{shape:?}")).into()),
        }
    }

    /// Type, shape and bytes of a tensor, of one of these types and of this shape, if one is given.
    fn data(&self, tensor: &str, types: &[Dtype], shape: Option<&[usize]>) -> Result<(Dtype, Vec<usize>, &[u8])> {
        let view = self.tensors.tensor(tensor).map_err(|_| self.wrong(tensor, "a tensor of that name", "missing"))?;
        if !types.contains(&view.dtype()) {
            let expected = types.iter().map(|dtype| format!("{dtype:?}")).collect::<Vec<_>>().join(" or ");
            return Err(self.wrong(&format!("the type of {tensor}"), &expected, format!("{:?}", view.dtype())).into());
        }
        if shape.is_some_and(|shape| shape != view.shape()) {
            let expected = format!("{:?}", shape.unwrap_or_default());
            return Err(self.wrong(&format!("the shape of {tensor}"), &expected, format!("{:?}", view.shape())).into());
        }
        Ok((view.dtype(), view.shape().to_vec(), view.data()))
    }

    fn wrong(&self, what: &str, expected: &str, found: impl ToString) -> TensorError {
        TensorError { file: self.name.into(), what: what.into(), expected: expected.into(), found: found.to_string() }
    }
}
