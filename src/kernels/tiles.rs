//! What the product kernels share: matrices by rows, aligned memory, what follows a product, and the size of a block of rows.

use std::mem::align_of;

use super::activation::Activation;
use super::lanes::Lanes;

/// Rows of the largest tile.
pub(super) const TILE_ROWS_MAX: usize = 14;
/// Values of the largest tile.
pub(super) const TILE_VALUES_MAX: usize = TILE_ROWS_MAX * 32;
/// What a block of rows may take of the second cache (bytes).
const BLOCK_BYTES: usize = 256 << 10;
/// Alignment of packed weights: a cache line (bytes).
const ALIGNMENT: usize = 64;

/// Rows of a block that stays in the cache, a multiple of `tile`.
pub(super) fn row_block(row_bytes: usize, tile: usize) -> usize {
    (BLOCK_BYTES / row_bytes.max(1)).max(tile) / tile * tile
}

/// Values that begin at a cache line.
#[derive(Debug)]
pub(crate) struct Aligned<T> {
    values: Vec<T>,
    start: usize,
    count: usize,
}

impl<T: Copy + Default> Aligned<T> {
    /// `count` values of zero.
    pub(crate) fn zeros(count: usize) -> Self {
        let values = vec![T::default(); count + ALIGNMENT / size_of::<T>()];
        // The distance is in values: a vector is aligned for its own type.
        const { assert!(ALIGNMENT.is_multiple_of(align_of::<T>())) };
        let start = values.as_ptr().align_offset(ALIGNMENT);
        Self { values, start, count }
    }

    pub(crate) fn values(&self) -> &[T] {
        &self.values[self.start..][..self.count]
    }

    pub(crate) fn values_mut(&mut self) -> &mut [T] {
        &mut self.values[self.start..][..self.count]
    }
}

/// A matrix whose rows lie at equal distances.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a, T> {
    values: &'a [T],
    /// Number of rows.
    pub count: usize,
    /// Values of a row.
    pub width: usize,
    stride: usize,
}

impl<'a, T> Rows<'a, T> {
    /// Rows of `width` values, one behind the other.
    pub(crate) fn new(values: &'a [T], width: usize) -> Self {
        Self::strided(values, values.len() / width.max(1), width, width)
    }

    /// `count` rows of `width` values, `stride` apart.
    pub(crate) fn strided(values: &'a [T], count: usize, width: usize, stride: usize) -> Self {
        assert!(width <= stride && (count == 0 || values.len() >= (count - 1) * stride + width));
        Self { values, count, width, stride }
    }

    pub(super) fn row(&self, index: usize) -> &'a [T] {
        &self.values[index * self.stride..][..self.width]
    }

    pub(super) fn pointer(&self) -> *const T {
        self.values.as_ptr()
    }

    pub(super) fn stride(&self) -> usize {
        self.stride
    }
}

/// A matrix that is written, its rows at equal distances.
#[derive(Debug)]
pub(crate) struct RowsMut<'a> {
    values: &'a mut [f32],
    /// Number of rows.
    pub count: usize,
    /// Values of a row.
    pub width: usize,
    stride: usize,
}

impl<'a> RowsMut<'a> {
    /// Rows of `width` values, one behind the other.
    pub(crate) fn new(values: &'a mut [f32], width: usize) -> Self {
        let count = values.len() / width.max(1);
        Self { values, count, width, stride: width }
    }

    /// `count` rows of `width` values, `stride` apart.
    pub(crate) fn strided(values: &'a mut [f32], count: usize, width: usize, stride: usize) -> Self {
        assert!(width <= stride && (count == 0 || values.len() >= (count - 1) * stride + width));
        Self { values, count, width, stride }
    }
}

/// What follows the sums of a product, in this order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epilogue<'a> {
    /// A number for each column, filled up with zeros to whole panels.
    pub bias: &'a [f32],
    /// A matrix as large as the product.
    pub residual: Option<Rows<'a, f32>>,
    pub activation: Activation,
}

/// Where a product's tiles go.
pub(super) struct Target<'a> {
    pub out: *mut f32,
    pub out_stride: usize,
    pub columns: usize,
    pub epilogue: Epilogue<'a>,
}

impl<'a> Target<'a> {
    /// The target of `out`; panics unless the sizes are those of a product.
    pub(super) fn new(out: &mut RowsMut, epilogue: Epilogue<'a>, panel: usize) -> Self {
        assert!(epilogue.bias.len() >= out.width.next_multiple_of(panel));
        assert!(epilogue.residual.is_none_or(|residual| residual.count == out.count && residual.width == out.width));
        Self { out: out.values.as_mut_ptr(), out_stride: out.stride, columns: out.width, epilogue }
    }

    /// Adds bias and residual to the sums of a tile, applies the activation and stores what is within the matrix.
    ///
    /// # Safety
    /// As that of [`Lanes`]; rows and `column` are within the matrix, and no other thread writes there.
    #[inline(always)]
    pub(super) unsafe fn finish<L: Lanes, const M: usize, const V: usize>(
        &self,
        sums: [[L::Vector; V]; M],
        row: usize,
        column: usize,
    ) {
        let width = V * L::COUNT;
        let columns = width.min(self.columns - column);
        unsafe {
            let out = self.out.add(row * self.out_stride + column);
            if columns == width {
                let residual = self
                    .epilogue
                    .residual
                    .map(|residual| (residual.values.as_ptr().add(row * residual.stride + column), residual.stride));
                self.store::<L, M, V>(sums, residual, out, self.out_stride, column);
                return;
            }
            // A tile that reaches over the last column is made beside the matrix, and then copied.
            let mut whole = [0.0_f32; TILE_VALUES_MAX];
            let mut added = [0.0_f32; TILE_VALUES_MAX];
            let residual = self.epilogue.residual.map(|residual| {
                for (place, slots) in added.chunks_exact_mut(width).take(M).enumerate() {
                    slots[..columns].copy_from_slice(&residual.row(row + place)[column..][..columns]);
                }
                (added.as_ptr(), width)
            });
            self.store::<L, M, V>(sums, residual, whole.as_mut_ptr(), width, column);
            for (place, values) in whole.chunks_exact(width).take(M).enumerate() {
                std::ptr::copy_nonoverlapping(values.as_ptr(), out.add(place * self.out_stride), columns);
            }
        }
    }

    #[inline(always)]
    unsafe fn store<L: Lanes, const M: usize, const V: usize>(
        &self,
        sums: [[L::Vector; V]; M],
        residual: Option<(*const f32, usize)>,
        out: *mut f32,
        stride: usize,
        column: usize,
    ) {
        let Epilogue { bias, activation, .. } = self.epilogue;
        unsafe {
            for (place, sums) in sums.iter().enumerate() {
                let to = out.add(place * stride);
                for (vector, &sum) in sums.iter().enumerate() {
                    let at = vector * L::COUNT;
                    let mut value = L::add(sum, L::load(bias.as_ptr().add(column + at)));
                    if let Some((residual, stride)) = residual {
                        value = L::add(value, L::load(residual.add(place * stride + at)));
                    }
                    if let Activation::Clamp { low, high } = activation {
                        value = L::smaller(L::splat(high), L::larger(L::splat(low), value));
                    }
                    L::store(to.add(at), value);
                }
                if !matches!(activation, Activation::Clamp { .. } | Activation::None) {
                    activation.apply(std::slice::from_raw_parts_mut(to, V * L::COUNT));
                }
            }
        }
    }
}
