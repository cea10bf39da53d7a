//! The images of a folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Category, Class, Error, ProgramLayer, Result};
use crate::files::FileError;
use crate::limits::FOLDER_DEPTH_MAX;
use crate::views::EXTENSIONS;
use crate::wording::counted;

/// Kinds of images that are not read, and how the names of their files end (lower case).
const UNREAD: [(&str, &[&str]); 7] = [
    ("HEIC", &["heic", "heif", "hif"]),
    ("AVIF", &["avif"]),
    ("GIF", &["gif"]),
    ("TIFF", &["tif", "tiff"]),
    ("JPEG XL", &["jxl"]),
    ("JPEG 2000", &["jp2", "j2k"]),
    ("raw", &["dng", "cr2", "cr3", "nef", "arw", "orf", "rw2"]),
];

/// A folder whose images cannot be listed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FolderError {
    /// A folder without any image.
    #[error("no image in {}: expected files ending in .jpg, .jpeg, .png, .bmp or .webp; name the files themselves if they end otherwise", path.display())]
    WithoutImages {
        /// The folder.
        path: PathBuf,
    },
    /// A folder that is too large or too deep to walk.
    #[error("{} has more than {limit} {what}; classify its parts separately", path.display())]
    TooLarge {
        /// The folder.
        path: PathBuf,
        /// Kind of thing counted.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
}

impl ProgramLayer for FolderError {
    fn class(&self) -> Class {
        match self {
            Self::WithoutImages { .. } => (Category::Input, "folder_without_images"),
            Self::TooLarge { .. } => (Category::Input, "folder_too_large"),
        }
    }
}

/// Files of kinds that are not read, counted by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeftOut([usize; UNREAD.len()]);

impl LeftOut {
    /// Counts a file if it is of such a kind by its name.
    pub(crate) fn count(&mut self, path: &Path) {
        let extension = extension_of(path);
        let kind = UNREAD.iter().position(|(_, endings)| endings.contains(&extension.as_str()));
        if let Some(kind) = kind.filter(|_| !is_hidden(path)) {
            self.0[kind] += 1;
        }
    }

    /// Message about the files left out and what to do, if there are any.
    pub(crate) fn message(&self) -> Option<String> {
        let kinds: Vec<String> = UNREAD
            .iter()
            .zip(self.0)
            .filter(|(_, count)| *count > 0)
            .map(|((kind, _), count)| format!("{count} {kind}"))
            .collect();
        let total: usize = self.0.iter().sum();
        let files = counted(total, "file");
        (total > 0).then(|| {
            let were = if total == 1 {
                "of a kind that is not read was left out"
            } else {
                "of kinds that are not read were left out"
            };
            format!("{files} {were}: {}; {CONVERT}", kinds.join(", "))
        })
    }
}

/// Advice on images that are not read.
const CONVERT: &str = "convert them to JPEG, as with heif-convert or ImageMagick";

/// Counts the files of a folder and the folders in it that are of kinds that are not read.
pub(crate) fn left_out(folder: &Path) -> LeftOut {
    let mut counts = LeftOut::default();
    count_unread(folder, 0, &mut counts);
    counts
}

fn count_unread(folder: &Path, depth: usize, counts: &mut LeftOut) {
    // Errors are passed over: this is a hint, and the listing itself reports folders that cannot be read.
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()).filter(|path| !is_hidden(path)) {
        // A linked folder may lead back to itself.
        if path.is_dir() && !path.is_symlink() {
            if depth < FOLDER_DEPTH_MAX {
                count_unread(&path, depth + 1, counts);
            }
        } else {
            counts.count(&path);
        }
    }
}

/// Lists the images of a folder and the folders in it, in order of name, at most `most`; what is hidden is left out.
///
/// An entry that cannot be listed is an error in its place. There is at least one entry.
pub(crate) fn image_files(folder: &Path, most: usize) -> Vec<Result<PathBuf>> {
    let mut found = Vec::new();
    walk(folder, 0, most, &mut found);
    if found.is_empty() {
        found.push(Err(FolderError::WithoutImages { path: folder.into() }.into()));
    }
    found
}

/// True if a file is an image by its name: it has a known extension and is not hidden.
pub(crate) fn is_image_name(path: &Path) -> bool {
    !is_hidden(path) && EXTENSIONS.contains(&extension_of(path).as_str())
}

fn extension_of(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
}

fn walk(folder: &Path, depth: usize, most: usize, found: &mut Vec<Result<PathBuf>>) {
    let too_large = |what, limit| Error::from(FolderError::TooLarge { path: folder.into(), what, limit });
    if depth > FOLDER_DEPTH_MAX {
        return found.push(Err(too_large("folders nested in one another", FOLDER_DEPTH_MAX)));
    }
    let entries = match fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
        Ok(entries) => entries,
        Err(source) => return found.push(Err(FileError::Unreadable { path: folder.into(), source }.into())),
    };
    let mut paths: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).filter(|path| !is_hidden(path)).collect();
    // The order of a file system is arbitrary.
    paths.sort();
    for path in paths {
        if found.len() >= most {
            // Said once, and not again by every folder around this one.
            if found.len() == most {
                found.push(Err(too_large("images", most)));
            }
            return;
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
    // As bytes, since a name need not be UTF-8.
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}
