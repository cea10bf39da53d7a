//! What the product kernels share: matrices by rows, aligned memory, what follows a product, and the order of its tiles.

use std::fmt;
use std::mem::align_of;
use std::ops::Range;
use std::sync::Arc;

use bytemuck::Pod;

use super::activation::Activation;
use super::lanes::Lanes;

/// Columns of the widest tile.
const TILE_COLUMNS_MAX: usize = 32;
/// What a block of rows may take of the second cache (bytes).
pub(super) const BLOCK_BYTES: usize = 256 << 10;
/// Alignment of packed weights: a cache line (bytes).
pub(crate) const ALIGNMENT: usize = 64;

/// Rows of a block that stays in the cache, a multiple of `tile`.
fn row_block(row_bytes: usize, tile: usize) -> usize {
    (BLOCK_BYTES / row_bytes.max(1)).max(tile) / tile * tile
}

/// Evaluates an expression for each row of a tile, in straight code: a compiler that leaves it in a loop has the sums in memory.
macro_rules! for_each_row {
    ($rows:ident, $place:ident => $body:expr) => {
        $crate::kernels::tiles::for_each_row!($rows, $place => $body; 0 1 2 3 4 5 6 7 8 9 10 11 12 13)
    };
    ($rows:ident, $place:ident => $body:expr; $($number:literal)*) => {
        $(if $number < $rows {
            let $place: usize = $number;
            $body
        })*
    };
}
pub(super) use for_each_row;

/// A product that is computed by tiles of M rows and of U vectors of the V in a panel.
///
/// # Safety
/// As that of [`Lanes`].
pub(super) unsafe trait Tiles {
    /// Sums in a vector.
    const LANES: usize;

    /// Computes one tile, which is within the matrix.
    unsafe fn tile<const M: usize, const V: usize, const U: usize>(&self, place: Place);
}

/// Place of a tile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// First row.
    pub row: usize,
    /// First column.
    pub column: usize,
    /// Number of the tile in its panel.
    index: usize,
    /// Tiles of a panel.
    count: usize,
}

impl Place {
    /// The address of this tile's share of the next panel, whose parts it has brought meanwhile, and the distance of each step's.
    ///
    /// `weights` are this panel's, `panel` is the size of a panel and `step` what a step of `steps` uses of it (bytes).
    #[inline(always)]
    pub(super) fn ahead<T>(&self, weights: *const T, panel: usize, steps: usize, step: usize) -> (*const u8, usize) {
        let share = step / self.count;
        (weights.cast::<u8>().wrapping_add(panel + self.index * share * steps), share)
    }
}

/// All tiles of `rows` and of the columns before `columns`. No tile is in two lines of `line` rows, which `rows` begin with.
///
/// # Safety
/// As that of [`Lanes`]; the rows and columns are within the matrix.
#[inline(always)]
pub(super) unsafe fn all_tiles<T: Tiles, const M: usize, const V: usize>(
    product: &T,
    rows: Range<usize>,
    line: usize,
    columns: usize,
) {
    for column in (0..columns).step_by(V * T::LANES) {
        unsafe {
            // In a last panel of few vectors the others hold nothing.
            if columns - column <= T::LANES {
                panel_tiles::<T, M, V, 1>(product, rows.clone(), line, column);
            } else if V > 2 && columns - column <= 2 * T::LANES {
                panel_tiles::<T, M, V, 2>(product, rows.clone(), line, column);
            } else {
                panel_tiles::<T, M, V, V>(product, rows.clone(), line, column);
            }
        }
    }
}

