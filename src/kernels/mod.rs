//! Kernels of what an encoder and the making of views spend their time in, each with the instructions of the processor it runs on.
//!
//! A kernel is chosen at run time, never by a compiler's flag. Every one has a plain version beside it, which the tests compare it with.

mod activation;
mod attention;
mod depthwise;
mod float;
mod functions;
mod int8;
mod lanes;
mod matrix;
mod mix;
mod norm;
mod patches;
mod pixels;
mod pool;
mod resample;
mod tiles;
mod warp;

pub(crate) use activation::Activation;
pub(crate) use attention::Attention;
pub(crate) use depthwise::{Depthwise, Extent};
pub(crate) use float::{FloatKernel, FloatWeights};
pub(crate) use functions::{exponentials, normal_gates, quick_gates};
pub(crate) use int8::{INT8_DEPTH_MAX, IntKernel, IntRows, IntWeights, quantise_weights};
pub(crate) use matrix::{ALIGNMENT, Rows, RowsMut, SharedBytes};
pub(crate) use mix::{COPIES, Mixture, mix};
pub(crate) use norm::LayerNorm;
pub(crate) use patches::{Bordered, Patches};
pub(crate) use pixels::PixelKernel;
pub(crate) use pool::Windows;
pub(crate) use resample::{FRACTION_BITS, Taps, narrow, shorten};
pub(crate) use tiles::Epilogue;
pub(crate) use warp::{Source, warp};

/// Numbers between -1 and 1 without order, for tests.
#[cfg(test)]
pub(crate) fn noise(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        f64::from(state) / f64::from(u32::MAX) * 2.0 - 1.0
    };
    (0..count).map(|_| next() as f32).collect()
}
