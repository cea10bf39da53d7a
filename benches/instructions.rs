//! Runs an encoder on one thread a number of times, for whoever counts what the processor executes meanwhile:
//! `cross/instructions/measure.sh` does, under emulation. Without arguments it runs the demo bundle's once.
//!
//! `instructions ONNX RESOLUTION WIDTH RUNS`

use std::env;
use std::fs;

use ndarray::Array4;
use rtpt_edge::internal::encoder::{Encoder, EncoderModel, EncoderShape};

fn main() {
    let words: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let number =
        |place: usize, default: usize| words.get(place).map_or(default, |word| word.parse().expect("a number"));
    let path = words.first().map_or("models/demo/bundle/image_encoder.onnx", String::as_str);
    let (resolution, embedding, runs) = (number(1, 72), number(2, 128), number(3, 1));
    let model = EncoderModel { onnx: fs::read(path).expect("an ONNX file").into(), output: None, projection: None };
    let encoder = Encoder::load(&model, EncoderShape { resolution, embedding }, 1).expect("the sizes fit the model");
    let ramp = |place: usize| (place % 17) as f32 / 8.0 - 1.0;
    let view = Array4::from_shape_fn((1, 3, resolution, resolution), |(_, c, y, x)| {
        ramp((c * resolution + y) * resolution + x)
    });
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    for _ in 0..runs {
        let features = pool.install(|| encoder.encode(view.view())).expect("the encoder runs");
        println!("{:?}", features.as_slice().expect("it is contiguous").iter().take(4).collect::<Vec<_>>());
    }
    println!("kernels: {}", encoder.kernels().join(", "));
}
