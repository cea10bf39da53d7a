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
    const STEP: usize = 16;
    const STEPS: usize = 1;
    /// Of each sum four parts.
    type Sums = [int32x4_t; 4];
    /// Sixteen terms of each column.
    type Weights = [int8x16_t; 4];
    type Values = int8x16_t;
    type Floats = lanes::arm::Neon;

    #[inline(always)]
    unsafe fn sums(from: *const i32) -> [int32x4_t; 4] {
        unsafe { [0, 1, 2, 3].map(|column| vsetq_lane_s32::<0>(*from.add(column), vdupq_n_s32(0))) }
    }

    #[inline(always)]
    unsafe fn values(from: *const u8) -> int8x16_t {
        unsafe { vld1q_s8(from.cast()) }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8, _distance: usize) -> [int8x16_t; 4] {
        unsafe { [0, 1, 2, 3].map(|column| vld1q_s8(from.add(column * Self::STEP))) }
    }

    #[inline(always)]
    unsafe fn add(sums: [int32x4_t; 4], values: int8x16_t, weights: [int8x16_t; 4]) -> [int32x4_t; 4] {
        let [mut first, mut second, mut third, mut fourth] = sums;
        unsafe {
            // Two products are at most 2 · 127 · 127, which i16 holds. In one piece, because the compiler would begin those of many rows before it
            // adds up any, for which there are not registers enough.
            asm!(
                "smull {a:v}.8h, {p:v}.8b, {x:v}.8b",
                "smull {b:v}.8h, {q:v}.8b, {x:v}.8b",
                "smull {c:v}.8h, {r:v}.8b, {x:v}.8b",
                "smull {d:v}.8h, {s:v}.8b, {x:v}.8b",
                "smlal2 {a:v}.8h, {p:v}.16b, {x:v}.16b",
                "smlal2 {b:v}.8h, {q:v}.16b, {x:v}.16b",
                "smlal2 {c:v}.8h, {r:v}.16b, {x:v}.16b",
                "smlal2 {d:v}.8h, {s:v}.16b, {x:v}.16b",
                "sadalp {first:v}.4s, {a:v}.8h",
                "sadalp {second:v}.4s, {b:v}.8h",
                "sadalp {third:v}.4s, {c:v}.8h",
                "sadalp {fourth:v}.4s, {d:v}.8h",
                a = out(vreg) _,
                b = out(vreg) _,
                c = out(vreg) _,
                d = out(vreg) _,
                p = in(vreg) weights[0],
                q = in(vreg) weights[1],
                r = in(vreg) weights[2],
                s = in(vreg) weights[3],
                x = in(vreg) values,
                first = inout(vreg) first,
                second = inout(vreg) second,
                third = inout(vreg) third,
                fourth = inout(vreg) fourth,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        [first, second, third, fourth]
    }

    #[inline(always)]
    unsafe fn floats([first, second, third, fourth]: [int32x4_t; 4]) -> float32x4_t {
        unsafe { vcvtq_f32_s32(vpaddq_s32(vpaddq_s32(first, second), vpaddq_s32(third, fourth))) }
    }
}
