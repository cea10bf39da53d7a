//! The features of a whole data set as a safetensors file, so that methods can be computed elsewhere.

use std::collections::HashMap;

use ndarray::ArrayView2;
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};

use crate::extractor::Features;

/// `features` `[N, V, D]`, `low_pass` `[N, D]` (those of the low-passed clean views), `truths` `[N]` (i64) and `classes` `[C, D]`; metadata:
/// `logit_scale`.
pub(crate) fn features_bytes(features: &[Features], truths: &[usize], classes: ArrayView2<f32>, scale: f32) -> Vec<u8> {
    let (views, width) = features.first().map_or((0, 0), |one| one.matrix.dim());
    let bytes = |value: &f32| value.to_le_bytes();
    let all: Vec<u8> = features.iter().flat_map(|one| one.matrix.iter().flat_map(bytes)).collect();
    let low_pass: Vec<u8> =
        features.iter().flat_map(|one| one.pair()[1].to_owned().into_iter().flat_map(f32::to_le_bytes)).collect();
    let truths: Vec<u8> = truths.iter().flat_map(|&truth| (truth as i64).to_le_bytes()).collect();
    let table: Vec<u8> = classes.iter().flat_map(|value| value.to_le_bytes()).collect();
    let tensor =
        |dtype, shape: Vec<usize>, bytes| TensorView::new(dtype, shape, bytes).expect("the bytes fill the shape");
    let tensors = [
        ("features", tensor(Dtype::F32, vec![features.len(), views, width], &all[..])),
        ("low_pass", tensor(Dtype::F32, vec![features.len(), width], &low_pass[..])),
        ("truths", tensor(Dtype::I64, vec![features.len()], &truths[..])),
        ("classes", tensor(Dtype::F32, classes.shape().to_vec(), &table[..])),
    ];
    let metadata = HashMap::from([("logit_scale".to_string(), scale.to_string())]);
    serialize(tensors, Some(metadata)).expect("names differ and sizes fit their shapes")
}
