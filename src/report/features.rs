//! The features of a whole data set as a safetensors file, so that methods can be computed elsewhere.

use std::collections::HashMap;
use std::sync::Arc;

use ndarray::{Array2, ArrayView2};
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};

/// `features` `[N, V, D]`, `truths` `[N]` (i64) and `classes` `[C, D]`; metadata: `logit_scale`.
pub(crate) fn features_bytes(
    features: &[Arc<Array2<f32>>],
    truths: &[usize],
    classes: ArrayView2<f32>,
    scale: f32,
) -> Vec<u8> {
    let (views, width) = features.first().map_or((0, 0), |one| one.dim());
    let all: Vec<u8> = features.iter().flat_map(|one| one.iter().flat_map(|value| value.to_le_bytes())).collect();
    let truths: Vec<u8> = truths.iter().flat_map(|&truth| (truth as i64).to_le_bytes()).collect();
    let table: Vec<u8> = classes.iter().flat_map(|value| value.to_le_bytes()).collect();
    let tensor =
        |dtype, shape: Vec<usize>, bytes| TensorView::new(dtype, shape, bytes).expect("the bytes fill the shape");
    let tensors = [
        ("features", tensor(Dtype::F32, vec![features.len(), views, width], &all[..])),
        ("truths", tensor(Dtype::I64, vec![features.len()], &truths[..])),
        ("classes", tensor(Dtype::F32, classes.shape().to_vec(), &table[..])),
    ];
    let metadata = HashMap::from([("logit_scale".to_string(), scale.to_string())]);
    serialize(tensors, Some(metadata)).expect("names differ and sizes fit their shapes")
}
