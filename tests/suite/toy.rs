//! Text towers whose weights follow from their names, so that Python can make the same ones: `models/text_goldens.py`.

use std::collections::HashMap;

use half::{bf16, f16};
use rtpt_edge::internal::rows::Real;
use rtpt_edge::internal::text::{
    Activation, CLIP_EPSILON, Pooling, TextTower, TowerShape, TowerStyle, WeightsFile, WholeTexts,
};
use safetensors::tensor::{Dtype, TensorView, serialize};

/// A tensor's name, shape and values.
pub type ToyTensor = (String, Vec<usize>, Vec<f32>);

/// A small tower.
pub fn toy_shape() -> TowerShape {
    TowerShape {
        layers: 3,
        width: 16,
        heads: 2,
        context_length: 40,
        vocabulary: 60,
        embedding: 8,
        hidden: 64,
        activation: Activation::QuickGelu,
        style: TowerStyle::CLIP,
    }
}

/// The small tower as it is in models that are not CLIP's: texts filled up with token 3 and seen whole, in SigLIP's way if the last
/// row is read.
pub fn whole_shape(pooling: Pooling) -> TowerShape {
    let (activation, epsilon) = match pooling {
        Pooling::End => (Activation::Gelu, CLIP_EPSILON),
        Pooling::Last => (Activation::GeluTanh, 1e-3),
    };
    let style = TowerStyle { whole: Some(WholeTexts { padding: 3, pooling }), epsilon };
    TowerShape { context_length: 21, hidden: 59, activation, style, ..toy_shape() }
}

/// The tower of [`toy_tensors`].
pub fn toy_tower<T: Real>(shape: TowerShape) -> TextTower<T> {
    let bytes = stored(&toy_tensors(shape), Dtype::F32);
    TextTower::load(WeightsFile::from_bytes("toy.safetensors", bytes).unwrap(), shape).unwrap()
}

/// All tensors of a tower, with the names of Hugging Face.
pub fn toy_tensors(shape: TowerShape) -> Vec<ToyTensor> {
    let TowerShape { layers, width, context_length, vocabulary, embedding, hidden, .. } = shape;
    let mut tensors = vec![
        toy("text_model.embeddings.token_embedding.weight", &[vocabulary, width], 1.0),
        toy("text_model.embeddings.position_embedding.weight", &[context_length, width], 0.5),
        toy("text_projection.weight", &[embedding, width], spread(width)),
    ];
    // As in SigLIP.
    if shape.style.whole.is_some_and(|whole| whole.pooling == Pooling::Last) {
        tensors.push(toy("text_projection.bias", &[embedding], 0.5));
    }
    let mut norm = |name: String| {
        let (gain_name, shape, gain) = toy(&format!("{name}.weight"), &[width], 0.2);
        tensors.push((gain_name, shape, gain.iter().map(|value| 1.0 + value).collect()));
        tensors.push(toy(&format!("{name}.bias"), &[width], 0.1));
    };
    norm("text_model.final_layer_norm".into());
    for layer in 0..layers {
        norm(format!("text_model.encoder.layers.{layer}.layer_norm1"));
        norm(format!("text_model.encoder.layers.{layer}.layer_norm2"));
    }
    for layer in 0..layers {
        let mut linear = |name: &str, outputs: usize, inputs: usize| {
            let name = format!("text_model.encoder.layers.{layer}.{name}");
            tensors.push(toy(&format!("{name}.weight"), &[outputs, inputs], spread(inputs)));
            tensors.push(toy(&format!("{name}.bias"), &[outputs], 0.1));
        };
        for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            linear(&format!("self_attn.{name}"), width, width);
        }
        linear("mlp.fc1", hidden, width);
        linear("mlp.fc2", width, hidden);
    }
    tensors
}

/// The same tensors under OpenAI's names.
pub fn renamed_as_openai(tensors: &[ToyTensor], prefix: &str) -> Vec<ToyTensor> {
    let by_name: HashMap<&str, &ToyTensor> = tensors.iter().map(|tensor| (tensor.0.as_str(), tensor)).collect();
    let mut renamed = Vec::new();
    for (name, shape, values) in tensors {
        let new = name
            .replace("text_model.embeddings.token_embedding.weight", "token_embedding.weight")
            .replace("text_model.embeddings.position_embedding.weight", "positional_embedding")
            .replace("text_model.final_layer_norm", "ln_final")
            .replace("text_model.encoder.layers", "transformer.resblocks")
            .replace("layer_norm", "ln_")
            .replace("self_attn.out_proj", "attn.out_proj")
            .replace("mlp.fc1", "mlp.c_fc")
            .replace("mlp.fc2", "mlp.c_proj");
        if name == "text_projection.weight" {
            let (rows, columns) = (shape[0], shape[1]);
            let transposed = (0..columns * rows).map(|i| values[i % rows * columns + i / rows]).collect();
            renamed.push((format!("{prefix}text_projection"), vec![columns, rows], transposed));
        } else if let Some(layer) = new.strip_suffix("self_attn.q_proj.weight") {
            let source = name.strip_suffix("q_proj.weight").unwrap();
            for (part, joined) in [("weight", "in_proj_weight"), ("bias", "in_proj_bias")] {
                let parts = ["q", "k", "v"].map(|letter| by_name[format!("{source}{letter}_proj.{part}").as_str()]);
                let mut shape = parts[0].1.clone();
                shape[0] *= 3;
                renamed.push((format!("{prefix}{layer}attn.{joined}"), shape, parts.map(|part| &part.2[..]).concat()));
            }
        } else if !["q_proj", "k_proj", "v_proj"].iter().any(|part| name.contains(part)) {
            renamed.push((format!("{prefix}{new}"), shape.clone(), values.clone()));
        }
    }
    renamed
}

/// A safetensors file of these tensors in `dtype`.
pub fn stored(tensors: &[ToyTensor], dtype: Dtype) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, values)| match dtype {
            Dtype::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
            Dtype::BF16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        })
        .collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| (name.as_str(), TensorView::new(dtype, shape.clone(), bytes).unwrap()));
    serialize(views, None).unwrap()
}

/// Values in (-bound, bound) that follow from the tensor's name and their index, exact in f32.
pub fn toy(name: &str, shape: &[usize], bound: f32) -> ToyTensor {
    let start = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let count = shape.iter().product::<usize>() as u64;
    let values = (0..count).map(|index| {
        let mut z = start.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((z >> 40) as f32 / (1 << 23) as f32 - 1.0) * bound
    });
    (name.to_string(), shape.to_vec(), values.collect())
}

/// A bound that keeps the size of what a linear layer is given.
fn spread(inputs: usize) -> f32 {
    (3.0 / inputs as f32).sqrt()
}