/// The tiles of a panel.
#[inline(always)]
unsafe fn panel_tiles<T: Tiles, const M: usize, const V: usize, const U: usize>(
    product: &T,
    rows: Range<usize>,
    line: usize,
    column: usize,
) {
    const { assert!(M <= 14, "larger tiles are not listed below") }
    let tiles = |rows: usize| rows.div_ceil(M);
    let count = rows.len() / line * tiles(line) + tiles(rows.len() % line);
    let mut place = Place { row: rows.start, column, index: 0, count };
    let mut end = rows.start;
    while place.row < rows.end {
        if place.row == end {
            end = rows.end.min(end.saturating_add(line));
        }
        let left = end - place.row;
        // The last two tiles of a line are alike: a tile of few rows costs nearly as much as one of many.
        let taken = if left >= 2 * M || left <= M { left.min(M) } else { left.div_ceil(2) };
        unsafe {
            // What the guards leave out is not compiled.
            match taken {
                1 if M > 1 => product.tile::<1, V, U>(place),
                2 if M > 2 => product.tile::<2, V, U>(place),
                3 if M > 3 => product.tile::<3, V, U>(place),
                4 if M > 4 => product.tile::<4, V, U>(place),
                5 if M > 5 => product.tile::<5, V, U>(place),
                6 if M > 6 => product.tile::<6, V, U>(place),
                7 if M > 7 => product.tile::<7, V, U>(place),
                8 if M > 8 => product.tile::<8, V, U>(place),
                9 if M > 9 => product.tile::<9, V, U>(place),
                10 if M > 10 => product.tile::<10, V, U>(place),
                11 if M > 11 => product.tile::<11, V, U>(place),
                12 if M > 12 => product.tile::<12, V, U>(place),
                13 if M > 13 => product.tile::<13, V, U>(place),
                _ => product.tile::<M, V, U>(place),
            }
        }
        place.row += taken;
        place.index += 1;
    }
}

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

/// Where the terms of rows lie that share them: the patches of a filter over an image, whose outputs are the rows, line by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Patches {
    /// Rows of a line.
    pub line: usize,
    /// From the first term of a row to that of the next in its line (values).
    pub row_distance: usize,
    /// From the first term of a line's first row to that of the next line's.
    pub line_distance: usize,
    /// Where the parts of a row's terms begin, counted from the first.
    pub parts: Vec<usize>,
    /// Terms of a part.
    pub length: usize,
}

impl Patches {
    /// K, the terms of each row.
    pub(crate) fn depth(&self) -> usize {
        self.parts.len() * self.length
    }

    /// Values that `rows` rows, which end a line, lie within.
    pub(super) fn extent(&self, rows: usize) -> usize {
        let lines = rows.div_ceil(self.line.max(1));
        match (lines.checked_sub(1), self.line.checked_sub(1), self.parts.iter().max()) {
            (Some(line), Some(row), Some(part)) => {
                line * self.line_distance + row * self.row_distance + part + self.length
            }
            _ => 0,
        }
    }
}

/// An image with zeros around it (sizes in values and lines).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bordered {
    /// Lines of zeros above the image.
    pub top: usize,
    /// Zeros at the beginning of each line.
    pub left: usize,
    /// All lines; those of the image that are beyond are left out.
    pub lines: usize,
    /// Values of each line, likewise.
    pub width: usize,
}

impl Bordered {
    /// Copies an image, whose lines are the rows of `image`, into `out`, with the zeros.
    pub(crate) fn copy(&self, image: Rows<f32>, out: &mut Vec<f32>) {
        self.fill(image, 0.0, out, |values, slots| slots.copy_from_slice(values));
    }

    /// Puts an image into `out`, with `zero` around it; `put` makes the values of a line, or of its beginning.
    #[inline(always)]
    pub(super) fn fill<T: Copy>(
        &self,
        image: Rows<f32>,
        zero: T,
        out: &mut Vec<T>,
        mut put: impl FnMut(&[f32], &mut [T]),
    ) {
        out.resize(self.lines * self.width, zero);
        for (place, line) in out.chunks_exact_mut(self.width.max(1)).enumerate() {
            match place.checked_sub(self.top).filter(|&line| line < image.count) {
                None => line.fill(zero),
                Some(from) => {
                    let (before, rest) = line.split_at_mut(self.left.min(self.width));
                    let (values, after) = rest.split_at_mut(image.width.min(rest.len()));
                    before.fill(zero);
                    put(&image.row(from)[..values.len()], values);
                    after.fill(zero);
                }
            }
        }
    }
}

/// [`Patches`] as the kernels go through them.
#[derive(Clone, Copy)]
pub(super) struct Reach<'a> {
    pub line: usize,
    pub row_distance: usize,
    pub line_distance: usize,
    pub parts: &'a [usize],
    pub length: usize,
}

impl<'a> Reach<'a> {
    /// Rows of `length` values, each by itself.
    pub(super) fn rows(length: usize, row_distance: usize) -> Self {
        Self { line: usize::MAX, row_distance, line_distance: 0, parts: &[0], length }
    }

