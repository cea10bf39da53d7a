//! Image files, one after another and from the beginning again: a device without a camera can be tried with them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Content, Picture, Source, SourceFailure, Wait};
use crate::files::read_up_to;
use crate::limits::{FILES_MAX, IMAGE_BYTES_MAX};
use crate::listing::image_files;

/// An image file, or the images of a folder in order of name.
pub(crate) struct Images {
    root: PathBuf,
    every: Duration,
    /// Images that are left of this round, the last first.
    left: Vec<PathBuf>,
    due: Option<Instant>,
}

impl Images {
    pub(crate) fn open(path: &Path, every: Duration) -> Result<Self, SourceFailure> {
        let mut images = Self { root: path.into(), every, left: Vec::new(), due: None };
        images.list()?;
        Ok(images)
    }

    /// Lists the images anew: files may have come and gone.
    fn list(&mut self) -> Result<(), SourceFailure> {
        self.left = if self.root.is_dir() {
            let files: Result<Vec<PathBuf>, _> = image_files(&self.root, FILES_MAX).into_iter().collect();
            files.map_err(|problem| SourceFailure::Failed(problem.to_string()))?
        } else {
            vec![self.root.clone()]
        };
        self.left.reverse();
        Ok(())
    }
}

impl Source for Images {
    fn next(&mut self, wait: &Wait) -> Result<Picture, SourceFailure> {
        // The pause counts from the last image, so the time that this one waited for the encoder is part of it.
        if let Some(left) = self.due.and_then(|due| due.checked_duration_since(Instant::now())) {
            Wait::sleep(wait.stop, left)?;
        }
        wait.check()?;
        if self.left.is_empty() {
            self.list()?;
        }
        let path = self.left.pop().ok_or_else(|| SourceFailure::Failed("there is no image".into()))?;
        // Before the file is read: a slow disk does not stretch the interval.
        self.due = Some(Instant::now() + self.every);
        let bytes = read_up_to(&path, IMAGE_BYTES_MAX)
            .map_err(|error| SourceFailure::Failed(format!("cannot read {}: {error}", path.display())))?;
        Ok(Picture { name: Some(path.to_string_lossy().into_owned()), content: Content::File(bytes) })
    }
}
