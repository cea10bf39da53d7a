//! From the paths on the command line to the list of images, in order.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::{FileError, open_regular};
use crate::limits::{FILES_MAX, IMAGE_BYTES_MAX};
use crate::listing::{image_files, left_out};

use super::printer::shown;

/// One input to classify, or the reason that there is none.
pub(crate) struct Input {
    /// The path as it is reported; `-` for standard input.
    pub path: PathBuf,
    /// Error of a path that cannot even be listed.
    problem: Option<Error>,
}

impl Input {
    /// One file, or `-`.
    pub(crate) fn file(path: &Path) -> Self {
        Self { path: path.into(), problem: None }
    }

    /// The bytes of the image file.
    ///
    /// # Errors
    /// The input cannot be read or is past the byte limit.
    pub(crate) fn read(&mut self) -> Result<Vec<u8>> {
        if let Some(problem) = self.problem.take() {
            return Err(problem);
        }
        let unreadable = |source| FileError::Unreadable { path: self.path.clone(), source };
        if self.path == Path::new("-") {
            return Ok(read_bounded(io::stdin().lock()).map_err(unreadable)?);
        }
        let file = open_regular(&self.path).map_err(unreadable)?;
        Ok(read_bounded(file).map_err(unreadable)?)
    }
}

/// Lists the images behind `paths`: files as they are, folders with all they hold, in order of name.
pub(crate) fn list(paths: &[PathBuf]) -> Vec<Input> {
    let mut inputs = Vec::new();
    for path in paths {
        if path.is_dir() {
            if let Some(message) = left_out(path).message() {
                eprintln!("rtpt: {}: {message}", shown(path));
            }
            let most = FILES_MAX.saturating_sub(inputs.len());
            inputs.extend(image_files(path, most).into_iter().map(|found| match found {
                Ok(file) => Input::file(&file),
                Err(problem) => Input { path: path.clone(), problem: Some(problem) },
            }));
        } else {
            inputs.push(Input::file(path));
        }
    }
    inputs
}

/// One byte past the limit is read, so that the decoder can say that the file is too large.
fn read_bounded(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(IMAGE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
