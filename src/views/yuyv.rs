//! Raw pixels of cameras to RGB.

use super::pixels::Pixels;

/// RGB of a picture in YUYV (4:2:2, BT.601 in limited range, as V4L2's cameras send it), rows `stride` bytes apart.
///
/// `None` if a side is 0, the width is odd, or there are fewer bytes than the rows need.
pub fn yuyv_pixels(width: usize, height: usize, stride: usize, bytes: &[u8]) -> Option<Pixels> {
    // The sizes come from a driver, so that products may overflow.
    let row_bytes = width.checked_mul(2)?;
    // The last row needs no padding.
    let whole = stride.checked_mul(height.checked_sub(1)?)?.checked_add(row_bytes)?;
    if width == 0 || width % 2 == 1 || stride < row_bytes || bytes.len() < whole {
        return None;
    }
    let mut rgb = Vec::with_capacity(width * height * 3);
    for row in bytes.chunks(stride).take(height) {
        for pair in row[..row_bytes].chunks_exact(4) {
            let (u, v) = (i32::from(pair[1]) - 128, i32::from(pair[3]) - 128);
            for luma in [pair[0], pair[2]] {
                // BT.601's coefficients times 256: 298 is 256 · 255 / 219, and adding 128 rounds.
                let y = 298 * (i32::from(luma) - 16);
                let level = |value: i32| ((value + 128) >> 8).clamp(0, 255) as u8;
                rgb.extend([level(y + 409 * v), level(y - 100 * u - 208 * v), level(y + 516 * u)]);
            }
        }
    }
    Some(Pixels::new(width, height, rgb))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_colours_come_out_right() {
        // Black, white, and the primaries of BT.601 in limited range, within a level of the exact conversion.
        for (yuv, rgb) in [
            ([16, 128, 128], [0, 0, 0]),
            ([235, 128, 128], [255, 255, 255]),
            ([82, 90, 240], [255, 0, 0]),
            ([145, 54, 34], [0, 255, 0]),
            ([41, 240, 110], [0, 0, 255]),
            ([126, 128, 128], [128, 128, 128]),
        ] {
            let [y, u, v] = yuv;
            let found = yuyv_pixels(2, 1, 4, &[y, u, y, v]).unwrap();
            let worst = found.bytes().iter().zip([rgb, rgb].as_flattened()).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(worst < Some(3), "{yuv:?}: {:?}", found.bytes());
        }
    }

    #[test]
    fn rows_may_be_padded_and_must_be_whole() {
        let bytes = [16, 128, 235, 128, 9, 9, 235, 128, 16, 128];
        let found = yuyv_pixels(2, 2, 6, &bytes).unwrap();
        assert_eq!(found.bytes(), [0, 0, 0, 255, 255, 255, 255, 255, 255, 0, 0, 0]);
        assert!(yuyv_pixels(2, 2, 6, &bytes[..9]).is_none(), "cut short");
        for (width, height, stride) in
            [(0, 1, 4), (2, 0, 4), (3, 1, 6), (4, 1, 4), (usize::MAX, 2, 4), (2, usize::MAX, 6)]
        {
            assert!(yuyv_pixels(width, height, stride, &bytes).is_none(), "{width}×{height}, {stride}");
        }
    }
}
