//! Products of bytes on 64-bit ARM: with the dot product of ARMv8.2, and in pairs in i16 without.

use std::arch::aarch64::*;
use std::arch::asm;

use super::dots::Dots;
use crate::kernels::lanes;

/// `sdot`, of Cortex-A55, A75 and later.
// i8mm's `smmla` is in none of the devices this is for: neither in Cortex-A76 (Raspberry Pi 5) nor in A78AE (Jetson Orin).
#[derive(Clone, Copy)]
pub(super) struct Dot;

/// Adds the products of a group of four values with four weights each. The library's own function for it is not stable.
macro_rules! sdot {
    ($sums:expr, $weights:expr, $values:expr, $group:literal) => {
        asm!(
            concat!("sdot {sums:v}.4s, {weights:v}.16b, {values:v}.4b[", $group, "]"),
            sums = inout(vreg) $sums,
            weights = in(vreg) $weights,
            values = in(vreg) $values,
            options(pure, nomem, nostack, preserves_flags),
        )
    };
}

unsafe impl Dots for Dot {
    const STEPS: usize = 4;
    type Sums = int32x4_t;
    type Weights = [int8x16_t; 4];
    type Values = int8x16_t;
    type Floats = lanes::arm::Neon;

    #[inline(always)]
    unsafe fn sums(from: *const i32) -> int32x4_t {
        unsafe { vld1q_s32(from) }
    }

    #[inline(always)]
    unsafe fn values(from: *const u8) -> int8x16_t {
        unsafe { vld1q_s8(from.cast()) }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8, distance: usize) -> [int8x16_t; 4] {
        unsafe { [0, 1, 2, 3].map(|step| vld1q_s8(from.add(step * distance))) }
    }

    #[inline(always)]
    unsafe fn add(mut sums: int32x4_t, values: int8x16_t, weights: [int8x16_t; 4]) -> int32x4_t {
        let [first, second, third, fourth] = weights;
        unsafe {
            sdot!(sums, first, values, 0);
            sdot!(sums, second, values, 1);
            sdot!(sums, third, values, 2);
            sdot!(sums, fourth, values, 3);
        }
        sums
    }

    #[inline(always)]
    unsafe fn floats(sums: int32x4_t) -> float32x4_t {
        unsafe { vcvtq_f32_s32(sums) }
    }
}

/// What every 64-bit ARM has.
#[derive(Clone, Copy)]
pub(super) struct Neon;

unsafe impl Dots for Neon {
    const STEPS: usize = 2;
    /// Of each sum two parts, of its even and odd terms by pairs: sums 0 and 1, sums 2 and 3.
    type Sums = [int32x4_t; 2];
    type Weights = [int8x16_t; 2];
    type Values = [int8x16_t; 2];
    type Floats = lanes::arm::Neon;

    #[inline(always)]
    unsafe fn sums(from: *const i32) -> [int32x4_t; 2] {
        unsafe {
            let (sums, zero) = (vld1q_s32(from), vdupq_n_s32(0));
            [vzip1q_s32(sums, zero), vzip2q_s32(sums, zero)]
        }
    }

    #[inline(always)]
    unsafe fn values(from: *const u8) -> [int8x16_t; 2] {
        let four = |step: usize| unsafe {
            vreinterpretq_s8_s32(vdupq_n_s32(from.add(step * super::dots::STEP).cast::<i32>().read_unaligned()))
        };
        [four(0), four(1)]
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8, distance: usize) -> [int8x16_t; 2] {
        unsafe { [vld1q_s8(from), vld1q_s8(from.add(distance))] }
    }

    #[inline(always)]
    unsafe fn add(sums: [int32x4_t; 2], values: [int8x16_t; 2], weights: [int8x16_t; 2]) -> [int32x4_t; 2] {
        unsafe {
            // Two products are at most 2 · 127 · 127, which i16 holds.
            let low = vmull_s8(vget_low_s8(values[0]), vget_low_s8(weights[0]));
            let low = vmlal_s8(low, vget_low_s8(values[1]), vget_low_s8(weights[1]));
            let high = vmull_high_s8(values[0], weights[0]);
            let high = vmlal_high_s8(high, values[1], weights[1]);
            [vpadalq_s16(sums[0], low), vpadalq_s16(sums[1], high)]
        }
    }

    #[inline(always)]
    unsafe fn floats(sums: [int32x4_t; 2]) -> float32x4_t {
        unsafe { vcvtq_f32_s32(vpaddq_s32(sums[0], sums[1])) }
    }
}
