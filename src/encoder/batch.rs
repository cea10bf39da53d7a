//! Choice of the encoder's batch: measured once per bundle and device, then remembered.
//!
//! The best batch depends on the model and the CPU (tract is faster at 8 than at 1 for ViT-B/32, and half as fast for
//! CLIP's RN50), and it may change the last bits of the features. So it is chosen once and stored; everything after
//! that is reproducible.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Instant;

use ndarray::Array4;

use super::error::Result;
use super::{Encoder, EncoderModel, EncoderShape};
use crate::files::{folder_of, temporary_beside};

/// Batches that are tried, in order; ties go to the earlier.
// From 16 on every model that was measured became slower.
const CANDIDATES: [usize; 4] = [1, 2, 4, 8];
/// Views of one trial; a multiple of every candidate.
const TRIAL_VIEWS: usize = 8;
/// Trials of each candidate; the fastest counts.
const TRIALS: usize = 3;
/// Batch used when nothing can be stored: a measured choice could differ from run to run.
const UNMEASURED: usize = 1;

/// Usual duration of the measurement.
const USUALLY: &str = "usually 1 to 15 s";
/// Log target of the measurement's messages: the program shows them to whoever sits and waits.
pub(crate) const LOG_TARGET: &str = "batch";

/// The batch and where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchChoice {
    /// Views taken at once.
    pub batch: usize,
    /// Origin of the batch.
    pub origin: BatchOrigin,
}

/// Origin of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BatchOrigin {
    /// Asked for.
    Given,
    /// Measured on this device now.
    Measured {
        /// Duration of the measurement (milliseconds).
        ms: u64,
    },
    /// Measured on this device before.
    Remembered,
    /// Nothing could be stored, so the fixed fallback was taken.
    Fallback,
}

/// The remembered batch for `key` in the folder `cache_folder`, or a measured one, which is then remembered.
///
/// `key` names bundle and device. Of two processes that measure at once the first to store wins, and both use its
/// choice. Without a folder, or one that cannot be written, the batch is 1: correct, reproducible, perhaps slower.
///
/// # Errors
/// The model cannot be loaded or run; storage problems are only logged.
pub(crate) fn choose_batch(
    model: &EncoderModel,
    shape: EncoderShape,
    cache_folder: Option<&Path>,
    key: &str,
) -> Result<BatchChoice> {
    let fallback = BatchChoice { batch: UNMEASURED, origin: BatchOrigin::Fallback };
    let Some(cache_folder) = cache_folder else {
        log::warn!(
            "no cache folder, so the encoder's batch is not tuned; set XDG_CACHE_HOME or HOME, or choose the batch yourself"
        );
        return Ok(fallback);
    };
    let path = cache_folder.join(format!("batch-{key}"));
    if let Some(batch) = remembered(&path) {
        return Ok(BatchChoice { batch, origin: BatchOrigin::Remembered });
    }
    let unstored = |error: std::io::Error| {
        log::warn!("cannot remember the encoder's batch in {}: {error}; using {UNMEASURED}", path.display());
        fallback
    };
    // Before it is measured: a device that cannot store the choice would spend these seconds at every start.
    if let Err(error) = try_to_store(&path) {
        return Ok(unstored(error));
    }
    let began = Instant::now();
    log::info!(target: LOG_TARGET, "measuring which batch the encoder is fastest with, once per bundle and device; {USUALLY}");
    let measured = measure(model, shape)?;
    let ms = began.elapsed().as_millis() as u64;
    log::info!(target: LOG_TARGET, "batch {measured}, measured in {:.1} s", ms as f64 / 1e3);
    Ok(match remember(&path, measured) {
        Ok(batch) => BatchChoice { batch, origin: BatchOrigin::Measured { ms } },
        Err(error) => unstored(error),
    })
}

/// Writes a file beside `path`, and removes it.
fn try_to_store(path: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder_of(path))?;
    let temporary = temporary_beside(path)?;
    fs::write(&temporary, "1\n")?;
    fs::remove_file(&temporary)
}

fn remembered(path: &Path) -> Option<usize> {
    // A number that is no candidate was not measured here: the file is damaged or another program's.
    let text = fs::read_to_string(path).ok()?;
    text.trim().parse().ok().filter(|batch| CANDIDATES.contains(batch))
}

/// Stores `batch` unless another process was first; gives what is stored then.
fn remember(path: &Path, batch: usize) -> std::io::Result<usize> {
    fs::create_dir_all(folder_of(path))?;
    let temporary = temporary_beside(path)?;
    fs::write(&temporary, format!("{batch}\n"))?;
    // A link, unlike a rename, refuses to replace what another process has just stored.
    let linked = fs::hard_link(&temporary, path);
    let outcome = match linked {
        Ok(()) => Ok(batch),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => match remembered(path) {
            Some(stored) => Ok(stored),
            // What is there is no batch: replace it.
            None => fs::rename(&temporary, path).map(|()| batch),
        },
        // A file system without hard links.
        Err(_) => fs::rename(&temporary, path).map(|()| batch),
    };
    // Gone already where it was renamed.
    let _ = fs::remove_file(&temporary);
    outcome
}

/// Times each candidate on one thread and gives the one with the fewest seconds per view.
fn measure(model: &EncoderModel, shape: EncoderShape) -> Result<usize> {
    let side = shape.resolution;
    // Any finite, varied input takes the same time; a ramp needs no randomness.
    let views = Array4::from_shape_fn((TRIAL_VIEWS, 3, side, side), |(v, c, y, x)| {
        ((v + 3 * c + 5 * y + 7 * x) % 17) as f32 / 8.0 - 1.0
    });
    let mut best = (UNMEASURED, f64::INFINITY);
    for batch in CANDIDATES {
        let encoder = Encoder::load(model, shape, batch)?;
        let seconds = fastest_trial(&encoder, &views)?;
        log::debug!("batch {batch}: {:.2} ms per view", seconds * 1e3 / TRIAL_VIEWS as f64);
        if seconds < best.1 {
            best = (batch, seconds);
        }
    }
    Ok(best.0)
}

fn fastest_trial(encoder: &Encoder, views: &Array4<f32>) -> Result<f64> {
    // The fastest trial, not the mean: whatever else the device does can only make a trial slower.
    let mut fastest = f64::INFINITY;
    // One more than counts: the first pays for the caches.
    for _ in 0..=TRIALS {
        let began = Instant::now();
        for chunk in views.axis_chunks_iter(ndarray::Axis(0), encoder.batch) {
            let mut features = ndarray::Array2::zeros((chunk.dim().0, encoder.shape.embedding));
            encoder.encode_chunk(chunk, features.view_mut())?;
        }
        fastest = fastest.min(began.elapsed().as_secs_f64());
    }
    Ok(fastest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_to_store_wins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/batch-x");
        assert_eq!(remember(&path, 4).unwrap(), 4);
        assert_eq!(remember(&path, 8).unwrap(), 4);
        assert_eq!(remembered(&path), Some(4));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary is left");
    }

    #[test]
    fn what_is_no_batch_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("batch-x");
        for garbage in ["", "many", "3", "-1", "4096"] {
            fs::write(&path, garbage).unwrap();
            assert_eq!(remembered(&path), None, "{garbage:?}");
            assert_eq!(remember(&path, 2).unwrap(), 2);
            assert_eq!(remembered(&path), Some(2));
        }
    }
}
