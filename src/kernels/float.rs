//! Products of rows with constant weights in f32: `[M, K] · [K, N]`, with bias, residual and activation in the same pass.
//!
//! Weights are packed once into panels of as many columns as one tile has; the rows are read where they lie. Every sum has one order of its
//! terms, whatever is computed beside it.

use std::marker::PhantomData;
use std::ops::Range;

use super::lanes::{Lanes, Portable};
use super::matrix::{Aligned, Rows, RowsMut, SharedBytes};
use super::patches::{BLOCK_BYTES, Patches};
use super::tiles::{Epilogue, Place, Target, Tiles, all_tiles, for_each_row};

/// Rows whose distance is a multiple of so many values are copied: they would all be in a few places of the cache.
const CLASHING: usize = 512;
/// Columns from which on copying pays.
const COPIED_COLUMNS: usize = 128;
/// Rows of a block that is as wide as the matrix, at least.
const WHOLE_ROWS: usize = 42;
/// Rows of a block that shares what is brought of the weights.
const BLOCK_ROWS: usize = 112;

/// Kernel of products in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FloatKernel {
    /// AVX-512: tiles of 14 rows and 32 columns.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 and FMA: tiles of 6 rows and 16 columns.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// NEON: tiles of 5 rows and 16 columns.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// Any processor.
    Portable,
}

impl FloatKernel {
    /// The kernels that run on this processor, the fastest first.
    pub(crate) fn available() -> Vec<Self> {
        let mut kernels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                kernels.push(Self::Avx512);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                kernels.push(Self::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        kernels.push(Self::Neon);
        kernels.push(Self::Portable);
        kernels
    }

    /// The fastest kernel that runs on this processor.
    pub(crate) fn best() -> Self {
        Self::available()[0]
    }

    /// Name for reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "f32 AVX-512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "f32 AVX2",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "f32 NEON",
            Self::Portable => "f32 portable",
        }
    }

    /// Columns of a panel.
    pub(super) fn panel(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => 32,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => 16,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => 16,
            Self::Portable => 8,
        }
    }
}

/// Weights `[K, N]` in panels: `[N / P, K, P]`, filled up with zeros.
#[derive(Debug)]
pub(crate) struct FloatWeights {
    kernel: FloatKernel,
    panels: Aligned<f32>,
    depth: usize,
    columns: usize,
}

impl FloatWeights {
    /// Packed weights of `depth` K rows and `columns` N; `weight(k, n)` gives each.
    pub(crate) fn pack(
        kernel: FloatKernel,
        depth: usize,
        columns: usize,
        weight: impl Fn(usize, usize) -> f32,
    ) -> Self {
        let panel = kernel.panel();
        let mut panels = Aligned::zeros(columns.next_multiple_of(panel) * depth);
        let values = panels.values_mut();
        for place in 0..columns.div_ceil(panel) {
            for k in 0..depth {
                let row = &mut values[(place * depth + k) * panel..][..panel];
                for (column, slot) in (place * panel..columns).zip(row) {
                    *slot = weight(k, column);
                }
            }
        }
        Self { kernel, panels, depth, columns }
    }

    /// The transpose, packed for the same kernel.
    pub(crate) fn transposed(&self) -> Self {
        let (panel, values) = (self.kernel.panel(), self.panels.values());
        let value = |k: usize, n: usize| values[(n / panel * self.depth + k) * panel + n % panel];
        Self::pack(self.kernel, self.columns, self.depth, |n, k| value(k, n))
    }

    /// Packed weights whose parts lie in shared bytes; `next(size)` gives the place of each, by its size (bytes). None where one is not there.
    pub(crate) fn of_parts(
        kernel: FloatKernel,
        depth: usize,
        columns: usize,
        shared: &SharedBytes,
        mut next: impl FnMut(usize) -> Option<usize>,
    ) -> Option<Self> {
        let count = columns.checked_next_multiple_of(kernel.panel())?.checked_mul(depth)?;
        let panels = Aligned::shared(shared, next(count.checked_mul(size_of::<f32>())?)?, count)?;
        Some(Self { kernel, panels, depth, columns })
    }

