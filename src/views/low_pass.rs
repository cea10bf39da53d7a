//! The clean view without its fine detail: what an attack adds is mostly there, what a photo shows is not.
//!
//! The gate (CSR, ICML 2026) multiplies the view's spectrum by `exp(-r² / (2σ²))`, r in cycles a picture, with σ = 40 · R / 224. Here it is
//! the convolution with the Gaussian that has this spectrum, cut off where it is below 1e-4 of its middle, beyond the view's edge with the edge's
//! pixels: no other side of the picture comes in, as it does by a Fourier transform. Its deviation is R / (2πσ) pixels, whatever R is.

/// Standard deviation of the Gaussian (pixels): 224 / (2π · 40).
const DEVIATION: f64 = 224.0 / (80.0 * std::f64::consts::PI);
/// Pixels to either side that count.
const REACH: usize = 4;

/// Convolves a plane `[R, R]` of `side` R with the Gaussian, in place.
pub(super) fn low_pass(plane: &mut [f32], side: usize) {
    let weights = weights();
    let mut row = vec![0.0; side + 2 * REACH];
    for values in plane.chunks_exact_mut(side) {
        row[..REACH].fill(values[0]);
        row[REACH..][..side].copy_from_slice(values);
        row[REACH + side..].fill(values[side - 1]);
        for (x, value) in values.iter_mut().enumerate() {
            *value = weights.iter().zip(&row[x..]).map(|(weight, value)| weight * value).sum();
        }
    }
    // Down the columns, a row at a time; of the rows that were written over the old values are still needed.
    let rows = plane.to_vec();
    for (y, values) in plane.chunks_exact_mut(side).enumerate() {
        values.fill(0.0);
        for (place, weight) in weights.iter().enumerate() {
            let from = (y + place).saturating_sub(REACH).min(side - 1);
            values.iter_mut().zip(&rows[from * side..]).for_each(|(sum, value)| *sum += weight * value);
        }
    }
}

/// The Gaussian at whole pixels; the weights add up to 1.
fn weights() -> [f32; 2 * REACH + 1] {
    let exact: [f64; 2 * REACH + 1] = std::array::from_fn(|place| {
        let distance = place as f64 - REACH as f64;
        (-distance * distance / (2.0 * DEVIATION * DEVIATION)).exp()
    });
    let total: f64 = exact.iter().sum();
    exact.map(|weight| (weight / total) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_are_damped_as_in_the_spectrum() {
        // Waves along x of r cycles a picture, in the middle of the view, against exp(-r² / (2σ²)).
        const SIDE: usize = 224;
        for cycles in [0.0, 8.0, 20.0, 40.0, 60.0, 80.0] {
            let wave = |place: usize| (std::f64::consts::TAU * cycles * place as f64 / SIDE as f64).cos() as f32;
            let mut plane: Vec<f32> = (0..SIDE * SIDE).map(|place| wave(place % SIDE)).collect();
            low_pass(&mut plane, SIDE);
            let expected = (-cycles * cycles / (2.0 * 40.0 * 40.0)).exp() as f32;
            let middle = &plane[SIDE / 2 * SIDE..][..SIDE];
            for (x, &found) in middle.iter().enumerate().skip(REACH).take(SIDE - 2 * REACH) {
                assert!((found - expected * wave(x)).abs() < 5e-3, "{cycles} cycles, {x}: {found}");
            }
        }
    }

    #[test]
    fn both_directions_are_alike_and_edges_go_on() {
        const SIDE: usize = 9;
        let mut plane: Vec<f32> = (0..SIDE * SIDE).map(|place| ((place * place) % 17) as f32).collect();
        let mut turned: Vec<f32> = (0..SIDE * SIDE).map(|place| plane[place % SIDE * SIDE + place / SIDE]).collect();
        low_pass(&mut plane, SIDE);
        low_pass(&mut turned, SIDE);
        for place in 0..SIDE * SIDE {
            assert!((plane[place] - turned[place % SIDE * SIDE + place / SIDE]).abs() < 1e-5);
        }
        let mut even = vec![0.3; SIDE * SIDE];
        low_pass(&mut even, SIDE);
        assert!(even.iter().all(|value| (value - 0.3).abs() < 1e-6));
    }
}
