//! Operations that change values and leave positions alone, each a table of 256 entries a channel.
//!
//! The definitions are Pillow's (`ImageOps`), integer for integer.

use super::pixels::Pixels;

type Table = [u8; 256];

/// Stretches each channel so that its darkest value becomes 0 and its brightest 255.
pub fn autocontrast(image: &mut Pixels) {
    apply(image, |histogram| {
        let low = histogram.iter().position(|&count| count > 0).unwrap_or(0);
        let high = histogram.iter().rposition(|&count| count > 0).unwrap_or(0);
        if high <= low {
            return identity();
        }
        let scale = 255.0 / (high - low) as f64;
        let offset = -(low as f64) * scale;
        // The cast cuts, as Pillow's `int` does.
        table(|value| (value as f64 * scale + offset).clamp(0.0, 255.0) as u8)
    });
}

/// Flattens each channel's histogram.
pub fn equalize(image: &mut Pixels) {
    apply(image, |histogram| {
        // Pillow leaves the brightest level that occurs out of the total: the steps are those below it.
        let last = histogram.iter().rev().find(|&&count| count > 0).copied().unwrap_or(0);
        let total: usize = histogram.iter().sum();
        let step = (total - last) / 255;
        // One single value, or too few pixels to spread over 255 steps.
        if step == 0 {
            return identity();
        }
        let mut below = step / 2;
        let mut lookup = [0; 256];
        for (entry, &count) in lookup.iter_mut().zip(histogram) {
            // `step` is rounded down, so that the quotient may pass 255.
            *entry = (below / step).min(255) as u8;
            below += count;
        }
        lookup
    });
}

/// Keeps the top `bits` (1–8) of each value.
pub fn posterize(image: &mut Pixels, bits: u32) {
    let mask = (0xff00_u32 >> bits) as u8;
    image.bytes_mut().iter_mut().for_each(|value| *value &= mask);
}

/// Inverts the values at or above `threshold` (0–256).
pub fn solarize(image: &mut Pixels, threshold: u32) {
    let invert = |value: &mut u8| {
        if u32::from(*value) >= threshold {
            *value = 255 - *value;
        }
    };
    image.bytes_mut().iter_mut().for_each(invert);
}

fn apply(image: &mut Pixels, lookup_of: impl Fn(&[usize; 256]) -> Table) {
    let mut histograms = [[0_usize; 256]; 3];
    for pixel in image.bytes().chunks_exact(3) {
        for channel in 0..3 {
            histograms[channel][usize::from(pixel[channel])] += 1;
        }
    }
    let lookups = histograms.each_ref().map(lookup_of);
    for pixel in image.bytes_mut().chunks_exact_mut(3) {
        for channel in 0..3 {
            pixel[channel] = lookups[channel][usize::from(pixel[channel])];
        }
    }
}

fn table(entry: impl Fn(usize) -> u8) -> Table {
    std::array::from_fn(entry)
}

fn identity() -> Table {
    table(|value| value as u8)
}
