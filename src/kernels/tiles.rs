//! What the product kernels share: the order of a product's tiles, and what follows its sums.

use std::ops::Range;

use super::activation::Activation;
use super::lanes::Lanes;
use super::matrix::{Rows, RowsMut};

/// Columns of the widest tile.
const TILE_COLUMNS_MAX: usize = 32;

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
        Self { out: out.pointer(), out_stride: out.stride(), columns: out.width, epilogue }
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
                    .map(|residual| (residual.pointer().add(row * residual.stride() + column), residual.stride()));
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
            // Asked once a tile, and not once a row.
            match residual {
                None => {
                    for_each_row!(M, place => {
                        let to = out.add(place * stride);
                        for (vector, (&sum, &bias)) in sums[place].iter().zip(&of_columns).enumerate() {
                            let value = L::add(sum, bias);
                            L::store(to.add(vector * L::COUNT), L::smaller(high, L::larger(low, value)));
                        }
                    });
                }
                Some((residual, distance)) => {
                    for_each_row!(M, place => {
                        let (to, residual) = (out.add(place * stride), residual.add(place * distance));
                        for (vector, (&sum, &bias)) in sums[place].iter().zip(&of_columns).enumerate() {
                            let at = vector * L::COUNT;
                            let value = L::add(L::add(sum, bias), L::load(residual.add(at)));
                            L::store(to.add(at), L::smaller(high, L::larger(low, value)));
                        }
                    });
                }
            }
            if !matches!(activation, Activation::Clamp { .. } | Activation::None) {
                for place in 0..M {
                    let row = std::slice::from_raw_parts_mut(out.add(place * stride), V * L::COUNT);
                    activation.apply(row);
                }
            }
        }
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
}
