//! Products of rows with constant weights in int8: `[M, K] · [K, N]`, with bias, residual and activation in the same pass.
//!
//! Weights are symmetric int8 with a scale for each column; a row's values are brought to int8 with a scale of its own when it comes. Sums are
//! exact in i32, and what follows them is the same arithmetic in every kernel, so that the bits do not depend on which was chosen.

#[cfg(target_arch = "aarch64")]
mod arm;
mod dots;
mod rows;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::marker::PhantomData;

use super::lanes::Lanes;
use super::matrix::{Aligned, RowsMut, SharedBytes};
use super::patches::Patches;
use super::tiles::{Epilogue, Place, Target, Tiles, all_tiles, for_each_row};
use dots::{Dots, Portable};
pub(crate) use rows::{IntRows, quantise_weights};

/// Largest K: beyond it a sum could leave i32.
pub(crate) const INT8_DEPTH_MAX: usize = (i32::MAX / (255 * 127)) as usize;

/// Kernel of products in int8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IntKernel {
    /// AVX-512 with VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    /// AVX-VNNI.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// NEON with the dot product.
    #[cfg(target_arch = "aarch64")]
    Dot,
    /// NEON.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// Any processor.
    Portable,
}

impl IntKernel {
    /// The kernels that run on this processor, the fastest first.
    pub(crate) fn available() -> Vec<Self> {
        let mut kernels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vnni")
            {
                kernels.push(Self::Avx512Vnni);
            }
            if is_x86_feature_detected!("avxvnni") && is_x86_feature_detected!("avx2") {
                kernels.push(Self::AvxVnni);
            }
            if is_x86_feature_detected!("avx2") {
                kernels.push(Self::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                kernels.push(Self::Dot);
            }
            kernels.push(Self::Neon);
        }
        kernels.push(Self::Portable);
        kernels
    }

    /// Name for reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => "int8 AVX-512 VNNI",
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => "int8 AVX-VNNI",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "int8 AVX2",
            #[cfg(target_arch = "aarch64")]
            Self::Dot => "int8 NEON dotprod",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "int8 NEON",
            Self::Portable => "int8 portable",
        }
    }

    /// Columns of a panel.
    fn panel(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => 32,
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni | Self::Avx2 => 16,
            #[cfg(target_arch = "aarch64")]
            Self::Dot => 8,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => 4,
            Self::Portable => 8,
        }
    }

    /// Terms of a sum that lie together, and how many of these steps are taken at once.
    fn steps(self) -> [usize; 2] {
        fn of<D: Dots>() -> [usize; 2] {
            [D::STEP, D::STEPS]
        }
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => of::<x86::Avx512Vnni>(),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => of::<x86::AvxVnni>(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => of::<x86::Avx2>(),
            #[cfg(target_arch = "aarch64")]
            Self::Dot => of::<arm::Dot>(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => of::<arm::Neon>(),
            Self::Portable => of::<Portable>(),
        }
    }

    /// Terms that are added at once; rows and weights are filled up to a multiple with zeros.
    fn terms(self) -> usize {
        let [step, steps] = self.steps();
        step * steps
    }

    /// What is added to a row's values: some instructions multiply unsigned by signed bytes.
    pub(crate) fn offset(self) -> u8 {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni | Self::AvxVnni => 128,
            _ => 0,
        }
    }
}

/// Weights `[K, N]` in int8 in panels: `[N / P, K / S, P, S]` with S terms of a step, filled up with zeros.
#[derive(Debug)]
pub(crate) struct IntWeights {
    kernel: IntKernel,
    panels: Aligned<i8>,
    /// Scale of each column, filled up to whole panels.
    scales: Aligned<f32>,
    /// What the sums of each column begin with: the negative of what the offset adds to them. Filled up likewise.
    starts: Aligned<i32>,
    depth: usize,
    columns: usize,
}

