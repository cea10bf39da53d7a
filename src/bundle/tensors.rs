//! Tensors out of the bundle's safetensors files, with their types, shapes and values checked.

use std::collections::HashMap;

use ndarray::{ArrayD, Ix2, IxDyn};
use safetensors::{Dtype, SafeTensors};

use crate::error::{Error, Result};
use crate::limits::{CLASSES_MAX, LABEL_BYTES_MAX};
use crate::rows::length;
use crate::views::Pixels;

/// One parsed tensor file; `name` is used in errors.
pub struct TensorFile<'a> {
    name: &'a str,
    tensors: SafeTensors<'a>,
    metadata: HashMap<String, String>,
}

/// All class embeddings of a bundle.
#[derive(Clone, Debug)]
pub struct ClassTable {
    /// Class names `[C]`, all different.
    pub names: Vec<String>,
    /// T `[C, D]`, unit rows.
    pub embeddings: ndarray::Array2<f32>,
}

/// The expected results of one image.
#[derive(Clone, Debug)]
pub struct Goldens {
    /// The image.
    pub image: Pixels,
    /// Its clean view `[3, R, R]`.
    pub view: ArrayD<f32>,
    /// Its features `[1, D]`, a unit row.
    pub features: ArrayD<f32>,
    /// Its logits `[1, C]` for the default labels.
    pub logits: ArrayD<f32>,
}

impl<'a> TensorFile<'a> {
    /// Parses the header of `bytes`.
    pub fn parse(name: &'a str, bytes: &'a [u8]) -> Result<Self> {
        let malformed = |error: safetensors::SafeTensorError| Error::BundleTensor {
            file: name.into(),
            what: "the content".into(),
            expected: "the safetensors format".into(),
            found: error.to_string(),
        };
        let tensors = SafeTensors::deserialize(bytes).map_err(malformed)?;
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(malformed)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        Ok(Self { name, tensors, metadata })
    }

    /// The classes: `embeddings` `[C, D]` with `names` in the metadata.
    pub fn classes(&self, embedding: usize) -> Result<ClassTable> {
        let names = self.class_names()?;
        let values = self.floats("embeddings", &[names.len(), embedding])?;
        let mut embeddings = values.into_dimensionality::<Ix2>().expect("the shape was just checked to have two axes");
        for (mut row, name) in embeddings.rows_mut().into_iter().zip(&names) {
            let norm = length(row.view());
            let has_unit_length = (norm - 1.0).abs() < 1e-3;
            if !has_unit_length {
                return Err(self.wrong(&format!("the embedding of {name:?}"), "a row of length 1", norm));
            }
            row.mapv_inplace(|value| value / norm);
        }
        Ok(ClassTable { names, embeddings })
    }

    /// The golden image `[H, W, 3]` (u8) and its expected results.
    pub fn goldens(&self, resolution: usize, embedding: usize, labels: usize) -> Result<Goldens> {
        Ok(Goldens {
            image: self.pixels("image")?,
            view: self.floats("view", &[3, resolution, resolution])?,
            features: self.floats("features", &[1, embedding])?,
            logits: self.floats("logits", &[1, labels])?,
        })
    }

    fn class_names(&self) -> Result<Vec<String>> {
        let text = self.metadata.get("names").map_or("", String::as_str);
        let names: Vec<String> = serde_json::from_str(text)
            .map_err(|error| self.wrong("the metadata entry \"names\"", "a JSON list of class names", error))?;
        if names.is_empty() || names.len() > CLASSES_MAX {
            return Err(self.wrong("the number of names", &format!("1 to {CLASSES_MAX}"), names.len()));
        }
        let mut seen = HashMap::new();
        for (index, name) in names.iter().enumerate() {
            if name.is_empty() || name.len() > LABEL_BYTES_MAX {
                let expected = format!("1 to {LABEL_BYTES_MAX} bytes");
                return Err(self.wrong(&format!("the length of name {index}"), &expected, name.len()));
            }
            if let Some(first) = seen.insert(name, index) {
                return Err(self.wrong(&format!("name {index}"), "different from all others", format!("name {first}")));
            }
        }
        Ok(names)
    }

    fn floats(&self, tensor: &str, shape: &[usize]) -> Result<ArrayD<f32>> {
        let data = self.data(tensor, Dtype::F32, Some(shape))?;
        let values: Vec<f32> = data
            .1
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("chunks of four bytes")))
            .collect();
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(self.wrong(&format!("value {index} of {tensor}"), "a finite number", values[index]));
        }
        Ok(ArrayD::from_shape_vec(IxDyn(shape), values).expect("safetensors checks sizes against shapes"))
    }

    fn pixels(&self, tensor: &str) -> Result<Pixels> {
        let (shape, bytes) = self.data(tensor, Dtype::U8, None)?;
        match shape[..] {
            [height, width, 3] if height > 0 && width > 0 => Ok(Pixels::new(width, height, bytes.to_vec())),
            _ => Err(self.wrong(&format!("the shape of {tensor}"), "[H, W, 3]", format!("{shape:?}"))),
        }
    }

    fn data(&self, tensor: &str, dtype: Dtype, shape: Option<&[usize]>) -> Result<(Vec<usize>, &[u8])> {
        let view = self.tensors.tensor(tensor).map_err(|_| self.wrong(tensor, "a tensor of that name", "missing"))?;
        if view.dtype() != dtype {
            return Err(self.wrong(
                &format!("the type of {tensor}"),
                &format!("{dtype:?}"),
                format!("{:?}", view.dtype()),
            ));
        }
        if shape.is_some_and(|shape| shape != view.shape()) {
            let expected = format!("{:?}", shape.unwrap_or_default());
            return Err(self.wrong(&format!("the shape of {tensor}"), &expected, format!("{:?}", view.shape())));
        }
        Ok((view.shape().to_vec(), view.data()))
    }

    fn wrong(&self, what: &str, expected: &str, found: impl ToString) -> Error {
        Error::BundleTensor {
            file: self.name.into(),
            what: what.into(),
            expected: expected.into(),
            found: found.to_string(),
        }
    }
}
