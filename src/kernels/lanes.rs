//! Vectors of f32 of one instruction set: what the tuned kernels are written with, once for all of them.

/// An instruction set's vectors.
///
/// # Safety
/// Methods may be called where the processor has the instruction set, from functions that are compiled for it; pointers must be good for
/// [`Self::COUNT`] values.
pub(super) unsafe trait Lanes: Copy {
    /// One vector.
    type Vector: Copy;
    /// Values in a vector.
    const COUNT: usize;
    /// True if vectors of four values are multiplied by one lane of another, so that four values of a row are read at once.
    const BY_LANE: bool = false;

    unsafe fn splat(value: f32) -> Self::Vector;
    unsafe fn load(from: *const f32) -> Self::Vector;
    unsafe fn store(to: *mut f32, vector: Self::Vector);
    unsafe fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn multiply(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a b + c`, rounded once where the instruction set can.
    unsafe fn multiply_add(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// `a b + c` with one value of `a`, that in the lane `LANE`, where the instruction set multiplies by lanes; see [`Self::BY_LANE`].
    #[inline(always)]
    unsafe fn multiply_add_lane<const LANE: i32>(_a: Self::Vector, _b: Self::Vector, _c: Self::Vector) -> Self::Vector {
        unreachable!("of instruction sets that multiply by lanes alone")
    }
    /// Adds the products of `steps` times four terms of five rows, which begin at the addresses in `rows`, with the `weights` of four vectors to
    /// `sums`, `[5, 4]`, and gives the address of what follows these weights; see [`Self::BY_LANE`].
    #[inline(always)]
    unsafe fn five_rows(
        _rows: *const *const f32,
        _steps: usize,
        _weights: *const f32,
        _sums: *mut Self::Vector,
    ) -> *const f32 {
        unreachable!("of instruction sets that multiply by lanes alone")
    }
    /// `a` where it is larger, else `b`; a NaN in `b` stays.
    unsafe fn larger(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a` where it is smaller, else `b`; a NaN in `b` stays.
    unsafe fn smaller(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Has the second cache bring what is at an address, which need not be one, where the instruction set can.
    #[inline(always)]
    fn prefetch(_address: *const u8) {}
}

/// For any processor; the compiler makes vectors of it where it can.
#[derive(Clone, Copy)]
pub(super) struct Portable;

unsafe impl Lanes for Portable {
    type Vector = [f32; 4];
    const COUNT: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: f32) -> [f32; 4] {
        [value; 4]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 4] {
        unsafe { from.cast::<[f32; 4]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, vector: [f32; 4]) {
        unsafe { to.cast::<[f32; 4]>().write_unaligned(vector) }
    }

    #[inline(always)]
    unsafe fn add(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    unsafe fn multiply(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|lane| a[lane] * b[lane])
    }

    #[inline(always)]
    unsafe fn multiply_add(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|lane| a[lane] * b[lane] + c[lane])
    }

    #[inline(always)]
    unsafe fn larger(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|lane| if a[lane] > b[lane] { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    unsafe fn smaller(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|lane| if a[lane] < b[lane] { a[lane] } else { b[lane] })
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::*;

    use super::Lanes;

    /// AVX-512F.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx512;

    unsafe impl Lanes for Avx512 {
        type Vector = __m512;
        const COUNT: usize = 16;

        #[inline(always)]
        unsafe fn splat(value: f32) -> __m512 {
            unsafe { _mm512_set1_ps(value) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m512 {
            unsafe { _mm512_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn store(to: *mut f32, vector: __m512) {
            unsafe { _mm512_storeu_ps(to, vector) }
        }

        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_add_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn multiply(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_mul_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn multiply_add(a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        unsafe fn larger(a: __m512, b: __m512) -> __m512 {
            // The second operand is what the instruction gives where one is NaN.
            unsafe { _mm512_max_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn smaller(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_min_ps(a, b) }
        }

        #[inline(always)]
        fn prefetch(address: *const u8) {
            unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
        }
    }

    /// AVX2 and FMA.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx2;

    unsafe impl Lanes for Avx2 {
        type Vector = __m256;
        const COUNT: usize = 8;

        #[inline(always)]
        unsafe fn splat(value: f32) -> __m256 {
            unsafe { _mm256_set1_ps(value) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m256 {
            unsafe { _mm256_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn store(to: *mut f32, vector: __m256) {
            unsafe { _mm256_storeu_ps(to, vector) }
        }

        #[inline(always)]
        unsafe fn add(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_add_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn multiply(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_mul_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn multiply_add(a: __m256, b: __m256, c: __m256) -> __m256 {
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        unsafe fn larger(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_max_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn smaller(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_min_ps(a, b) }
        }

        #[inline(always)]
        fn prefetch(address: *const u8) {
            unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub(super) mod arm {
    use std::arch::aarch64::*;
    use std::arch::asm;

    use super::Lanes;

    /// Adds the products of the four weights of a term with a row's lane to the row's sums.
    macro_rules! row {
        ($values:literal, $sums:literal, $lane:literal) => {
            concat!(
                "fmla {",
                $sums,
                "0:v}.4s, {w:v}.4s, {",
                $values,
                ":v}.s[",
                $lane,
                "]\n",
                "fmla {",
                $sums,
                "1:v}.4s, {x:v}.4s, {",
                $values,
                ":v}.s[",
                $lane,
                "]\n",
                "fmla {",
                $sums,
                "2:v}.4s, {y:v}.4s, {",
                $values,
                ":v}.s[",
                $lane,
                "]\n",
                "fmla {",
                $sums,
                "3:v}.4s, {z:v}.4s, {",
                $values,
                ":v}.s[",
                $lane,
                "]\n",
            )
        };
    }

    /// One term of five rows, the one in the lane; its weights lie at the two offsets.
    macro_rules! term {
        ($lane:literal, $first:literal, $second:literal) => {
            concat!(
                "ldp {w:q}, {x:q}, [{weights}, #",
                $first,
                "]\n",
                "ldp {y:q}, {z:q}, [{weights}, #",
                $second,
                "]\n",
                row!("p", "a", $lane),
                row!("q", "b", $lane),
                row!("r", "c", $lane),
                row!("s", "d", $lane),
                row!("t", "e", $lane),
            )
        };
    }

    /// NEON, which every 64-bit ARM has.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Neon;

    unsafe impl Lanes for Neon {
        type Vector = float32x4_t;
        const COUNT: usize = 4;
        const BY_LANE: bool = true;

        #[inline(always)]
        unsafe fn splat(value: f32) -> float32x4_t {
            unsafe { vdupq_n_f32(value) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> float32x4_t {
            unsafe { vld1q_f32(from) }
        }

        #[inline(always)]
        unsafe fn store(to: *mut f32, vector: float32x4_t) {
            unsafe { vst1q_f32(to, vector) }
        }

        #[inline(always)]
        unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            unsafe { vaddq_f32(a, b) }
        }

        #[inline(always)]
        unsafe fn multiply(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            unsafe { vmulq_f32(a, b) }
        }

        #[inline(always)]
        unsafe fn multiply_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
            unsafe { vfmaq_f32(c, a, b) }
        }

        #[inline(always)]
        unsafe fn multiply_add_lane<const LANE: i32>(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
            unsafe { vfmaq_laneq_f32::<LANE>(c, b, a) }
        }

        #[inline(always)]
        unsafe fn five_rows(
            rows: *const *const f32,
            steps: usize,
            weights: *const f32,
            sums: *mut float32x4_t,
        ) -> *const f32 {
            unsafe {
                let mut sum = sums.cast::<[float32x4_t; 20]>().read();
                let mut weights = weights;
                // In one piece, because the compiler has sums in memory where it begins one step before another has ended.
                asm!(
                    "2:",
                    "ldr {p:q}, [{row_a}], #16",
                    "ldr {q:q}, [{row_b}], #16",
                    "ldr {r:q}, [{row_c}], #16",
                    "ldr {s:q}, [{row_d}], #16",
                    "ldr {t:q}, [{row_e}], #16",
                    term!("0", "0", "32"),
                    term!("1", "64", "96"),
                    term!("2", "128", "160"),
                    term!("3", "192", "224"),
                    "add {weights}, {weights}, #256",
                    "subs {steps}, {steps}, #1",
                    "b.ne 2b",
                    p = out(vreg) _,
                    q = out(vreg) _,
                    r = out(vreg) _,
                    s = out(vreg) _,
                    t = out(vreg) _,
                    w = out(vreg) _,
                    x = out(vreg) _,
                    y = out(vreg) _,
                    z = out(vreg) _,
                    row_a = inout(reg) *rows => _,
                    row_b = inout(reg) *rows.add(1) => _,
                    row_c = inout(reg) *rows.add(2) => _,
                    row_d = inout(reg) *rows.add(3) => _,
                    row_e = inout(reg) *rows.add(4) => _,
                    weights = inout(reg) weights,
                    steps = inout(reg) steps => _,
                    a0 = inout(vreg) sum[0],
                    a1 = inout(vreg) sum[1],
                    a2 = inout(vreg) sum[2],
                    a3 = inout(vreg) sum[3],
                    b0 = inout(vreg) sum[4],
                    b1 = inout(vreg) sum[5],
                    b2 = inout(vreg) sum[6],
                    b3 = inout(vreg) sum[7],
                    c0 = inout(vreg) sum[8],
                    c1 = inout(vreg) sum[9],
                    c2 = inout(vreg) sum[10],
                    c3 = inout(vreg) sum[11],
                    d0 = inout(vreg) sum[12],
                    d1 = inout(vreg) sum[13],
                    d2 = inout(vreg) sum[14],
                    d3 = inout(vreg) sum[15],
                    e0 = inout(vreg) sum[16],
                    e1 = inout(vreg) sum[17],
                    e2 = inout(vreg) sum[18],
                    e3 = inout(vreg) sum[19],
                    options(readonly, nostack),
                );
                sums.cast::<[float32x4_t; 20]>().write(sum);
                weights
            }
        }

        #[inline(always)]
        unsafe fn larger(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            // A maximum of 0 and -0 would be 0 here, and the second elsewhere.
            unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
        }

        #[inline(always)]
        unsafe fn smaller(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            unsafe { vbslq_f32(vcltq_f32(a, b), a, b) }
        }
    }
}
