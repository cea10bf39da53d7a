//! Matrices by rows, and memory that begins at a cache line.

use std::fmt;
use std::mem::align_of;
use std::ops::Range;
use std::sync::Arc;

use bytemuck::Pod;

/// Alignment of packed weights: a cache line (bytes).
pub(crate) const ALIGNMENT: usize = 64;

/// Bytes that several parts of the program hold: a mapped file.
pub(crate) type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Values that begin at a cache line, in memory of their own or in shared bytes.
pub(crate) enum Aligned<T> {
    /// In memory of their own.
    Own {
        /// The values, after some that are not used.
        values: Vec<T>,
        /// Number of those.
        start: usize,
        /// Number of the values.
        count: usize,
    },
    /// In shared bytes.
    Shared {
        /// The bytes.
        bytes: SharedBytes,
        /// Place of the values in them.
        place: Range<usize>,
    },
}

impl<T> fmt::Debug for Aligned<T> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Own { count, .. } => write!(f, "Own({count})"),
            Self::Shared { place, .. } => write!(f, "Shared({place:?})"),
        }
    }
}

impl<T: Pod + Default> Aligned<T> {
    /// `count` values of zero.
    pub(crate) fn zeros(count: usize) -> Self {
        let values = vec![T::default(); count + ALIGNMENT / size_of::<T>()];
        // The distance is in values: a vector is aligned for its own type.
        const { assert!(ALIGNMENT.is_multiple_of(align_of::<T>())) };
        let start = values.as_ptr().align_offset(ALIGNMENT);
        Self::Own { values, start, count }
    }

    /// `count` values from the byte `start` on; none if they are not there, or that is not at a cache line.
    pub(crate) fn shared(bytes: &SharedBytes, start: usize, count: usize) -> Option<Self> {
        let end = count.checked_mul(size_of::<T>())?.checked_add(start)?;
        let found = (**bytes).as_ref().get(start..end)?;
        let is_aligned = found.as_ptr().align_offset(ALIGNMENT) == 0;
        is_aligned.then(|| Self::Shared { bytes: bytes.clone(), place: start..end })
    }

    pub(crate) fn values(&self) -> &[T] {
        match self {
            Self::Own { values, start, count } => &values[*start..][..*count],
            Self::Shared { bytes, place } => bytemuck::cast_slice(&(**bytes).as_ref()[place.clone()]),
        }
    }

    /// The values to change; of shared ones there are none.
    pub(crate) fn values_mut(&mut self) -> &mut [T] {
        match self {
            Self::Own { values, start, count } => &mut values[*start..][..*count],
            Self::Shared { .. } => &mut [],
        }
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

    /// All values, from the first of the first row on.
    pub(crate) fn values(&self) -> &'a [T] {
        self.values
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

    pub(super) fn pointer(&mut self) -> *mut f32 {
        self.values.as_mut_ptr()
    }

    pub(super) fn stride(&self) -> usize {
        self.stride
    }
}
