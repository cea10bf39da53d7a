//! The images of a folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::FileError;
use crate::limits::FOLDER_DEPTH_MAX;
use crate::views::EXTENSIONS;

/// Lists the images of a folder and the folders in it, in order of name, at most `most`; what is hidden is left out.
///
/// What cannot be listed is an error in its place. There is at least one entry.
pub(crate) fn image_files(folder: &Path, most: usize) -> Vec<Result<PathBuf>> {
    let mut found = Vec::new();
    walk(folder, 0, most, &mut found);
    if found.is_empty() {
        found.push(Err(Error::FolderWithoutImages { path: folder.into() }));
    }
    found
}

/// Whether a file is an image by its name: it has a known extension and is not hidden.
pub(crate) fn is_image_name(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    !is_hidden(path) && EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str())
}

fn walk(folder: &Path, depth: usize, most: usize, found: &mut Vec<Result<PathBuf>>) {
    let too_large = |what, limit| Error::FolderTooLarge { path: folder.into(), what, limit };
    if depth > FOLDER_DEPTH_MAX {
        return found.push(Err(too_large("folders nested in one another", FOLDER_DEPTH_MAX)));
    }
    let entries = match fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
        Ok(entries) => entries,
        Err(source) => return found.push(Err(FileError::Unreadable { path: folder.into(), source }.into())),
    };
    let mut paths: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).filter(|path| !is_hidden(path)).collect();
    paths.sort();
    for path in paths {
        if found.len() >= most {
            return found.push(Err(too_large("images", most)));
        }
        // A linked folder may lead back to itself; a linked file is as good as a file.
        if path.is_dir() && !path.is_symlink() {
            walk(&path, depth + 1, most, found);
        } else if path.is_file() && is_image_name(&path) {
            found.push(Ok(path));
        }
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}
