//! Noise on single values.

use super::super::draws::Draws;
use super::Canvas;

pub(crate) fn gaussian(mut canvas: Canvas, level: usize, draws: &mut impl Draws) -> Canvas {
    let deviation = [0.08, 0.12, 0.18, 0.26, 0.38][level];
    canvas.iter_mut().for_each(|value| *value += deviation * draws.normal());
    canvas
}

pub(crate) fn shot(mut canvas: Canvas, level: usize, draws: &mut impl Draws) -> Canvas {
    let photons = [60.0, 25.0, 12.0, 5.0, 3.0][level];
    canvas.iter_mut().for_each(|value| *value = draws.poisson(*value * photons) / photons);
    canvas
}

pub(crate) fn impulse(mut canvas: Canvas, level: usize, draws: &mut impl Draws) -> Canvas {
    let share = [0.03, 0.06, 0.09, 0.17, 0.27][level];
    // All hits are drawn before all colours, as scikit-image does it.
    let hit: Vec<bool> = canvas.iter().map(|_| draws.uniform(0.0, 1.0) <= share).collect();
    for (value, hit) in canvas.iter_mut().zip(hit) {
        let white = draws.uniform(0.0, 1.0) <= 0.5;
        if hit {
            *value = f64::from(u8::from(white));
        }
    }
    canvas
}