    /// The parts as bytes.
    pub(crate) fn parts(&self) -> [&[u8]; 1] {
        [bytemuck::cast_slice(self.panels.values())]
    }

    /// Takes other weights of the same sizes: the rows of a matrix `[K, N]`.
    pub(super) fn set(&mut self, weights: Rows<f32>) {
        assert!(weights.count == self.depth && weights.width == self.columns);
        let panel = self.kernel.panel();
        for (place, slots) in self.panels.values_mut().chunks_exact_mut(self.depth * panel).enumerate() {
            let columns = panel.min(self.columns - place * panel);
            for (k, slots) in slots.chunks_exact_mut(panel).enumerate() {
                slots[..columns].copy_from_slice(&weights.row(k)[place * panel..][..columns]);
            }
        }
    }

    /// Takes other weights of the same sizes: the columns of a matrix `[N, K]`, which may have fewer than there are.
    pub(super) fn set_transposed(&mut self, weights: Rows<f32>) {
        assert!(weights.count <= self.columns && weights.width == self.depth);
        let panel = self.kernel.panel();
        for (place, slots) in self.panels.values_mut().chunks_exact_mut(self.depth * panel).enumerate() {
            for column in place * panel..weights.count.min((place + 1) * panel) {
                let within = column - place * panel;
                for (slot, &value) in slots[within..].iter_mut().step_by(panel).zip(weights.row(column)) {
                    *slot = value;
                }
            }
        }
    }

    /// Kernel that these are packed for.
    pub(crate) fn kernel(&self) -> FloatKernel {
        self.kernel
    }

    /// K, the terms of each sum.
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// N, the sums of each row.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// N filled up to whole panels, as a bias must be.
    pub(crate) fn padded_columns(&self) -> usize {
        self.columns.next_multiple_of(self.kernel.panel())
    }

    /// `activation(input · weights + bias + residual)` into `out`.
    pub(crate) fn multiply(&self, input: Rows<f32>, epilogue: Epilogue, out: RowsMut) {
        assert!(input.width >= self.depth && input.count == out.count);
        self.run(input.pointer(), Patches::rows(self.depth, input.stride()), epilogue, out);
    }

    /// [`Self::multiply`] of rows that are patches of `image`.
    pub(crate) fn multiply_patches(&self, image: &[f32], patches: Patches, epilogue: Epilogue, out: RowsMut) {
        assert!(patches.depth() == self.depth && patches.extent(out.count) <= image.len());
        self.run(image.as_ptr(), patches, epilogue, out);
    }

    fn run(&self, input: *const f32, patches: Patches, epilogue: Epilogue, mut out: RowsMut) {
        assert!(out.width == self.columns);
        let job = Job {
            input,
            patches,
            rows: out.count,
            depth: self.depth,
            weights: self.panels.values().as_ptr(),
            target: Target::new(&mut out, epilogue, self.kernel.panel()),
        };
        // The kernel was found on this processor, and the matrices have the sizes that were asserted.
        unsafe {
            match self.kernel {
                #[cfg(target_arch = "x86_64")]
                FloatKernel::Avx512 => avx512(&job),
                #[cfg(target_arch = "x86_64")]
                FloatKernel::Avx2 => avx2(&job),
                #[cfg(target_arch = "aarch64")]
                FloatKernel::Neon => neon(&job),
                FloatKernel::Portable => run::<Portable, 4, 2>(&job),
            }
        }
    }
}