    pub(super) fn patches(patches: &'a Patches) -> Self {
        let &Patches { line, row_distance, line_distance, ref parts, length } = patches;
        Self { line, row_distance, line_distance, parts, length }
    }

    /// Rows of a block that stays in the cache: whole tiles, or whole lines.
    #[inline(always)]
    pub(super) fn block(&self, value_bytes: usize, tile: usize) -> usize {
        if self.line == usize::MAX {
            return row_block(self.row_distance * value_bytes, tile);
        }
        (BLOCK_BYTES / (self.line_distance * value_bytes).max(1)).max(1) * self.line
    }

    /// Where a row's first term is, counted from the first row's.
    #[inline(always)]
    pub(super) fn start(&self, row: usize) -> usize {
        row / self.line * self.line_distance + row % self.line * self.row_distance
    }
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
            // A row that reaches over the last column is made beside the matrix, and then copied.
            for (place, sums) in sums.into_iter().enumerate() {
                let mut whole = [0.0_f32; TILE_COLUMNS_MAX];
                let mut added = [0.0_f32; TILE_COLUMNS_MAX];
                let residual = self.epilogue.residual.map(|residual| {
                    added[..columns].copy_from_slice(&residual.row(row + place)[column..][..columns]);
                    (added.as_ptr(), width)
                });
                self.store::<L, 1, V>([sums], residual, whole.as_mut_ptr(), width, column);
                std::ptr::copy_nonoverlapping(whole.as_ptr(), out.add(place * self.out_stride), columns);
            }
        }
    }

    /// Puts the sums of a tile, some terms of which are still to come, where the product will be.
    ///
    /// # Safety
    /// As of [`Self::finish`].
    #[inline(always)]
    pub(super) unsafe fn keep<L: Lanes, const M: usize, const V: usize>(
        &self,
        sums: &[[L::Vector; V]; M],
        row: usize,
        column: usize,
    ) {
        let width = V * L::COUNT;
        let columns = width.min(self.columns - column);
        unsafe {
            let out = self.out.add(row * self.out_stride + column);
            for (place, sums) in sums.iter().enumerate() {
                let to = out.add(place * self.out_stride);
                if columns == width {
                    sums.iter().enumerate().for_each(|(at, &sum)| L::store(to.add(at * L::COUNT), sum));
                } else {
                    let mut whole = [0.0_f32; TILE_COLUMNS_MAX];
                    sums.iter().enumerate().for_each(|(at, &sum)| L::store(whole.as_mut_ptr().add(at * L::COUNT), sum));
                    std::ptr::copy_nonoverlapping(whole.as_ptr(), to, columns);
                }
            }
        }
    }

    /// The sums that [`Self::keep`] kept.
    ///
    /// # Safety
    /// As of [`Self::finish`].
    #[inline(always)]
    pub(super) unsafe fn kept<L: Lanes, const M: usize, const V: usize>(
        &self,
        row: usize,
        column: usize,
    ) -> [[L::Vector; V]; M] {
        let width = V * L::COUNT;
        let columns = width.min(self.columns - column);
        unsafe {
            let mut sums = [[L::splat(0.0); V]; M];
            let out = self.out.add(row * self.out_stride + column);
            for (place, sums) in sums.iter_mut().enumerate() {
                let mut from = out.add(place * self.out_stride).cast_const();
                let mut whole = [0.0_f32; TILE_COLUMNS_MAX];
                if columns < width {
                    std::ptr::copy_nonoverlapping(from, whole.as_mut_ptr(), columns);
                    from = whole.as_ptr();
                }
                sums.iter_mut().enumerate().for_each(|(at, sum)| *sum = L::load(from.add(at * L::COUNT)));
            }
            sums
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
        // Without a clamp, one that changes nothing: no value is asked what follows it.
        let [low, high] = match activation {
            Activation::Clamp { low, high } => [low, high],
            _ => [f32::NEG_INFINITY, f32::INFINITY],
        };
        unsafe {
            let [low, high] = [L::splat(low), L::splat(high)];
            let mut of_columns = [low; V];
            for (vector, bias_of) in of_columns.iter_mut().enumerate() {
                *bias_of = L::load(bias.as_ptr().add(column + vector * L::COUNT));
            }
            for (place, sums) in sums.iter().enumerate() {
                let to = out.add(place * stride);
                for (vector, (&sum, &bias)) in sums.iter().zip(&of_columns).enumerate() {
                    let at = vector * L::COUNT;
                    let mut value = L::add(sum, bias);
                    if let Some((residual, stride)) = residual {
                        value = L::add(value, L::load(residual.add(place * stride + at)));
                    }
                    L::store(to.add(at), L::smaller(high, L::larger(low, value)));
                }
                if !matches!(activation, Activation::Clamp { .. } | Activation::None) {
                    activation.apply(std::slice::from_raw_parts_mut(to, V * L::COUNT));
                }
            }
        }
    }
}

