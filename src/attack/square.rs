//! Square Attack, L-infinity (Andriushchenko, Croce, Flammarion and Hein, ECCV 2020, algorithms 1 and 2).

use super::draws::Draws;
use super::queries::Query;
use crate::error::Result;
use crate::views::Pixels;

/// Share of the image that the first squares cover (the paper's p for L-infinity, ImageNet: 0.05).
const FIRST_SHARE: f64 = 0.05;
/// Queries, of the 10,000 the paper's schedule is made for, after which the share is halved.
const HALVINGS: [usize; 9] = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000];
const SCHEDULE: f64 = 10_000.0;
/// Draws in a row that may change nothing (count).
const IDLE_MAX: usize = 1000;

/// Starts from vertical stripes, then tries squares of one change of ±2ε a channel, smaller and smaller; what lowers the
/// margin stays.
///
/// # Errors
/// The target fails.
pub(crate) fn square<F>(query: &mut Query<F>, draws: &mut impl Draws) -> Result<()>
where
    F: FnMut(&Pixels) -> Result<ndarray::Array1<f32>>,
{
    if query.is_over() {
        return Ok(());
    }
    let levels = query.budget().levels;
    let (width, height) = (query.clean().width(), query.clean().height());
    let mut stripes = query.clean().clone();
    for x in 0..width {
        let signs: [f64; 3] = random_sign_a_channel(draws);
        for y in 0..height {
            for (byte, sign) in stripes.row_mut(y)[x * 3..][..3].iter_mut().zip(signs) {
                *byte = query.projected(*byte, f64::from(*byte) + sign * levels);
            }
        }
    }
    let mut current = stripes.clone();
    // The attack goes on from the stripes even where they are worse than the clean image, as in algorithm 1; `query`
    // keeps the best of all.
    let mut current_margin = query.margin(stripes)?;
    let mut idle = 0;
    while !query.is_over() {
        // The schedule is stretched to the budget, as in the authors' code.
        let place = (query.asked() as f64 / query.budget().queries as f64 * SCHEDULE) as usize;
        let halvings = HALVINGS.iter().filter(|&&at| place > at).count();
        let area = FIRST_SHARE / f64::from(1 << halvings) * (width * height) as f64;
        let side = (area.sqrt().round() as usize).clamp(1, width.min(height));
        let (left, top) = (draws.below(width - side + 1), draws.below(height - side + 1));
        let signs: [f64; 3] = random_sign_a_channel(draws);
        let mut tried = current.clone();
        for y in top..top + side {
            for x in left..left + side {
                let clean = query.clean().at(x, y);
                let values = tried.row_mut(y)[x * 3..][..3].iter_mut();
                for ((byte, clean), sign) in values.zip(clean).zip(signs) {
                    // The present value is at one end of the ball: 2ε reach the other, and the projection stops what
                    // would leave it.
                    *byte = query.projected(clean, f64::from(*byte) + sign * 2.0 * levels);
                }
            }
        }
        if tried == current {
            // The same image has the same margin: asking would waste a query. The authors' code draws again as well.
            idle += 1;
            // With a ball of less than a level there is nothing to draw, for ever.
            if idle == IDLE_MAX {
                return Ok(());
            }
            continue;
        }
        idle = 0;
        let margin = query.margin(tried.clone())?;
        if margin < current_margin {
            (current, current_margin) = (tried, margin);
        }
    }
    Ok(())
}

fn random_sign_a_channel(draws: &mut impl Draws) -> [f64; 3] {
    std::array::from_fn(|_| if draws.below(2) == 0 { -1.0 } else { 1.0 })
}
