//! SPSA: a gradient guessed from random differences, and Adam (Uesato, O'Donoghue, van den Oord and Kohli, ICML 2018).

use super::draws::Draws;
use super::queries::Query;
use crate::error::Result;
use crate::views::Pixels;

/// Size of the differences (levels of 255; the paper's 0.01).
const DIFFERENCE: f64 = 0.01 * 255.0;
/// Step of Adam (levels of 255; the paper's 0.01), and its constants.
const RATE: f64 = 0.01 * 255.0;
const BETAS: (f64, f64) = (0.9, 0.999);
const EPSILON: f64 = 1e-8;
/// Pairs of queries a step.
const PAIRS: usize = 16;

/// Lowers the margin along the mean of random directions, weighted by the difference it makes to go along each.
///
/// The target sees images of whole levels, so that differences smaller than a level would be lost: the paper's 0.01 are
/// 2.55 levels.
///
/// # Errors
/// The target fails.
pub(crate) fn spsa<F>(query: &mut Query<F>, draws: &mut impl Draws) -> Result<()>
where
    F: FnMut(&Pixels) -> Result<ndarray::Array1<f32>>,
{
    let clean = query.clean();
    let count = clean.bytes().len();
    let levels = query.budget().levels;
    // Not rounded, so that steps below a level add up.
    let mut values: Vec<f64> = clean.bytes().iter().map(|&byte| f64::from(byte)).collect();
    let (mut first, mut second) = (vec![0.0; count], vec![0.0; count]);
    let mut step = 0;
    while !query.is_over() {
        step += 1;
        let mut gradient = vec![0.0; count];
        for _ in 0..PAIRS {
            let signs: Vec<f64> = (0..count).map(|_| if draws.below(2) == 0 { -1.0 } else { 1.0 }).collect();
            let mut margins = [0.0; 2];
            for (margin, side) in margins.iter_mut().zip([1.0, -1.0]) {
                if query.is_over() {
                    // Half a pair says nothing of a direction.
                    return Ok(());
                }
                let moved = values.iter().zip(&signs).map(|(value, sign)| value + side * DIFFERENCE * sign);
                let image = image_of(query, moved);
                *margin = query.margin(image)?;
            }
            let slope = f64::from(margins[0] - margins[1]) / (2.0 * DIFFERENCE);
            // Of an overflow nothing can be learned, and NaN would turn the image black.
            if !slope.is_finite() {
                continue;
            }
            gradient.iter_mut().zip(&signs).for_each(|(sum, sign)| *sum += slope * sign / PAIRS as f64);
        }
        // The moments begin at 0, which the first steps would take for small gradients (Kingma and Ba 2015).
        let (unbias_first, unbias_second) = (1.0 - BETAS.0.powi(step), 1.0 - BETAS.1.powi(step));
        for (place, &slope) in gradient.iter().enumerate() {
            first[place] = BETAS.0 * first[place] + (1.0 - BETAS.0) * slope;
            second[place] = BETAS.1 * second[place] + (1.0 - BETAS.1) * slope * slope;
            let direction = first[place] / unbias_first / ((second[place] / unbias_second).sqrt() + EPSILON);
            let byte = f64::from(clean.bytes()[place]);
            let moved = values[place] - RATE * direction;
            // The ball around the clean image, and the range of a byte. Without the second, steps would pile up beyond
            // black and white.
            values[place] = moved.clamp((byte - levels).max(0.0), (byte + levels).min(255.0));
        }
        if query.is_over() {
            return Ok(());
        }
        let image = image_of(query, values.iter().copied());
        query.margin(image)?;
    }
    Ok(())
}

fn image_of<F>(query: &Query<F>, values: impl Iterator<Item = f64>) -> Pixels
where
    F: FnMut(&Pixels) -> Result<ndarray::Array1<f32>>,
{
    let clean = query.clean();
    let bytes = clean.bytes().iter().zip(values).map(|(&byte, value)| query.projected(byte, value)).collect();
    Pixels::new(clean.width(), clean.height(), bytes)
}
