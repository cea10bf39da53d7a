//! A short timing, and what it says of other numbers of views.

use std::time::{Duration, Instant};

use crate::bundle::Bundle;
use crate::cancellation::CancellationToken;
use crate::classifier::{Classifier, ClassifierSettings, ViewPlan};
use crate::error::Result;
use crate::extractor::CacheUse;
use crate::label_set::LabelSet;
use crate::views::{Pixels, ViewSettings, encode_jpeg};
use serde::Serialize;

/// Numbers of views that are timed; a line through the two gives the forecast.
const TIMED: [usize; 2] = [8, 16];
/// Numbers of views that are forecast.
const FORECAST: [usize; 4] = [8, 16, 32, 64];
/// Runs with each number of views (count).
const RUNS: usize = 9;
/// Time after which no further run is begun.
const PATIENCE: Duration = Duration::from_secs(3);
/// Size of the picture that is timed (pixels), as a camera gives it.
const FRAME: (usize, usize) = (640, 480);

/// Speed of this device.
#[derive(Serialize)]
pub(crate) struct Speed {
    /// Worker threads.
    pub threads: usize,
    /// Views the encoder takes at once.
    pub batch: usize,
    /// The matrix kernels of the encoder.
    pub kernels: Vec<String>,
    /// Measurements: views, and milliseconds from the bytes of a JPEG of 640×480 to the answer, median.
    pub measured: Vec<Timed>,
    /// Frame rates to expect of a camera at other numbers of views.
    pub forecast: Vec<Forecast>,
}

#[derive(Serialize)]
pub(crate) struct Timed {
    pub views: usize,
    pub total_ms: f64,
    pub encode_ms: f64,
}

#[derive(Serialize)]
pub(crate) struct Forecast {
    pub views: usize,
    pub frames_per_second: f64,
}

/// Times the bundle's golden image in the size of a camera's frame.
pub(crate) fn measure(bundle: &Bundle, threads: Option<usize>) -> Result<Speed> {
    let mut settings = ClassifierSettings::of(bundle);
    settings.extractor.threads = threads;
    settings.extractor.views.count = TIMED[1];
    let classifier = Classifier::new(bundle, LabelSet::of(bundle)?, settings, None)?;
    let file = encode_jpeg(&tiled(&bundle.goldens.image, FRAME), 90);
    let measured = timed(&classifier, &file, settings.extractor.views)?;
    let extractor = classifier.extractor();
    let times = [measured[0].total_ms, measured[1].total_ms];
    Ok(Speed {
        threads: extractor.pool().current_num_threads(),
        batch: extractor.batch(),
        kernels: extractor.kernels(),
        forecast: FORECAST.map(|views| Forecast { views, frames_per_second: rate(times, views) }).into(),
        measured,
    })
}

/// Medians over a few runs, after one that is not counted. The numbers of views take turns, so that other work of the
/// device slows them alike.
fn timed(classifier: &Classifier, file: &[u8], views: ViewSettings) -> Result<Vec<Timed>> {
    let mut runs = TIMED.map(|_| Vec::new());
    let mut began = Instant::now();
    for run in 0..=RUNS {
        for (count, runs) in TIMED.into_iter().zip(&mut runs) {
            let plan = ViewPlan { views: ViewSettings { count, ..views }, rounds: None };
            // Past the cache, from which the second run would come without any work.
            let answer = classifier.classify_in(file, plan, CacheUse::Bypass, &CancellationToken::default())?;
            if run > 0 {
                runs.push((answer.timings().total, answer.timings().encode));
            }
        }
        // The patience is for counted runs. At least one of them is made before it is looked at, so that there is a
        // median.
        if run == 0 {
            began = Instant::now();
        } else if began.elapsed() > PATIENCE {
            break;
        }
    }
    let medians = TIMED.into_iter().zip(runs).map(|(views, mut runs)| {
        runs.sort_by(|a: &(f64, f64), b| a.0.total_cmp(&b.0));
        let (total_ms, encode_ms) = runs[runs.len() / 2];
        Timed { views, total_ms, encode_ms }
    });
    Ok(medians.collect())
}

/// Frames a second at `views`, from the milliseconds at the numbers of views that were timed.
fn rate(times: [f64; 2], views: usize) -> f64 {
    let [few, many] = TIMED.map(|count| count as f64);
    // Noise can make more views faster; then every view counts alike.
    let a_view = match (times[1] - times[0]) / (many - few) {
        slope if slope > 0.0 => slope,
        _ => times[1] / many,
    };
    // Never below zero: a slope that noise made too steep would promise frames for nothing.
    let fixed = (times[0] - a_view * few).max(0.0);
    1e3 / (fixed + a_view * views as f64)
}

/// An image of another size, by repetition.
fn tiled(image: &Pixels, (width, height): (usize, usize)) -> Pixels {
    let mut tiled = Pixels::black(width, height);
    for y in 0..height {
        let source = image.row(y % image.height());
        for (slot, &level) in tiled.row_mut(y).iter_mut().zip(source.iter().cycle()) {
            *slot = level;
        }
    }
    tiled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_through_two_timings_tells_of_others() {
        // 10 ms and 2 ms a view.
        let times = [26.0, 42.0];
        for (views, ms) in [(8, 26.0), (16, 42.0), (32, 74.0), (64, 138.0)] {
            assert!((rate(times, views) - 1e3 / ms).abs() < 1e-9);
        }
        // More views were not slower: no less than every view alike.
        assert!((rate([50.0, 48.0], 64) - 1e3 / (26.0 + 3.0 * 64.0)).abs() < 1e-9);
        // A line through zero cannot be crossed: nothing is faster than its views.
        assert!((rate([10.0, 40.0], 8) - 1e3 / 30.0).abs() < 1e-9);
    }

    #[test]
    fn a_frame_is_made_of_the_image_again_and_again() {
        let image = Pixels::new(2, 1, vec![1, 2, 3, 4, 5, 6]);
        let frame = tiled(&image, (3, 2));
        assert_eq!(frame.bytes(), [1, 2, 3, 4, 5, 6, 1, 2, 3, 1, 2, 3, 4, 5, 6, 1, 2, 3]);
        let tall = tiled(&Pixels::new(1, 2, vec![1, 2, 3, 4, 5, 6]), (1, 3));
        assert_eq!(tall.bytes(), [1, 2, 3, 4, 5, 6, 1, 2, 3]);
    }
}