/// One product, by pointers.
struct Job<'a> {
    input: *const f32,
    patches: Patches<'a>,
    rows: usize,
    depth: usize,
    weights: *const f32,
    target: Target<'a>,
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
unsafe fn avx512(job: &Job) {
    unsafe { run::<super::lanes::x86::Avx512, 14, 2>(job) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(job: &Job) {
    unsafe { run::<super::lanes::x86::Avx2, 6, 2>(job) }
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn neon(job: &Job) {
    unsafe { run::<super::lanes::arm::Neon, 5, 4>(job) }
}

/// All tiles of `M` rows and `V` vectors.
///
/// A block of rows stays in the cache while all panels pass it, as much of the rows as fits: each weight is brought from memory once for as
/// many rows as possible.
#[inline(always)]
unsafe fn run<L: Lanes, const M: usize, const V: usize>(job: &Job) {
    let Patches { line, row_distance, .. } = job.patches;
    if line != usize::MAX {
        let block = job.patches.block(size_of::<f32>(), M);
        let part =
            Part::<L> { job, input: job.input, patches: job.patches, from: 0, terms: 0..job.depth, lanes: PhantomData };
        for from in (0..job.rows).step_by(block) {
            let rows = from..(from + block).min(job.rows);
            unsafe { all_tiles::<Part<L>, M, V>(&part, rows, line, job.target.columns) }
        }
        return;
    }
    let (rows, terms) = blocks(job.rows, job.depth, M);
    let is_copied = row_distance.is_multiple_of(CLASHING) && job.target.columns >= COPIED_COLUMNS;
    let mut copy = Vec::new();
    for from in (0..job.rows).step_by(rows) {
        let rows = from..(from + rows).min(job.rows);
        for first in (0..job.depth).step_by(terms) {
            let terms = first..(first + terms).min(job.depth);
            let input = job.input.wrapping_add(from * row_distance + first);
            let mut values = Values { first: input, distance: row_distance };
            if is_copied {
                unsafe { values = values.copied(rows.len(), terms.len(), &mut copy) }
            }
            let patches = Patches::rows(terms.len(), values.distance);
            let part = Part::<L> { job, input: values.first, patches, from, terms, lanes: PhantomData };
            unsafe { all_tiles::<Part<L>, M, V>(&part, rows.clone(), line, job.target.columns) }
        }
    }
}

/// Rows and terms of a block that stays in the cache, both as equal as may be.
fn blocks(rows: usize, depth: usize, tile: usize) -> (usize, usize) {
    let equal = |count: usize, most: usize| count.div_ceil(count.div_ceil(most).max(1)).max(1);
    let whole = BLOCK_BYTES / size_of::<f32>() / depth.max(1);
    if rows <= whole || whole >= WHOLE_ROWS {
        return (equal(rows, whole).next_multiple_of(tile), depth.max(1));
    }
    let rows = equal(rows, BLOCK_ROWS).next_multiple_of(tile);
    (rows, equal(depth, BLOCK_BYTES / size_of::<f32>() / rows))
}

/// Values of rows, by pointers.
#[derive(Clone, Copy)]
struct Values {
    first: *const f32,
    distance: usize,
}

impl Values {
    /// `count` rows of `width` of the values in memory of their own, at a distance that does not have them all in the same places of the cache.
    unsafe fn copied(self, count: usize, width: usize, copy: &mut Vec<f32>) -> Self {
        let stride = width.next_multiple_of(CLASHING) + CLASHING / 4;
        copy.clear();
        for row in 0..count {
            unsafe { copy.extend_from_slice(std::slice::from_raw_parts(self.first.add(row * self.distance), width)) }
            copy.resize((row + 1) * stride, 0.0);
        }
        Self { first: copy.as_ptr(), distance: stride }
    }
}

/// A product, or the part of its terms that fits into the cache.
struct Part<'a, L> {
    job: &'a Job<'a>,
    /// The terms of the rows from `from` on.
    input: *const f32,
    patches: Patches<'a>,
    from: usize,
    terms: Range<usize>,
    lanes: PhantomData<L>,
}

unsafe impl<L: Lanes> Tiles for Part<'_, L> {
    const LANES: usize = L::COUNT;

    #[inline(always)]
    unsafe fn tile<const M: usize, const V: usize, const U: usize>(&self, place: Place) {
        let Self { job, patches: Patches { row_distance, parts, length, .. }, ref terms, .. } = *self;
        let Place { row, column, .. } = place;
        unsafe {
            let mut sums =
                if terms.start == 0 { [[L::splat(0.0); U]; M] } else { job.target.kept::<L, M, U>(row, column) };
            let input = self.input.add(self.patches.start(row - self.from));
            let mut weights = job.weights.add(column * job.depth + terms.start * V * L::COUNT);
            // Where rows are few, weights come from memory for nearly every tile: the next panel's are brought meanwhile.
            let distance = V * L::COUNT * size_of::<f32>();
            let (mut ahead, step) = place.ahead(weights, job.depth * distance, terms.len(), distance);
            for &part in parts {
                let input = input.add(part);
                let mut k = 0;
                // Each row has a pointer of its own and all have one distance from it, which a load takes as it is.
                let rows: [*const f32; M] = std::array::from_fn(|place| input.wrapping_add(place * row_distance));
                if L::BY_LANE {
                    let steps = length / L::COUNT;
                    if (M, V, U) == (5, 4, 4) && steps > 0 {
                        // These are the types that the constants say.
                        weights = L::five_rows(rows.as_ptr(), steps, weights, sums.as_mut_ptr().cast());
                        k = steps * L::COUNT;
                    }
                    while k + L::COUNT <= length {
                        lanes::<L, M, V, U>(&rows, k, &mut weights, &mut sums);
                        k += L::COUNT;
                    }
                }
                for k in k..length {
                    L::prefetch(ahead);
                    ahead = ahead.wrapping_add(step);
                    let vectors = vectors::<L, U>(weights);
                    for (place, sums) in sums.iter_mut().enumerate() {
                        let value = L::splat(*input.add(place * row_distance + k));
                        for (sum, &vector) in sums.iter_mut().zip(&vectors) {
                            *sum = L::multiply_add(value, vector, *sum);
                        }
                    }
                    weights = weights.add(V * L::COUNT);
                }
            }
            if terms.end == job.depth {
                job.target.finish::<L, M, U>(sums, row, column);
            } else {
                job.target.keep::<L, M, U>(&sums, row, column);
            }
        }
    }
}

/// The weights of one term.
#[inline(always)]
unsafe fn vectors<L: Lanes, const U: usize>(weights: *const f32) -> [L::Vector; U] {
    unsafe {
        let mut vectors = [L::splat(0.0); U];
        for (place, vector) in vectors.iter_mut().enumerate() {
            *vector = L::load(weights.add(place * L::COUNT));
        }
        vectors
    }
}

/// Adds the products of the terms `k` to `k + 3` of each row, and takes their weights.
#[inline(always)]
unsafe fn lanes<L: Lanes, const M: usize, const V: usize, const U: usize>(
    rows: &[*const f32; M],
    k: usize,
    weights: &mut *const f32,
    sums: &mut [[L::Vector; U]; M],
) {
    unsafe {
        let mut values = [L::splat(0.0); M];
        for (values, row) in values.iter_mut().zip(rows) {
            *values = L::load(row.add(k));
        }
        lane::<L, M, V, U, 0>(&values, *weights, sums);
        lane::<L, M, V, U, 1>(&values, *weights, sums);
        lane::<L, M, V, U, 2>(&values, *weights, sums);
        lane::<L, M, V, U, 3>(&values, *weights, sums);
        *weights = weights.add(L::COUNT * V * L::COUNT);
    }
}

/// Adds the products of one of the terms in `values`.
#[inline(always)]
unsafe fn lane<L: Lanes, const M: usize, const V: usize, const U: usize, const LANE: i32>(
    values: &[L::Vector; M],
    weights: *const f32,
    sums: &mut [[L::Vector; U]; M],
) {
    unsafe {
        let vectors = vectors::<L, U>(weights.add(LANE as usize * V * L::COUNT));
        for_each_row!(M, place => {
            for (sum, &vector) in sums[place].iter_mut().zip(&vectors) {
                *sum = L::multiply_add_lane::<LANE>(values[place], vector, *sum);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Activation, noise};

    /// The product in f64, as its formula says it.
    fn oracle(input: Rows<f32>, weights: &[f32], columns: usize, epilogue: &Epilogue) -> Vec<f64> {
        let value = |row: usize, column: usize| {
            let products = input.row(row).iter().enumerate();
            let sum: f64 = products.map(|(k, &x)| f64::from(x) * f64::from(weights[k * columns + column])).sum();
            let residual = epilogue.residual.map_or(0.0, |residual| residual.row(row)[column]);
            let mut value = [(sum + f64::from(epilogue.bias[column]) + f64::from(residual)) as f32];
            epilogue.activation.apply(&mut value);
            f64::from(value[0])
        };
        (0..input.count)
            .flat_map(|row| (0..columns).map(move |column| (row, column)))
            .map(|(r, c)| value(r, c))
            .collect()
    }

    #[test]
    fn every_kernel_gives_the_product() {
        for kernel in FloatKernel::available() {
            for rows in (0..=29).chain([64, 199]) {
                for (depth, columns) in
                    [(1, 1), (3, 7), (27, 32), (64, 33), (100, 48), (700, 65), (3072, 40), (512, 160)]
                {
                    let input = noise(1, rows * depth);
                    let weights = noise(2, depth * columns);
                    let residual = noise(3, rows * columns);
                    let bias = {
                        let mut bias = noise(4, columns);
                        bias.resize(columns.next_multiple_of(32), 0.0);
                        bias
                    };
                    let packed = FloatWeights::pack(kernel, depth, columns, |k, n| weights[k * columns + n]);
                    let activation = [Activation::None, Activation::RELU, Activation::Gelu][rows % 3];
                    let residual = (rows % 2 == 0).then(|| Rows::new(&residual, columns));
                    let epilogue = Epilogue { bias: &bias, residual, activation };
                    let input = Rows::new(&input, depth);
                    let mut found = vec![f32::NAN; rows * columns];
                    packed.multiply(input, epilogue, RowsMut::new(&mut found, columns));
                    for (found, expected) in found.iter().zip(oracle(input, &weights, columns, &epilogue)) {
                        let difference = (f64::from(*found) - expected).abs();
                        assert!(
                            difference < 5e-6 + 2e-7 * depth as f64,
                            "{kernel:?} [{rows}, {depth}] [{depth}, {columns}]: {difference}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn patches_of_an_image_are_multiplied_as_their_rows_are() {
        Patches::samples(|patches, lines| {
            let (depth, columns, count) = (patches.depth(), 37, lines * patches.line);
            let image = noise(1, patches.extent(count));
            let rows = patches.gathered(&image, count);
            let (weights, residual) = (noise(2, depth * columns), noise(3, count * columns));
            let bias = noise(4, columns.next_multiple_of(32));
            let epilogue = || Epilogue {
                bias: &bias,
                residual: Some(Rows::new(&residual, columns)),
                activation: Activation::RELU,
            };
            for kernel in FloatKernel::available() {
                let packed = FloatWeights::pack(kernel, depth, columns, |k, n| weights[k * columns + n]);
                let (mut found, mut expected) = (vec![f32::NAN; count * columns], vec![f32::NAN; count * columns]);
                packed.multiply_patches(&image, patches, epilogue(), RowsMut::new(&mut found, columns));
                packed.multiply(Rows::new(&rows, depth), epilogue(), RowsMut::new(&mut expected, columns));
                assert!(found == expected, "{kernel:?} {patches:?}");
            }
        });
    }

    #[test]
    fn the_transpose_is_the_transpose() {
        let (depth, columns) = (37, 70);
        let values = noise(1, depth * columns);
        for kernel in FloatKernel::available() {
            let packed = FloatWeights::pack(kernel, depth, columns, |k, n| values[k * columns + n]);
            let expected = FloatWeights::pack(kernel, columns, depth, |n, k| values[k * columns + n]);
            let transposed = packed.transposed();
            assert_eq!((transposed.depth, transposed.columns), (columns, depth));
            assert!(transposed.panels.values() == expected.panels.values(), "{kernel:?}");
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_others() {
        let (depth, columns, rows) = (70, 40, 23);
        let (input, weights, bias) = (noise(5, rows * depth), noise(6, depth * columns), vec![0.0; 64]);
        let epilogue = Epilogue { bias: &bias, residual: None, activation: Activation::Gelu };
        for kernel in FloatKernel::available() {
            let packed = FloatWeights::pack(kernel, depth, columns, |k, n| weights[k * columns + n]);
            let product = |input: &[f32]| {
                let mut out = vec![0.0; input.len() / depth * columns];
                packed.multiply(Rows::new(input, depth), epilogue, RowsMut::new(&mut out, columns));
                out
            };
            let together = product(&input);
            let alone: Vec<f32> = input.chunks(depth).flat_map(product).collect();
            assert!(together == alone, "{kernel:?}");
        }
    }
}
