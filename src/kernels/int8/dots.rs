//! What the int8 kernels are written with, once for all instruction sets: sums of products of bytes.

use crate::kernels::lanes::{self, Lanes};

/// An instruction set's sums of products of bytes.
///
/// # Safety
/// As that of [`Lanes`]; what is read at a pointer is said at each method.
pub(super) unsafe trait Dots: Copy {
    /// Sums.
    type Sums: Copy;
    /// Weights of every sum for [`Self::STEPS`] steps.
    type Weights: Copy;
    /// Values of a row for as many steps.
    type Values: Copy;
    /// Vectors of as many f32.
    type Floats: Lanes;
    /// Sums in a vector.
    const COUNT: usize = Self::Floats::COUNT;
    /// Terms of a sum in one step: what lies together in the memory of rows and of weights.
    const STEP: usize = 4;
    /// Steps that are taken at once.
    const STEPS: usize;

    /// Sums to begin with: the `COUNT` integers at an address.
    unsafe fn sums(from: *const i32) -> Self::Sums;
    /// Reads `STEPS · STEP` bytes.
    unsafe fn values(from: *const u8) -> Self::Values;
    /// Reads `COUNT · STEP` bytes at each of `STEPS` places, `distance` bytes apart.
    unsafe fn weights(from: *const i8, distance: usize) -> Self::Weights;
    unsafe fn add(sums: Self::Sums, values: Self::Values, weights: Self::Weights) -> Self::Sums;
    /// The sums as f32.
    unsafe fn floats(sums: Self::Sums) -> <Self::Floats as Lanes>::Vector;
}

/// For any processor.
#[derive(Clone, Copy)]
pub(super) struct Portable;

unsafe impl Dots for Portable {
    const STEPS: usize = 1;
    type Sums = [i32; 4];
    type Weights = [[i8; 4]; 4];
    type Values = [i8; 4];
    type Floats = lanes::Portable;

    #[inline(always)]
    unsafe fn sums(from: *const i32) -> [i32; 4] {
        unsafe { from.cast::<[i32; 4]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn values(from: *const u8) -> [i8; 4] {
        unsafe { from.cast::<[i8; 4]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8, _distance: usize) -> [[i8; 4]; 4] {
        unsafe { from.cast::<[[i8; 4]; 4]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn add(sums: [i32; 4], values: [i8; 4], weights: [[i8; 4]; 4]) -> [i32; 4] {
        let products = |lane: usize| (0..4).map(|k| i32::from(values[k]) * i32::from(weights[lane][k])).sum::<i32>();
        std::array::from_fn(|lane| sums[lane] + products(lane))
    }

    #[inline(always)]
    unsafe fn floats(sums: [i32; 4]) -> [f32; 4] {
        sums.map(|sum| sum as f32)
    }
}
