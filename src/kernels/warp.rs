//! Affine maps with bilinear sampling, in f64: Pillow's arithmetic, operation by operation.

use super::pixels::PixelKernel;

/// Three-channel image that is sampled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    /// Rows of `width` pixels, one behind the other.
    pub bytes: &'a [u8],
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// Samples `source` at (a x + b y + c, d x + e y + f) for the centre (x, y) of every pixel of `out`, which is as large; what falls outside is left.
pub(crate) fn warp(kernel: PixelKernel, source: Source, map: [f64; 6], out: &mut [u8]) {
    let Source { bytes, width, height } = source;
    assert!(width > 0 && bytes.len() == width * height * 3 && out.len() == bytes.len());
    let [a, b, c, d, e, f] = map;
    let moves = |along: f64, across: f64, by: f64| {
        (along == 1.0 && across == 0.0 && by.fract() == 0.0 && by.abs() < f64::from(i32::MAX)).then_some(by as i64)
    };
    match (moves(a, b, c), moves(e, d, f)) {
        (Some(right), Some(down)) => shift(source, right, down, out),
        (None, Some(_)) => sampled::<false, true>(kernel, source, map, out),
        (Some(_), None) => sampled::<true, false>(kernel, source, map, out),
        (None, None) => sampled::<false, false>(kernel, source, map, out),
    }
}

/// A move by whole pixels, which mixes none.
fn shift(source: Source, right: i64, down: i64, out: &mut [u8]) {
    let Source { bytes, width, height } = source;
    // Columns of the output that come from within the image.
    let clip = |column: i64| column.clamp(0, width as i64) as usize;
    let (first, end) = (clip(-right), clip(width as i64 - right));
    if first >= end {
        return;
    }
    for (y, line) in out.chunks_exact_mut(width * 3).enumerate() {
        let from = y as i64 + down;
        if (0..height as i64).contains(&from) {
            let start = (from as usize * width + (first as i64 + right) as usize) * 3;
            line[first * 3..end * 3].copy_from_slice(&bytes[start..][..(end - first) * 3]);
        }
    }
}

/// The map with samples; columns, or rows, are moved by whole pixels where `COLUMNS`, or `ROWS`, so that none of them are mixed.
fn sampled<const COLUMNS: bool, const ROWS: bool>(kernel: PixelKernel, source: Source, map: [f64; 6], out: &mut [u8]) {
    match kernel {
        #[cfg(target_arch = "x86_64")]
        // The kernel was found on this processor.
        PixelKernel::Avx2 => unsafe { x86::sampled::<COLUMNS, ROWS>(source, map, out) },
        _ => each::<COLUMNS, ROWS>(source, map, out, |place, weights| mixed(source.bytes, place, weights)),
    }
}

/// Calls `sample` with the four pixels around each place and the weights of those on the right and below.
fn each<const COLUMNS: bool, const ROWS: bool>(
    source: Source,
    map: [f64; 6],
    out: &mut [u8],
    sample: impl Fn([usize; 4], [f64; 2]) -> [u8; 3],
) {
    for (y, line) in out.chunks_exact_mut(source.width * 3).enumerate() {
        for (x, target) in line.chunks_exact_mut(3).enumerate() {
            one::<COLUMNS, ROWS>(source, map, [x, y], target, &sample);
        }
    }
}

#[inline(always)]
fn one<const COLUMNS: bool, const ROWS: bool>(
    source: Source,
    [a, b, c, d, e, f]: [f64; 6],
    [x, y]: [usize; 2],
    target: &mut [u8],
    sample: &impl Fn([usize; 4], [f64; 2]) -> [u8; 3],
) {
    let Source { width, height, .. } = source;
    let (center_x, center_y) = (x as f64 + 0.5, y as f64 + 0.5);
    let (at_x, at_y) = (a * center_x + b * center_y + c, d * center_x + e * center_y + f);
    // Pillow tests the point alone, not the four pixels around it, so that no edge is mixed with black.
    if at_x >= 0.0 && at_x < width as f64 && at_y >= 0.0 && at_y < height as f64 {
        let (x0, x1, weight_x) = neighbours::<COLUMNS>(at_x - 0.5, width);
        let (y0, y1, weight_y) = neighbours::<ROWS>(at_y - 0.5, height);
        let (above, below) = (y0 * width, y1 * width);
        let places = [above + x0, above + x1, below + x0, below + x1];
        target.copy_from_slice(&sample(places, [weight_x, weight_y]));
    }
}

