//! A tower's tensors in fewer bits.

use half::f16;
use ndarray::Array2;
use safetensors::tensor::{Dtype, TensorView, serialize};

use super::error::Result;
use super::names::Naming;
use super::weights::{SCALE_SUFFIX, WeightsFile};
use crate::kernels::quantise_weights;

/// What the matrices of a tower are stored in; they are computed with in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TowerBits {
    /// Symmetric int8 with a scale for each row.
    Int8,
    /// f16.
    F16,
}

/// The tower's tensors as the bytes of a safetensors file, its matrices in `bits`. Vectors stay as they are, and matrices that are in fewer bits
/// already.
///
/// # Errors
/// The file holds no tower, or a matrix cannot be read or holds NaN or infinity.
pub(crate) fn tower_in(weights: &WeightsFile, bits: TowerBits) -> Result<Vec<u8>> {
    let mut tensors = Vec::new();
    for name in Naming::of(weights)?.tensors(weights) {
        let stored = weights.stored(&name)?;
        let is_larger = match (bits, stored.dtype) {
            (TowerBits::Int8, Dtype::F32 | Dtype::F16 | Dtype::BF16) => true,
            (TowerBits::F16, dtype) => dtype == Dtype::F32,
            _ => false,
        };
        let [rows, width] = match stored.shape[..] {
            [rows, width] if is_larger => [rows, width],
            _ => {
                tensors.push((name, stored.dtype, stored.shape, stored.data.into_owned()));
                continue;
            }
        };
        let matrix: Array2<f32> = weights.matrix(&name, [rows, width])?;
        match bits {
            TowerBits::F16 => {
                let bytes = matrix.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect();
                tensors.push((name, Dtype::F16, vec![rows, width], bytes));
            }
            TowerBits::Int8 => {
                let mut values = vec![0_i8; rows * width];
                let slots = values.chunks_exact_mut(width.max(1));
                let of_row = |(row, slots): (ndarray::ArrayView1<f32>, _)| {
                    quantise_weights(row.as_slice().expect("rows of an owned matrix are contiguous"), slots)
                };
                let scales: Vec<f32> = matrix.rows().into_iter().zip(slots).map(of_row).collect();
                let scales = scales.into_iter().flat_map(f32::to_le_bytes).collect();
                tensors.push((format!("{name}{SCALE_SUFFIX}"), Dtype::F32, vec![rows], scales));
                tensors.push((name, Dtype::I8, vec![rows, width], bytemuck::cast_slice(&values).to_vec()));
            }
        }
    }
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).expect("the bytes fill the shape"))
    });
    Ok(serialize(views, None).expect("names differ and sizes fit their shapes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::noise;

    #[test]
    fn a_row_is_off_by_half_of_its_scale_at_most() {
        let (rows, width) = (7, 33);
        let mut values = noise(3, rows * width);
        values[..width].iter_mut().for_each(|value| *value *= 1000.0);
        values[width..2 * width].fill(0.0);
        let name = "text_model.embeddings.token_embedding.weight";
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let bias: Vec<u8> = noise(4, width).into_iter().flat_map(f32::to_le_bytes).collect();
        let file = serialize(
            [
                (name, TensorView::new(Dtype::F32, vec![rows, width], &bytes).unwrap()),
                ("text_model.final_layer_norm.bias", TensorView::new(Dtype::F32, vec![width], &bias).unwrap()),
                ("visual.other", TensorView::new(Dtype::F32, vec![width], &bias).unwrap()),
            ],
            None,
        );
        let whole = WeightsFile::from_bytes("whole", file.unwrap()).unwrap();
        for (bits, steps) in [(TowerBits::Int8, 127.0), (TowerBits::F16, 1024.0)] {
            let small = tower_in(&whole, bits).unwrap();
            assert!(small.len() < bytes.len() * 3 / 4 + 600);
            let small = WeightsFile::from_bytes("small", small).unwrap();
            assert!(!small.has("visual.other"));
            let found: Array2<f32> = small.matrix(name, [rows, width]).unwrap();
            for (row, found) in values.chunks(width).zip(found.rows()) {
                let largest = row.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
                for (&value, &found) in row.iter().zip(found) {
                    assert!((value - found).abs() <= largest / steps * 0.51, "{bits:?}: {value} {found}");
                }
            }
            // Single rows are those of the whole.
            let some: Array2<f32> = small.rows(name, [rows, width], &[6, 0, 2]).unwrap();
            for (found, row) in some.rows().into_iter().zip([6, 0, 2]) {
                assert_eq!(found, found_row(&small, name, [rows, width], row));
            }
            let vector = |file: &WeightsFile| file.vector::<f32>("text_model.final_layer_norm.bias", width).unwrap();
            assert_eq!(vector(&small), vector(&whole));
            // What is in fewer bits already stays as it is.
            assert_eq!(tower_in(&small, bits).unwrap(), tower_in(&whole, bits).unwrap());
        }
    }

    #[test]
    fn scales_that_do_not_fit_are_refused() {
        let matrix = TensorView::new(Dtype::I8, vec![2, 3], &[1; 6]).unwrap();
        let file = |name: &str, dtype, shape: &[usize], bytes: &[u8]| {
            let scales = TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
            let bytes = serialize([("m", matrix.clone()), (name, scales)], None).unwrap();
            let file = WeightsFile::from_bytes("file", bytes).unwrap();
            file.matrix::<f32>("m", [2, 3]).map_err(|error| error.to_string())
        };
        let scales = [0.5_f32, 2.0].map(f32::to_le_bytes).concat();
        let found = file("m.scale", Dtype::F32, &[2], &scales).unwrap();
        assert_eq!(found, ndarray::array![[0.5, 0.5, 0.5], [2.0, 2.0, 2.0]]);
        let bad = [0.5, f32::NAN].map(f32::to_le_bytes).concat();
        for (found, expected) in [
            (file("other", Dtype::F32, &[2], &scales), "m.scale is missing, expected the scales of its rows"),
            (file("m.scale", Dtype::F32, &[1], &scales[..4]), "F32 [2]"),
            (file("m.scale", Dtype::I32, &[2], &scales), "F32 [2]"),
            (file("m.scale", Dtype::F32, &[2], &bad), "value 3 of m"),
        ] {
            let message = found.unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
        let vector = serialize([("v", TensorView::new(Dtype::I8, vec![3], &[1; 3]).unwrap())], None).unwrap();
        let refused = WeightsFile::from_bytes("file", vector).unwrap().vector::<f32>("v", 3).unwrap_err().to_string();
        assert!(refused.contains("rows"), "{refused}");
    }

    fn found_row(file: &WeightsFile, name: &str, shape: [usize; 2], row: usize) -> ndarray::Array1<f32> {
        file.matrix::<f32>(name, shape).unwrap().row(row).to_owned()
    }
}
