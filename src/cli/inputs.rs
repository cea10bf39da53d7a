//! From the paths on the command line to the list of images, in order.

use std::fs;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rtpt_edge::error::{Error, Result};
use rtpt_edge::limits::{FILES_MAX, FOLDER_DEPTH_MAX, IMAGE_BYTES_MAX};
use rtpt_edge::views::EXTENSIONS;

/// One thing to classify, or why there is nothing.
pub struct Input {
    /// The path as it is reported; `-` for standard input.
    pub path: PathBuf,
    /// Set where the path cannot even be listed.
    problem: Option<Error>,
}

impl Input {
    /// One file, or `-`.
    pub fn file(path: &Path) -> Self {
        Self { path: path.into(), problem: None }
    }

    /// The bytes of the image file.
    ///
    /// # Errors
    /// The input cannot be read or is past the byte limit.
    pub fn read(&mut self) -> Result<Vec<u8>> {
        if let Some(problem) = self.problem.take() {
            return Err(problem);
        }
        let unreadable = |source| Error::InputUnreadable { path: self.path.clone(), source };
        if self.path == Path::new("-") {
            return read_bounded(io::stdin().lock()).map_err(unreadable);
        }
        let file = File::open(&self.path).map_err(unreadable)?;
        read_bounded(file).map_err(unreadable)
    }
}

/// Lists the images behind `paths`: files as they are, folders with all they hold, in order of name.
pub fn list(paths: &[PathBuf]) -> Vec<Input> {
    let mut inputs = Vec::new();
    for path in paths {
        if path.is_dir() {
            let before = inputs.len();
            list_folder(path, 0, &mut inputs);
            if inputs.len() == before {
                let problem = Error::FolderWithoutImages { path: path.clone() };
                inputs.push(Input { path: path.clone(), problem: Some(problem) });
            }
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

fn list_folder(folder: &Path, depth: usize, inputs: &mut Vec<Input>) {
    let too_large = |what, limit| Error::FolderTooLarge { path: folder.into(), what, limit };
    let mut refuse = |problem| inputs.push(Input { path: folder.into(), problem: Some(problem) });
    if depth > FOLDER_DEPTH_MAX {
        return refuse(too_large("folders nested in one another", FOLDER_DEPTH_MAX));
    }
    let entries = match fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
        Ok(entries) => entries,
        Err(source) => return refuse(Error::InputUnreadable { path: folder.into(), source }),
    };
    let mut paths: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).filter(|path| !is_hidden(path)).collect();
    paths.sort();
    for path in paths {
        if inputs.len() >= FILES_MAX {
            inputs.push(Input { path: folder.into(), problem: Some(too_large("images", FILES_MAX)) });
            return;
        }
        // A linked folder may lead back to itself; a linked file is as good as a file.
        if path.is_dir() && !path.is_symlink() {
            list_folder(&path, depth + 1, inputs);
        } else if path.is_file() && is_image_name(&path) {
            inputs.push(Input::file(&path));
        }
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn is_image_name(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str())
}