/// The two pixels around a position of at least -1/2, and the weight of the second; the position is a whole number where `WHOLE`.
#[inline(always)]
fn neighbours<const WHOLE: bool>(position: f64, size: usize) -> (usize, usize, f64) {
    if WHOLE {
        let place = position as i64 as usize;
        return (place, place, 0.0);
    }
    // Rounded towards zero, which is the integer below but between -1 and 0.
    let cut = position as i64;
    let below = if (cut as f64) > position { cut - 1 } else { cut };
    // Within half a pixel of an edge one neighbour lies outside; Pillow repeats the edge.
    let clip = |place: i64| place.clamp(0, size as i64 - 1) as usize;
    (clip(below), clip(below + 1), position - below as f64)
}

fn mixed(bytes: &[u8], places: [usize; 4], [weight_x, weight_y]: [f64; 2]) -> [u8; 3] {
    let [northwest, northeast, southwest, southeast] = places.map(|place| &bytes[place * 3..][..3]);
    std::array::from_fn(|channel| {
        let north = mix(northwest[channel].into(), northeast[channel].into(), weight_x);
        let south = mix(southwest[channel].into(), southeast[channel].into(), weight_x);
        // Pillow truncates here; it does not round.
        mix(north, south, weight_y) as u8
    })
}

fn mix(from: f64, to: f64, weight: f64) -> f64 {
    from + (to - from) * weight
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Source, mixed, one};

    /// # Safety
    /// The processor has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn sampled<const COLUMNS: bool, const ROWS: bool>(source: Source, map: [f64; 6], out: &mut [u8]) {
        let sample = |places, weights| mixed(source.bytes, places, weights);
        for (y, line) in out.chunks_exact_mut(source.width * 3).enumerate() {
            for (group, target) in line.chunks_mut(12).enumerate() {
                let x = group * 4;
                if target.len() == 12 && four::<COLUMNS, ROWS>(source, map, [x, y], target) {
                    continue;
                }
                for (within, target) in target.chunks_exact_mut(3).enumerate() {
                    one::<COLUMNS, ROWS>(source, map, [x + within, y], target, &sample);
                }
            }
        }
    }

    /// Four pixels, if what they are sampled from lies side by side and within the image: as nearly always, where the map is near to none.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn four<const COLUMNS: bool, const ROWS: bool>(
        source: Source,
        [a, b, c, d, e, f]: [f64; 6],
        [x, y]: [usize; 2],
        target: &mut [u8],
    ) -> bool {
        let Source { bytes, width, height } = source;
        let steps = _mm256_setr_pd(0.0, 1.0, 2.0, 3.0);
        let center_x = _mm256_add_pd(_mm256_set1_pd(x as f64 + 0.5), steps);
        let center_y = y as f64 + 0.5;
        // (along · center_x + across) + by, rounded as one after the other.
        let position = |along: f64, across: f64, by: f64| {
            let sum = _mm256_add_pd(_mm256_mul_pd(_mm256_set1_pd(along), center_x), _mm256_set1_pd(across));
            _mm256_sub_pd(_mm256_add_pd(sum, _mm256_set1_pd(by)), _mm256_set1_pd(0.5))
        };
        let (at_x, at_y) = (position(a, b * center_y, c), position(d, e * center_y, f));
        let (left, top) = (_mm256_floor_pd(at_x), _mm256_floor_pd(at_y));
        let (first, row) = (_mm256_cvtsd_f64(left), _mm256_cvtsd_f64(top));
        let are_beside = _mm256_cmp_pd::<_CMP_EQ_OQ>(left, _mm256_add_pd(_mm256_set1_pd(first), steps));
        let are_of_a_row = _mm256_cmp_pd::<_CMP_EQ_OQ>(top, _mm256_set1_pd(row));
        let are_within = first >= 0.0 && first + 4.0 < width as f64 && row >= 0.0 && row + 1.0 < height as f64;
        if !are_within || _mm256_movemask_pd(_mm256_and_pd(are_beside, are_of_a_row)) != 0b1111 {
            return false;
        }
        // A weight for each value: three channels of four pixels.
        let spread = |weights: __m256d| {
            [
                _mm256_permute4x64_pd::<0b01_00_00_00>(weights),
                _mm256_permute4x64_pd::<0b10_10_01_01>(weights),
                _mm256_permute4x64_pd::<0b11_11_11_10>(weights),
            ]
        };
        let (of_x, of_y) = (spread(_mm256_sub_pd(at_x, left)), spread(_mm256_sub_pd(at_y, top)));
        let place = row as usize * width + first as usize;
        // Five pixels of two rows: four, and their neighbours on the right.
        let (above, below) = (&bytes[place * 3..][..15], &bytes[(place + width) * 3..][..15]);
        for third in 0..3 {
            let values = |row: &[u8], from: usize| {
                let four = [0, 1, 2, 3].map(|place| row[from + third * 4 + place]);
                _mm256_cvtepi32_pd(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(i32::from_ne_bytes(four))))
            };
            let mix = |from: __m256d, to: __m256d, weight: __m256d| {
                _mm256_add_pd(from, _mm256_mul_pd(_mm256_sub_pd(to, from), weight))
            };
            // What has the weight 0 changes nothing.
            let line = |row: &[u8]| {
                let west = values(row, 0);
                if COLUMNS { west } else { mix(west, values(row, 3), of_x[third]) }
            };
            let north = line(above);
            let value = if ROWS { north } else { mix(north, line(below), of_y[third]) };
            let words = _mm256_cvttpd_epi32(value);
            let words = _mm_packus_epi32(words, words);
            let four = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
            target[third * 4..][..4].copy_from_slice(&four.to_ne_bytes());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_gives_the_same_bytes() {
        for (width, height) in [(1, 1), (2, 3), (17, 9), (40, 40)] {
            let count = width * height * 3;
            let bytes: Vec<u8> =
                crate::kernels::noise(5, count).into_iter().map(|value| (value * 127.5 + 127.5) as u8).collect();
            let source = Source { bytes: &bytes, width, height };
            let maps = [
                [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
                [1.0, 0.0, 3.0, 0.0, 1.0, -2.0],
                [1.0, 0.0, -50.0, 0.0, 1.0, 0.0],
                [1.0, 0.0, 0.5, 0.0, 1.0, 1.0],
                [1.0, 0.0, 2.0, 0.0, 1.0, 0.25],
                [1.0, 0.03, 0.0, 0.0, 1.0, 0.0],
                [1.0, 0.0, 0.0, -0.02, 1.0, 0.0],
                [0.99, 0.13, -1.7, -0.13, 0.99, 2.9],
                [0.0, 1.0, 0.0, -1.0, 0.0, width as f64],
                [f64::NAN, 0.0, 0.0, 0.0, 1.0, 0.0],
                [1e300, 0.0, 0.0, 0.0, 1.0, 0.0],
            ];
            for map in maps {
                let warped = |kernel| {
                    let mut out = vec![0; count];
                    warp(kernel, source, map, &mut out);
                    out
                };
                // Without what is known of moves by whole pixels.
                let mut expected = vec![0; count];
                each::<false, false>(source, map, &mut expected, |places, weights| mixed(&bytes, places, weights));
                for kernel in PixelKernel::available() {
                    assert!(warped(kernel) == expected, "{kernel:?} {width}×{height} {map:?}");
                }
            }
        }
    }

    #[test]
    fn a_map_onto_itself_is_the_image() {
        let bytes: Vec<u8> = (0..48).map(|value| value * 5).collect();
        let mut out = vec![0; 48];
        for kernel in PixelKernel::available() {
            warp(kernel, Source { bytes: &bytes, width: 4, height: 4 }, [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], &mut out);
            assert_eq!(out, bytes, "{kernel:?}");
        }
    }
}
