//! Class embeddings computed elsewhere: a safetensors file with names in it, or an npy file with names beside it.

use std::collections::HashMap;
use std::path::Path;

use ndarray::Array2;
use safetensors::SafeTensors;

use super::wrong;
use crate::error::Result;
use crate::files::{FileError, read_up_to};
use crate::limits::{CLASSES_MAX, EMBEDDING_MAX, LABEL_SET_BYTES_MAX};
use crate::rows::length;
use crate::text::WeightsFile;

/// First bytes of `.npy` files.
const NPY_MAGIC: &[u8] = b"\x93NUMPY";
/// The tensor in a safetensors file.
const TENSOR: &str = "embeddings";

/// Names, where the file has them, and unit-length embeddings `[C, D]`.
///
/// # Errors
/// The file is neither, or its rows are not finite or have no direction.
pub(crate) fn read_classes(path: &Path) -> Result<(Option<Vec<String>>, Array2<f32>)> {
    let bytes =
        read_up_to(path, LABEL_SET_BYTES_MAX).map_err(|source| FileError::Unreadable { path: path.into(), source })?;
    let (names, mut table) = if bytes.starts_with(NPY_MAGIC) {
        (
            None,
            parse_npy(&bytes).map_err(|problem| wrong(path, "the npy file", "an array [C, D] of f4 or f8", problem))?,
        )
    } else {
        // Names that cannot be read count as missing: a list beside the file can take their place.
        let names = metadata(&bytes).and_then(|metadata| serde_json::from_str(metadata.get("names")?).ok());
        let weights = WeightsFile::from_bytes(&path.display().to_string(), bytes)
            .map_err(|_| wrong(path, "the content", "a safetensors or npy file, whole", "something else"))?;
        let shape = weights.shape(TENSOR)?;
        let [rows, columns] = shape[..] else {
            return Err(wrong(path, "the shape of embeddings", "[C, D]", format!("{shape:?}")));
        };
        (names, weights.matrix(TENSOR, [rows, columns])?)
    };
    if !(1..=CLASSES_MAX).contains(&table.nrows()) || !(1..=EMBEDDING_MAX).contains(&table.ncols()) {
        let expected = format!("1 to {CLASSES_MAX} rows of 1 to {EMBEDDING_MAX} numbers");
        return Err(wrong(path, "the shape of the embeddings", &expected, format!("{:?}", table.dim())));
    }
    for (index, mut row) in table.rows_mut().into_iter().enumerate() {
        let norm = length(row.view());
        if !norm.is_normal() {
            return Err(wrong(path, &format!("the length of row {index}"), "a number above 0", norm));
        }
        row.mapv_inplace(|value| value / norm);
    }
    Ok((names, table))
}

fn metadata(bytes: &[u8]) -> Option<HashMap<String, String>> {
    SafeTensors::read_metadata(bytes).ok()?.1.metadata().clone()
}

/// A matrix in C order: magic, version, length of the header, a Python dictionary, the numbers.
fn parse_npy(bytes: &[u8]) -> std::result::Result<Array2<f32>, String> {
    let version = *bytes.get(6).ok_or("cut short")?;
    // Version 1 has two bytes for the header's length, later versions have four.
    let (start, size) = if version == 1 { (10, 2) } else { (12, 4) };
    let field = bytes.get(8..8 + size).ok_or("cut short")?;
    let count = field.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte));
    let end = count.checked_add(start).ok_or("cut short")?;
    let header = std::str::from_utf8(bytes.get(start..end).ok_or("cut short")?).map_err(|error| error.to_string())?;
    let value = |key: &str| {
        // NumPy writes keys in single quotes with the colon right behind.
        let rest = header.split(&format!("'{key}':")).nth(1)?;
        Some(rest.trim_start())
    };
    let is_double = match value("descr") {
        Some(descr) if descr.starts_with("'<f4'") => false,
        Some(descr) if descr.starts_with("'<f8'") => true,
        other => return Err(format!("its numbers are {}", other.unwrap_or("not described"))),
    };
    if !value("fortran_order").is_some_and(|order| order.starts_with("False")) {
        return Err("it is in Fortran order, save it with numpy.ascontiguousarray".into());
    }
    let shape = value("shape").and_then(|rest| rest.strip_prefix('(')?.split(')').next()).unwrap_or_default();
    let sizes: Vec<usize> = shape.split(',').filter_map(|size| size.trim().parse().ok()).collect();
    let [rows, columns] = sizes[..] else { return Err(format!("its shape is ({shape})")) };
    let width = if is_double { 8 } else { 4 };
    let data = &bytes[end..];
    if rows.checked_mul(columns).and_then(|count| count.checked_mul(width)) != Some(data.len()) {
        return Err(format!("it has {} bytes of numbers for the shape ({shape})", data.len()));
    }
    let number = |bytes: &[u8]| match is_double {
        // What is too large for f32 becomes infinite, and the length of its row is then refused.
        true => f64::from_le_bytes(bytes.try_into().expect("chunks of eight bytes")) as f32,
        false => f32::from_le_bytes(bytes.try_into().expect("chunks of four bytes")),
    };
    let values = data.chunks_exact(width).map(number).collect();
    Ok(Array2::from_shape_vec((rows, columns), values).expect("the number of values was just checked"))
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn npy(descr: &str, order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
        [NPY_MAGIC, &[1, 0], &(header.len() as u16).to_le_bytes(), header.as_bytes(), data].concat()
    }

    #[test]
    fn npy_files_are_read_as_numpy_writes_them() {
        let singles: Vec<u8> = [3.0_f32, 4.0, 0.0, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let doubles: Vec<u8> = [3.0_f64, 4.0, 0.0, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let expected = array![[3.0, 4.0], [0.0, 2.0]];
        assert_eq!(parse_npy(&npy("<f4", "False", "(2, 2)", &singles)).unwrap(), expected);
        assert_eq!(parse_npy(&npy("<f8", "False", "(2, 2)", &doubles)).unwrap(), expected);
        for (bytes, problem) in [
            (npy("<i8", "False", "(2, 2)", &doubles), "its numbers are '<i8'"),
            (npy("<f4", "True", "(2, 2)", &singles), "Fortran order"),
            (npy("<f4", "False", "(4,)", &singles), "its shape is (4,)"),
            (npy("<f4", "False", "(3, 2)", &singles), "16 bytes of numbers"),
            (npy("<f4", "False", "(4611686018427387904, 4)", &singles), "16 bytes of numbers"),
            (NPY_MAGIC.to_vec(), "cut short"),
            (npy("<f4", "False", "(2, 2)", &singles)[..20].to_vec(), "cut short"),
        ] {
            let found = parse_npy(&bytes).unwrap_err();
            assert!(found.contains(problem), "{found}");
        }
    }
}
