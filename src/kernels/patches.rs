//! Patches of a filter over an image, and the image with zeros around it.

use super::matrix::Rows;

/// What a block of rows may take of the second cache (bytes).
pub(super) const BLOCK_BYTES: usize = 256 << 10;

/// Where the terms of rows lie that share them: the patches of a filter over an image, whose outputs are the rows, line by line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patches<'a> {
    /// Rows of a line.
    pub line: usize,
    /// From the first term of a row to that of the next in its line (values).
    pub row_distance: usize,
    /// From the first term of a line's first row to that of the next line's.
    pub line_distance: usize,
    /// Where the parts of a row's terms begin, counted from the first.
    pub parts: &'a [usize],
    /// Terms of a part.
    pub length: usize,
}

impl Patches<'static> {
    /// Rows of `length` values, each by itself: all are one line.
    pub(super) fn rows(length: usize, row_distance: usize) -> Self {
        Self { line: usize::MAX, row_distance, line_distance: 0, parts: &[0], length }
    }
}

impl Patches<'_> {
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

    /// Rows of a block that stays in the cache: whole tiles of `tile`, or whole lines.
    #[inline(always)]
    pub(super) fn block(&self, value_bytes: usize, tile: usize) -> usize {
        if self.line == usize::MAX {
            return (BLOCK_BYTES / (self.row_distance * value_bytes).max(1)).max(tile) / tile * tile;
        }
        (BLOCK_BYTES / (self.line_distance * value_bytes).max(1)).max(1) * self.line
    }

    /// Where a row's first term is, counted from the first row's.
    #[inline(always)]
    pub(super) fn start(&self, row: usize) -> usize {
        if row < self.line {
            return row * self.row_distance;
        }
        row / self.line * self.line_distance + row % self.line * self.row_distance
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

#[cfg(test)]
impl Patches<'_> {
    /// Calls `check` with patches and the number of their lines: lines of few rows and of many, filters of one part and of several, steps of
    /// one and two.
    pub(super) fn samples(mut check: impl FnMut(Patches, usize)) {
        for line in [1, 7, 14, 15, 29, 56] {
            for (channels, step, size, spread) in
                [(64, 1, 3, 1), (32, 2, 3, 1), (16, 1, 2, 2), (3, 2, 3, 1), (300, 1, 1, 1)]
            {
                let width = ((line - 1) * step + (size - 1) * spread + 1) * channels;
                let (across, length) = if spread == 1 { (1, size * channels) } else { (size, channels) };
                let places = (0..size).flat_map(|y| (0..across).map(move |x| (y, x)));
                let parts: Vec<usize> = places.map(|(y, x)| y * spread * width + x * spread * channels).collect();
                let (row_distance, line_distance) = (step * channels, step * width);
                check(Patches { line, row_distance, line_distance, parts: &parts, length }, 3);
            }
        }
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