#[cfg(test)]
impl Patches {
    /// Patches with the number of their lines: lines of few rows and of many, filters of one part and of several, steps of one and two.
    pub(super) fn samples() -> Vec<(Self, usize)> {
        let mut samples = Vec::new();
        for line in [1, 7, 14, 15, 29, 56] {
            for (channels, step, size, spread) in
                [(64, 1, 3, 1), (32, 2, 3, 1), (16, 1, 2, 2), (3, 2, 3, 1), (300, 1, 1, 1)]
            {
                let width = ((line - 1) * step + (size - 1) * spread + 1) * channels;
                let (parts, length) = if spread == 1 { (1, size * channels) } else { (size, channels) };
                let places = (0..size).flat_map(|y| (0..parts).map(move |x| (y, x)));
                let parts = places.map(|(y, x)| y * spread * width + x * spread * channels).collect();
                let patches = Self { line, row_distance: step * channels, line_distance: step * width, parts, length };
                samples.push((patches, 3));
            }
        }
        samples
    }

    /// The rows one behind the other.
    pub(super) fn gathered<T: Copy>(&self, image: &[T], count: usize) -> Vec<T> {
        let starts = (0..count).map(|row| row / self.line * self.line_distance + row % self.line * self.row_distance);
        let parts = starts.flat_map(|start| self.parts.iter().map(move |part| start + part));
        parts.flat_map(|start| image[start..start + self.length].iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes the tiles that it is asked for.
    struct Noted(std::cell::RefCell<Vec<(usize, usize, usize, usize)>>);

    unsafe impl Tiles for Noted {
        const LANES: usize = 4;

        unsafe fn tile<const M: usize, const V: usize, const U: usize>(&self, place: Place) {
            self.0.borrow_mut().push((place.row, M, place.index, place.count));
        }
    }

    #[test]
    fn tiles_cover_all_rows_once_and_no_two_lines() {
        for line in [1, 5, 7, 8, 14, 15, 16, 29, usize::MAX] {
            for rows in [0, 1, 5, 13, 14, 15, 28, 29, 30, 145] {
                let noted = Noted(Default::default());
                unsafe { all_tiles::<Noted, 14, 2>(&noted, 0..rows, line, 1) }
                let tiles = noted.0.into_inner();
                let mut next = 0;
                for (place, &(row, count, index, of)) in tiles.iter().enumerate() {
                    assert_eq!((row, index, of), (next, place, tiles.len()), "{rows} rows, lines of {line}");
                    assert_eq!(row / line, (row + count - 1) / line, "{rows} rows, lines of {line}");
                    next += count;
                }
                assert_eq!(next, rows, "lines of {line}");
            }
        }
    }

    #[test]
    fn an_image_is_put_among_zeros() {
        let image: Vec<f32> = (1..=6).map(|value| value as f32).collect();
        let mut out = vec![9.0; 40];
        Bordered { top: 1, left: 1, lines: 4, width: 5 }.copy(Rows::new(&image, 3), &mut out);
        let rest = [0.0; 5];
        assert_eq!(out, [&rest[..], &[0.0, 1.0, 2.0, 3.0, 0.0], &[0.0, 4.0, 5.0, 6.0, 0.0], &rest].concat());
        // What has no room is left out.
        Bordered { top: 0, left: 1, lines: 1, width: 3 }.copy(Rows::new(&image, 3), &mut out);
        assert_eq!(out, [0.0, 1.0, 2.0]);
    }
}
