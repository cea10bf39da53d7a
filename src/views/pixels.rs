//! An 8-bit RGB image in memory, and the rectangle type that crops are described with.

/// An 8-bit RGB image, row-major, channels interleaved: `bytes[(y * width + x) * 3 + channel]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    width: usize,
    height: usize,
    bytes: Vec<u8>,
}

/// A rectangle of an image, in pixels; always inside the image it was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Leftmost column.
    pub left: usize,
    /// Topmost row.
    pub top: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Pixels {
    /// Wraps interleaved RGB bytes.
    ///
    /// # Panics
    /// If a side is 0 or `bytes` is not `width * height * 3` long: both are mistakes of the caller.
    pub fn new(width: usize, height: usize, bytes: Vec<u8>) -> Self {
        assert!(width > 0 && height > 0, "an image has at least one pixel");
        // No overflow, not even in 32 bits: `IMAGE_PIXELS_MAX` and `CAMERA_SIDE_MAX` bound the area of what comes in.
        assert_eq!(bytes.len(), width * height * 3, "three bytes a pixel");
        Self { width, height, bytes }
    }

    /// A black image.
    pub fn black(width: usize, height: usize) -> Self {
        Self::new(width, height, vec![0; width * height * 3])
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The interleaved bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The interleaved bytes, to change in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// The bytes of row `y`.
    pub fn row(&self, y: usize) -> &[u8] {
        &self.bytes[y * self.width * 3..][..self.width * 3]
    }

    /// The bytes of row `y`, to change in place.
    pub fn row_mut(&mut self, y: usize) -> &mut [u8] {
        &mut self.bytes[y * self.width * 3..][..self.width * 3]
    }

    /// The three channels of one pixel.
    pub fn at(&self, x: usize, y: usize) -> [u8; 3] {
        let start = (y * self.width + x) * 3;
        [self.bytes[start], self.bytes[start + 1], self.bytes[start + 2]]
    }

    /// The whole image as a region.
    pub fn whole(&self) -> Region {
        Region { left: 0, top: 0, width: self.width, height: self.height }
    }

    /// A copy of one region.
    pub fn crop(&self, region: Region) -> Self {
        let bytes = (region.top..region.top + region.height)
            .flat_map(|y| &self.row(y)[region.left * 3..][..region.width * 3])
            .copied()
            .collect();
        Self::new(region.width, region.height, bytes)
    }

    /// Mirrors left and right in place.
    pub fn flip_horizontal(&mut self) {
        let width = self.width;
        for y in 0..self.height {
            let row = self.row_mut(y);
            for x in 0..width / 2 {
                for channel in 0..3 {
                    row.swap(x * 3 + channel, (width - 1 - x) * 3 + channel);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flips_odd_and_even_widths() {
        let mut odd = Pixels::new(3, 1, vec![1, 2, 3, 4, 5, 6, 7, 8, 9]);
        odd.flip_horizontal();
        assert_eq!(odd.bytes(), [7, 8, 9, 4, 5, 6, 1, 2, 3]);
        let mut even = Pixels::new(2, 1, vec![1, 2, 3, 4, 5, 6]);
        even.flip_horizontal();
        assert_eq!(even.bytes(), [4, 5, 6, 1, 2, 3]);
    }

    #[test]
    fn crops_a_region() {
        let image = Pixels::new(3, 2, (0..18).collect());
        let crop = image.crop(Region { left: 1, top: 1, width: 2, height: 1 });
        assert_eq!(crop.bytes(), [12, 13, 14, 15, 16, 17]);
    }
}
