//! A checkpoint's tensors, read from a memory-mapped safetensors file as they are needed.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use half::{bf16, f16};
use ndarray::{Array1, Array2};
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};

use super::error::{Result, TensorError, TextError};
use crate::files::SteadyFile;
use crate::products::Real;

/// Largest header of the format (bytes), as in `safetensors`.
const HEADER_BYTES_MAX: u64 = 100_000_000;

/// What the name of a tensor of int8 ends in, where it is that of its scales: one for each row.
pub(crate) const SCALE_SUFFIX: &str = ".scale";

/// An open checkpoint. Tensors are f32, f16 or bf16, or int8 with scales; each value is converted when it is read.
pub struct WeightsFile {
    name: String,
    bytes: Bytes,
    data_start: usize,
    tensors: Metadata,
}

enum Bytes {
    File(Arc<SteadyFile>),
    Owned(Vec<u8>),
}

/// A tensor as it is stored.
pub(crate) struct StoredTensor<'a> {
    /// Type of its values.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values, little-endian.
    pub data: Cow<'a, [u8]>,
}

impl WeightsFile {
    /// Opens the file at a path.
    ///
    /// # Errors
    /// It cannot be opened, or is no safetensors file.
    pub fn open(path: &Path) -> Result<Self> {
        let file = SteadyFile::open(path).map_err(|source| TextError::Unreadable { path: path.into(), source })?;
        Self::of(Arc::new(file))
    }

    /// Takes an open file. Nothing but its header is held in memory.
    ///
    /// # Errors
    /// It cannot be read, or is no safetensors file.
    pub(crate) fn of(file: Arc<SteadyFile>) -> Result<Self> {
        let path = file.path();
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let unreadable = |source| TextError::Unreadable { path: path.into(), source };
        // Read up to the end of the header, which begins with its length.
        let start = file.read_at(0, 8.min(file.size() as usize)).map_err(unreadable)?;
        let length = start.first_chunk().map_or(0, |&length| u64::from_le_bytes(length));
        let refused = |found: String| TextError::from(malformed(&name, found));
        if length > HEADER_BYTES_MAX || length + 8 > file.size() {
            return Err(refused(format!("a header of {length} bytes in a file of {}", file.size())));
        }
        let header = file.read_at(8, length as usize).map_err(unreadable)?;
        // As `SafeTensors::read_metadata` does with a file that is wholly in memory.
        let tensors: Metadata = serde_json::from_slice(&header).map_err(|error| refused(error.to_string()))?;
        let end = tensors.tensors().values().map(|info| info.data_offsets.1 as u64).max().unwrap_or(0);
        if length + 8 + end != file.size() {
            return Err(refused(format!(
                "a file of {} bytes, where its tensors end at {}",
                file.size(),
                length + 8 + end
            )));
        }
        Ok(Self { name, data_start: length as usize + 8, tensors, bytes: Bytes::File(file) })
    }

    /// Takes the bytes of a file; `name` is used in errors.
    ///
    /// # Errors
    /// They are no safetensors file.
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self> {
        match SafeTensors::read_metadata(&bytes) {
            Ok((header, tensors)) => {
                Ok(Self { name: name.into(), data_start: header + 8, tensors, bytes: Bytes::Owned(bytes) })
            }
            Err(error) => Err(malformed(name, error.to_string()).into()),
        }
    }

    /// An entry of the file's metadata.
    pub(crate) fn metadata(&self, key: &str) -> Option<&str> {
        self.tensors.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// True if there is a tensor of that name.
    pub fn has(&self, tensor: &str) -> bool {
        self.tensors.info(tensor).is_some()
    }

    /// The names of all tensors, in no order.
    pub fn names(&self) -> Vec<String> {
        self.tensors.offset_keys()
    }

    /// The shape of a tensor.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn shape(&self, tensor: &str) -> Result<Vec<usize>> {
        let info = self.tensors.info(tensor).ok_or_else(|| self.wrong(tensor, "a tensor of that name", "missing"))?;
        Ok(info.shape.clone())
    }

