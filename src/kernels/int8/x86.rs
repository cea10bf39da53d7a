//! Products of bytes on x86-64: VNNI, and pairs of products in i16 without.

use std::arch::x86_64::*;

use super::dots::Dots;
use crate::kernels::lanes;

#[derive(Clone, Copy)]
pub(super) struct Avx512Vnni;

unsafe impl Dots for Avx512Vnni {
    const STEPS: usize = 1;
    type Sums = __m512i;
    type Weights = __m512i;
    type Values = __m512i;
    type Floats = lanes::x86::Avx512;

    #[inline(always)]
    unsafe fn sums(from: *const i32) -> __m512i {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn values(from: *const u8) -> __m512i {
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8, _distance: usize) -> __m512i {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn add(sums: __m512i, values: __m512i, weights: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sums, values, weights) }
    }

    #[inline(always)]
    unsafe fn floats(sums: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(sums) }
    }
}

#[derive(Clone, Copy)]
pub(super) struct AvxVnni;

unsafe impl Dots for AvxVnni {
    const STEPS: usize = 1;
    type Sums = __m256i;
    type Weights = __m256i;
    type Values = __m256i;
    type Floats = lanes::x86::Avx2;

    #[inline(always)]
    unsafe fn sums(from: *const i32) -> __m256i {
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn values(from: *const u8) -> __m256i {
        unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8, _distance: usize) -> __m256i {
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn add(sums: __m256i, values: __m256i, weights: __m256i) -> __m256i {
        unsafe { _mm256_dpbusd_avx_epi32(sums, values, weights) }
    }

    #[inline(always)]
    unsafe fn floats(sums: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(sums) }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Avx2;

unsafe impl Dots for Avx2 {
    const STEPS: usize = 1;
    type Sums = __m256i;
    type Weights = __m256i;
    /// The values, and their magnitudes.
    type Values = (__m256i, __m256i);
    type Floats = lanes::x86::Avx2;

    #[inline(always)]
    unsafe fn sums(from: *const i32) -> __m256i {
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn values(from: *const u8) -> (__m256i, __m256i) {
        unsafe {
            let values = _mm256_set1_epi32(from.cast::<i32>().read_unaligned());
            (values, _mm256_abs_epi8(values))
        }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8, _distance: usize) -> __m256i {
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn add(sums: __m256i, (values, magnitudes): (__m256i, __m256i), weights: __m256i) -> __m256i {
        unsafe {
            // |x| (w sign x): two such products are at most 2 · 127 · 127, which i16 holds.
            let pairs = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(weights, values));
            _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    #[inline(always)]
    unsafe fn floats(sums: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(sums) }
    }
}