impl IntWeights {
    /// Packed weights of `depth` K rows and `columns` N; `column(n, values)` gives the scale of each column, and its values.
    pub(crate) fn pack(
        kernel: IntKernel,
        depth: usize,
        columns: usize,
        mut column: impl FnMut(usize, &mut [i8]) -> f32,
    ) -> Self {
        assert!(depth <= INT8_DEPTH_MAX);
        let panel = kernel.panel();
        let [step_terms, _] = kernel.steps();
        let steps = depth.next_multiple_of(kernel.terms()) / step_terms;
        let padded = columns.next_multiple_of(panel);
        let mut panels = Aligned::zeros(padded * steps * step_terms);
        let (mut of_starts, mut of_scales) = (Aligned::zeros(padded), Aligned::zeros(padded));
        let (values, starts, scales) = (panels.values_mut(), of_starts.values_mut(), of_scales.values_mut());
        let mut of_column = vec![0; depth];
        for n in 0..columns {
            let (place, within) = (n / panel, n % panel);
            scales[n] = column(n, &mut of_column);
            for (step, terms) in of_column.chunks(step_terms).enumerate() {
                let start = ((place * steps + step) * panel + within) * step_terms;
                values[start..][..terms.len()].copy_from_slice(terms);
            }
            let sum: i32 = of_column.iter().map(|&value| i32::from(value)).sum();
            starts[n] = -sum * i32::from(kernel.offset());
        }
        Self { kernel, panels, scales: of_scales, starts: of_starts, depth, columns }
    }

    /// Packed weights whose parts lie in shared bytes; `next(size)` gives the place of each, by its size (bytes). None where one is not there.
    pub(crate) fn of_parts(
        kernel: IntKernel,
        depth: usize,
        columns: usize,
        shared: &SharedBytes,
        mut next: impl FnMut(usize) -> Option<usize>,
    ) -> Option<Self> {
        let padded = columns.checked_next_multiple_of(kernel.panel())?;
        let size = depth.checked_next_multiple_of(kernel.terms())?.checked_mul(padded)?;
        let of_columns = padded.checked_mul(size_of::<f32>())?;
        let panels = Aligned::shared(shared, next(size)?, size)?;
        let scales = Aligned::shared(shared, next(of_columns)?, padded)?;
        let starts = Aligned::shared(shared, next(of_columns)?, padded)?;
        (depth <= INT8_DEPTH_MAX).then_some(Self { kernel, panels, scales, starts, depth, columns })
    }

    /// The parts as bytes.
    pub(crate) fn parts(&self) -> [&[u8]; 3] {
        [
            bytemuck::cast_slice(self.panels.values()),
            bytemuck::cast_slice(self.scales.values()),
            bytemuck::cast_slice(self.starts.values()),
        ]
    }