    /// A tensor as it is stored.
    ///
    /// # Errors
    /// There is none of that name, or the file cannot be read.
    pub(crate) fn stored(&self, tensor: &str) -> Result<StoredTensor<'_>> {
        let info = self.tensors.info(tensor).ok_or_else(|| self.wrong(tensor, "a tensor of that name", "missing"))?;
        let (start, end) = info.data_offsets;
        Ok(StoredTensor { dtype: info.dtype, shape: info.shape.clone(), data: self.data(start..end)? })
    }

    /// Bytes of the tensors, counted from the first tensor's.
    fn data(&self, range: Range<usize>) -> Result<Cow<'_, [u8]>> {
        let (start, length) = (self.data_start + range.start, range.len());
        match &self.bytes {
            Bytes::Owned(bytes) => Ok(bytes[start..start + length].into()),
            Bytes::File(file) => {
                let read = file.read_at(start as u64, length);
                Ok(read.map_err(|source| TextError::Unreadable { path: file.path().into(), source })?.into())
            }
        }
    }

    /// A matrix of exactly this shape.
    ///
    /// # Errors
    /// It is missing, of another type or shape, or holds NaN or infinity.
    pub fn matrix<T: Real>(&self, tensor: &str, shape: [usize; 2]) -> Result<Array2<T>> {
        let values = self.values(tensor, &shape, 0..shape[0] * shape[1])?;
        Ok(Array2::from_shape_vec(shape, values).expect("the number of values is that of the shape"))
    }

    /// A vector of exactly this length.
    ///
    /// # Errors
    /// As [`Self::matrix`].
    pub fn vector<T: Real>(&self, tensor: &str, length: usize) -> Result<Array1<T>> {
        Ok(self.values(tensor, &[length], 0..length)?.into())
    }

    /// A single number, stored without axes or as one element.
    ///
    /// # Errors
    /// As [`Self::matrix`].
    pub fn number<T: Real>(&self, tensor: &str) -> Result<T> {
        let shape = self.shape(tensor)?;
        let expected: &[usize] = if shape == [1] { &[1] } else { &[] };
        Ok(self.values(tensor, expected, 0..1)?[0])
    }

    /// Some rows of a matrix of exactly this shape; nothing else of it is read.
    ///
    /// # Errors
    /// As [`Self::matrix`], of these rows.
    pub fn rows<T: Real>(&self, tensor: &str, shape: [usize; 2], rows: &[u32]) -> Result<Array2<T>> {
        let width = shape[1];
        let mut table = Array2::zeros((rows.len(), width));
        for (mut target, &row) in table.rows_mut().into_iter().zip(rows) {
            // Within the table: its reader, `Naming::token_rows`, refuses tokens past its end.
            let start = row as usize * width;
            let values = self.values::<T>(tensor, &shape, start..start + width)?;
            target.iter_mut().zip(values).for_each(|(slot, value)| *slot = value);
        }
        Ok(table)
    }

    /// Some values of a tensor, counted from its first.
    fn values<T: Real>(&self, tensor: &str, shape: &[usize], range: Range<usize>) -> Result<Vec<T>> {
        let info = self.tensors.info(tensor).ok_or_else(|| self.wrong(tensor, "a tensor of that name", "missing"))?;
        if info.shape != shape {
            let (expected, found) = (format!("{shape:?}"), format!("{:?}", info.shape));
            return Err(self.wrong(&format!("the shape of {tensor}"), &expected, found).into());
        }
        let size = match info.dtype {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::BF16 => 2,
            Dtype::I8 => 1,
            other => {
                return Err(self
                    .wrong(&format!("the type of {tensor}"), "F32, F16, BF16 or I8", format!("{other:?}"))
                    .into());
            }
        };
        let scales = if info.dtype == Dtype::I8 { Some(self.scales(tensor, shape, &range)?) } else { None };
        let start = info.data_offsets.0;
        // In bounds: opening the file compared every offset with its length and its tensor's shape.
        let data = self.data(start + range.start * size..start + range.end * size)?;
        let bytes = data.chunks_exact(size);
        // From bytes, because a tensor in a file need not be aligned, and is little-endian on any machine.
        let to_single: fn(&[u8]) -> f32 = match info.dtype {
            Dtype::F32 => |b| f32::from_le_bytes(b.try_into().expect("chunks of four bytes")),
            Dtype::F16 => |b| f16::from_le_bytes(b.try_into().expect("chunks of two bytes")).to_f32(),
            Dtype::I8 => |b| f32::from(b[0] as i8),
            _ => |b| bf16::from_le_bytes(b.try_into().expect("chunks of two bytes")).to_f32(),
        };
        let mut values = Vec::with_capacity(range.len());
        for (index, mut single) in bytes.map(to_single).enumerate() {
            if let Some((width, first, scales)) = &scales {
                single *= scales[(range.start + index) / width - first];
            }
            if !single.is_finite() {
                return Err(self
                    .wrong(&format!("value {} of {tensor}", range.start + index), "a finite number", single)
                    .into());
            }
            values.push(T::from(single).expect("a finite f32 fits in any float"));
        }
        Ok(values)
    }

    /// The scales of the rows that some values of a tensor of int8 are in: the rows' width, the first row, and a scale for each.
    fn scales(&self, tensor: &str, shape: &[usize], range: &Range<usize>) -> Result<(usize, usize, Vec<f32>)> {
        let &[rows, width] = shape else {
            return Err(self
                .wrong(&format!("the shape of {tensor}"), "rows, for a tensor of I8", format!("{shape:?}"))
                .into());
        };
        let name = format!("{tensor}{SCALE_SUFFIX}");
        let info = self.tensors.info(&name).ok_or_else(|| self.wrong(&name, "the scales of its rows", "missing"))?;
        if info.dtype != Dtype::F32 || info.shape != [rows] {
            let found = format!("{:?} {:?}", info.dtype, info.shape);
            return Err(self.wrong(&format!("the scales {name}"), &format!("F32 [{rows}]"), found).into());
        }
        let width = width.max(1);
        let (first, end) = (range.start / width, range.end.div_ceil(width));
        let start = info.data_offsets.0;
        let bytes = self.data(start + 4 * first..start + 4 * end)?;
        let scales =
            bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().expect("chunks of four bytes")));
        Ok((width, first, scales.collect()))
    }

    /// An error about a part of this file.
    pub fn wrong(&self, what: &str, expected: &str, found: impl ToString) -> TensorError {
        TensorError { file: self.name.clone(), what: what.into(), expected: expected.into(), found: found.to_string() }
    }
}

fn malformed(file: &str, found: String) -> TensorError {
    TensorError {
        file: file.into(),
        what: "the content".into(),
        expected: "the safetensors format, whole".into(),
        found,
    }
}