    /// Kernel that these are packed for.
    pub(crate) fn kernel(&self) -> IntKernel {
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

    /// `activation(input · weights + bias + residual)` into `out`, of rows from [`IntRows::set`] or [`IntRows::gather`] for the same kernel.
    pub(crate) fn multiply(&self, input: &IntRows, epilogue: Epilogue, out: RowsMut) {
        assert!(input.stride == self.depth.next_multiple_of(self.kernel.terms()) && input.scales.len() == out.count);
        let scales = Scales { first: input.scales.as_ptr(), distance: 1 };
        self.run(input.values.as_ptr(), scales, Patches::rows(input.stride, input.stride), epilogue, out);
    }

    /// [`Self::multiply`] of rows that are patches of an image that [`IntRows::set_image`] brought to int8.
    pub(crate) fn multiply_patches(&self, image: &IntRows, patches: Patches, epilogue: Epilogue, out: RowsMut) {
        assert!(self.takes(patches) && patches.extent(out.count) <= image.values.len());
        let scales = Scales { first: image.scales[..1].as_ptr(), distance: 0 };
        self.run(image.values.as_ptr(), scales, patches, epilogue, out);
    }

    /// True if the terms of `patches` are those of these weights, and lie in whole steps.
    pub(crate) fn takes(&self, patches: Patches) -> bool {
        patches.depth() == self.depth && patches.length.is_multiple_of(self.kernel.terms())
    }

    fn run(&self, values: *const u8, row_scales: Scales, patches: Patches, epilogue: Epilogue, mut out: RowsMut) {
        assert!(out.width == self.columns);
        let job = Job {
            values,
            row_scales,
            patches,
            rows: out.count,
            depth: self.depth.next_multiple_of(self.kernel.terms()),
            weights: self.panels.values().as_ptr(),
            scales: self.scales.values().as_ptr(),
            starts: self.starts.values().as_ptr(),
            target: Target::new(&mut out, epilogue, self.kernel.panel()),
        };
        // The kernel was found on this processor, and the matrices have the sizes that were asserted.
        unsafe {
            match self.kernel {
                #[cfg(target_arch = "x86_64")]
                IntKernel::Avx512Vnni => avx512_vnni(&job),
                #[cfg(target_arch = "x86_64")]
                IntKernel::AvxVnni => avx_vnni(&job),
                #[cfg(target_arch = "x86_64")]
                IntKernel::Avx2 => avx2(&job),
                #[cfg(target_arch = "aarch64")]
                IntKernel::Dot => dot(&job),
                #[cfg(target_arch = "aarch64")]
                IntKernel::Neon => run::<arm::Neon, 4, 1>(&job),
                IntKernel::Portable => run::<Portable, 4, 2>(&job),
            }
        }
    }
}

/// Scales of rows; one for all at a distance of 0.
#[derive(Clone, Copy)]
struct Scales {
    first: *const f32,
    distance: usize,
}

/// One product, by pointers.
struct Job<'a> {
    values: *const u8,
    row_scales: Scales,
    patches: Patches<'a>,
    rows: usize,
    /// K, filled up to whole steps.
    depth: usize,
    weights: *const i8,
    scales: *const f32,
    starts: *const i32,
    target: Target<'a>,
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx512vnni,avx2")]
unsafe fn avx512_vnni(job: &Job) {
    unsafe { run::<x86::Avx512Vnni, 14, 2>(job) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avxvnni,avx2")]
unsafe fn avx_vnni(job: &Job) {
    unsafe { run::<x86::AvxVnni, 6, 2>(job) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn avx2(job: &Job) {
    unsafe { run::<x86::Avx2, 4, 2>(job) }
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,dotprod")]
unsafe fn dot(job: &Job) {
    unsafe { run::<arm::Dot, 8, 2>(job) }
}

/// All tiles of `M` rows and `V` vectors. A block of rows stays in the cache while all panels pass it.
#[inline(always)]
unsafe fn run<D: Dots, const M: usize, const V: usize>(job: &Job) {
    let block = job.patches.block(size_of::<u8>(), M);
    for from in (0..job.rows).step_by(block) {
        let (rows, product) = (from..(from + block).min(job.rows), Product::<D> { job, dots: PhantomData });
        unsafe { all_tiles::<Product<D>, M, V>(&product, rows, job.patches.line, job.target.columns) }
    }
}

/// A product by the instructions `D`.
struct Product<'a, D> {
    job: &'a Job<'a>,
    dots: PhantomData<D>,
}

unsafe impl<D: Dots> Tiles for Product<'_, D> {
    const LANES: usize = D::COUNT;

    #[inline(always)]
    unsafe fn tile<const M: usize, const V: usize, const U: usize>(&self, place: Place) {
        let job = self.job;
        let Place { row, column, .. } = place;
        unsafe {
            let mut starts = [D::sums(job.starts.add(column)); U];
            for (place, start) in starts.iter_mut().enumerate().skip(1) {
                *start = D::sums(job.starts.add(column + place * D::COUNT));
            }
            let mut sums = [starts; M];
            let Patches { row_distance, parts, length, .. } = job.patches;
            let input = job.values.add(job.patches.start(row));
            let mut weights = job.weights.add(column * job.depth);
            // From one step of a panel to the next (bytes).
            let distance = V * D::COUNT * D::STEP;
            let (mut ahead, step) = place.ahead(
                weights,
                job.depth / D::STEP * distance,
                job.depth / D::STEP / D::STEPS,
                D::STEPS * distance,
            );
            for &part in parts {
                let input = input.add(part);
                for k in (0..length).step_by(D::STEPS * D::STEP) {
                    D::Floats::prefetch(ahead);
                    ahead = ahead.wrapping_add(step);
                    let mut vectors = [D::weights(weights, distance); U];
                    for (place, vector) in vectors.iter_mut().enumerate().skip(1) {
                        *vector = D::weights(weights.add(place * D::COUNT * D::STEP), distance);
                    }
                    for_each_row!(M, place => {
                        let values = D::values(input.add(place * row_distance + k));
                        for (sum, &vector) in sums[place].iter_mut().zip(&vectors) {
                            *sum = D::add(*sum, values, vector);
                        }
                    });
                    weights = weights.add(D::STEPS * distance);
                }
            }
            let mut of_columns = [D::Floats::splat(0.0); U];
            for (vector, scales) in of_columns.iter_mut().enumerate() {
                *scales = D::Floats::load(job.scales.add(column + vector * D::COUNT));
            }
            let mut scaled = [[D::Floats::splat(0.0); U]; M];
            for_each_row!(M, place => {
                let of_row = D::Floats::splat(*job.row_scales.first.add((row + place) * job.row_scales.distance));
                for (slot, (&sum, &of_column)) in scaled[place].iter_mut().zip(sums[place].iter().zip(&of_columns)) {
                    *slot = D::Floats::multiply(D::floats(sum), D::Floats::multiply(of_row, of_column));
                }
            });
            job.target.finish::<D::Floats, M, U>(scaled, row, column);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::matrix::Rows;
    use crate::kernels::patches::Bordered;
    use crate::kernels::{Activation, noise};

    struct Case {
        depth: usize,
        columns: usize,
        input: Vec<f32>,
        scales: Vec<f32>,
        weights: Vec<Vec<i8>>,
        bias: Vec<f32>,
        residual: Vec<f32>,
    }

    impl Case {
        fn new(rows: usize, depth: usize, columns: usize) -> Self {
            let columns_of = noise(2, depth * columns);
            let (scales, weights) = columns_of
                .chunks(depth)
                .map(|column| {
                    let mut values = vec![0; depth];
                    (quantise_weights(column, &mut values), values)
                })
                .unzip();
            let mut bias = noise(4, columns);
            bias.resize(columns.next_multiple_of(32), 0.0);
            Self {
                depth,
                columns,
                input: noise(1, rows * depth),
                scales,
                weights,
                bias,
                residual: noise(3, rows * columns),
            }
        }

        fn product(&self, kernel: IntKernel, activation: Activation) -> Vec<f32> {
            let packed = IntWeights::pack(kernel, self.depth, self.columns, |n, values| {
                values.copy_from_slice(&self.weights[n]);
                self.scales[n]
            });
            let mut rows = IntRows::default();
            rows.set(kernel, Rows::new(&self.input, self.depth));
            let residual = Some(Rows::new(&self.residual, self.columns));
            let mut out = vec![f32::NAN; self.residual.len()];
            packed.multiply(
                &rows,
                Epilogue { bias: &self.bias, residual, activation },
                RowsMut::new(&mut out, self.columns),
            );
            out
        }

        /// The product without int8, in f64, and how far int8 may be from it.
        fn oracle(&self, row: usize, column: usize) -> (f64, f64) {
            let input = &self.input[row * self.depth..][..self.depth];
            let largest = input.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            let mut sum = 0.0;
            let mut bound = 1e-5;
            for (&x, &q) in input.iter().zip(&self.weights[column]) {
                let w = f64::from(q) * f64::from(self.scales[column]);
                sum += f64::from(x) * w;
                bound += f64::from(largest / 127.0 / 2.0) * w.abs();
            }
            (sum + f64::from(self.bias[column]) + f64::from(self.residual[row * self.columns + column]), bound)
        }
    }

    #[test]
    fn the_portable_kernel_is_as_near_as_int8_can_be() {
        for (rows, depth, columns) in [(5, 27, 33), (3, 64, 8), (1, 700, 3)] {
            let case = Case::new(rows, depth, columns);
            let found = case.product(IntKernel::Portable, Activation::None);
            for (place, &found) in found.iter().enumerate() {
                let (expected, bound) = case.oracle(place / columns, place % columns);
                assert!((f64::from(found) - expected).abs() <= bound, "{found} {expected} {bound}");
            }
        }
    }

    #[test]
    fn patches_of_an_image_are_multiplied_as_their_rows_are() {
        Patches::samples(|patches, lines| {
            let (depth, columns, count) = (patches.depth(), 37, lines * patches.line);
            // The lines of an image, with one line of zeros above them and two values before them.
            let width = patches.line_distance.max(3);
            let height = patches.extent(count).div_ceil(width).max(2);
            let image = noise(1, (height - 1) * (width - 2));
            let image = Rows::new(&image, width - 2);
            let size = Bordered { top: 1, left: 2, lines: height, width };
            let mut bordered = Vec::new();
            size.copy(image, &mut bordered);
            let (weights, residual) = (noise(2, depth * columns), noise(3, count * columns));
            let bias = noise(4, columns.next_multiple_of(32));
            let residual = Some(Rows::new(&residual, columns));
            let epilogue = Epilogue { bias: &bias, residual, activation: Activation::RELU };
            for kernel in IntKernel::available() {
                let packed = IntWeights::pack(kernel, depth, columns, |n, values| {
                    quantise_weights(&weights[n * depth..][..depth], values)
                });
                let (mut whole, mut found) = (IntRows::default(), IntRows::default());
                whole.set(kernel, Rows::new(&bordered, bordered.len()));
                found.set_image(kernel, image, size);
                assert!(found.values == whole.values[..bordered.len()] && found.scales == whole.scales, "{kernel:?}");
                let mut rows = IntRows::default();
                rows.gather(kernel, &found, patches, 0..count);
                let gathered = patches.gathered(&found.values, count);
                let of_rows = rows.values.chunks(rows.stride).flat_map(|row| &row[..depth]);
                assert!(of_rows.eq(&gathered), "{kernel:?} {patches:?}");
                if !packed.takes(patches) {
                    assert!(!patches.length.is_multiple_of(kernel.terms()));
                    continue;
                }
                let mut products = [(); 2].map(|()| vec![f32::NAN; count * columns]);
                let [direct, of_rows] = &mut products;
                packed.multiply_patches(&found, patches, epilogue, RowsMut::new(direct, columns));
                packed.multiply(&rows, epilogue, RowsMut::new(of_rows, columns));
                assert!(direct == of_rows, "{kernel:?} {patches:?}");
            }
        });
    }

    #[test]
    fn every_kernel_gives_the_same_bits() {
        for rows in (0..=29).chain([64, 199]) {
            for (depth, columns) in [(1, 1), (3, 7), (27, 32), (64, 33), (100, 48), (700, 65)] {
                let case = Case::new(rows, depth, columns);
                for activation in [Activation::None, Activation::RELU, Activation::QuickGelu] {
                    let bits =
                        |kernel| case.product(kernel, activation).into_iter().map(f32::to_bits).collect::<Vec<_>>();
                    let expected = bits(IntKernel::Portable);
                    for kernel in IntKernel::available() {
                        assert!(
                            bits(kernel) == expected,
                            "{kernel:?} [{rows}, {depth}] [{depth}, {columns}] {activation:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_largest_sums_are_exact() {
        // All products have one sign, and all are as large as they can be.
        for sign in [1.0, -1.0] {
            let depth = 4096;
            let (input, weights) = (vec![sign; depth], vec![-127_i8; depth]);
            for kernel in IntKernel::available() {
                let packed = IntWeights::pack(kernel, depth, 1, |_, values| {
                    values.copy_from_slice(&weights);
                    1.0
                });
                let mut rows = IntRows::default();
                rows.set(kernel, Rows::new(&input, depth));
                let mut out = [0.0];
                let epilogue = Epilogue { bias: &[0.0; 32], residual: None, activation: Activation::None };
                packed.multiply(&rows, epilogue, RowsMut::new(&mut out, 1));
                assert_eq!(out[0], (-127.0 * 127.0 * sign * depth as f32) * (1.0 / 127.0), "{kernel:?}");
            }
        }
    }

    #[test]
    fn a_row_without_a_scale_is_not_hidden() {
        for kernel in IntKernel::available() {
            let packed = IntWeights::pack(kernel, 5, 3, |_, values| {
                values.fill(1);
                1.0
            });
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut input = vec![1.0; 15];
                input[7] = bad;
                input[10..].fill(1e-40);
                let mut rows = IntRows::default();
                rows.set(kernel, Rows::new(&input, 5));
                let mut out = [0.5; 9];
                let epilogue = Epilogue { bias: &[0.0; 32], residual: None, activation: Activation::RELU };
                packed.multiply(&rows, epilogue, RowsMut::new(&mut out, 3));
                assert!(out[..3].iter().all(|value| (value - 5.0).abs() < 1e-5), "{out:?}");
                assert!(out[3..6].iter().all(|value| value.is_nan()), "{kernel:?} {bad}: {out:?}");
                assert_eq!(out[6..], [0.0; 3], "what is too small for int8 is nothing");
            }
        }
    }
}
