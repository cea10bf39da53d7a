//! A folder of folders, one a class: ImageNet and its variants, and most people's own photos.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{DataSet, Item, Problems, push};
use crate::error::Result;
use crate::listing::{LeftOut, is_image_name};
use crate::views::EXTENSIONS;
use crate::wording::{counted, verb};

pub(crate) fn read(root: &Path, problems: &mut Problems) -> Result<DataSet> {
    let mut items = Vec::new();
    let (folders, files): (Vec<PathBuf>, Vec<PathBuf>) =
        listed(root, problems).into_iter().partition(|path| path.is_dir());
    if folders.is_empty() {
        problems.add(root, None, "expected one folder of images per class, found no folder");
    }
    let loose = files.iter().filter(|path| is_image_name(path)).count();
    if loose > 0 && !folders.is_empty() {
        let (images, are, were) = (counted(loose, "image"), verb(loose, "is", "are"), verb(loose, "was", "were"));
        log::warn!("{}: {images} {are} in no class folder and {were} left out", root.display());
    }
    let mut left_out = LeftOut::default();
    for folder in folders {
        let class = name_of(&folder);
        let files = listed(&folder, problems);
        files.iter().for_each(|path| left_out.count(path));
        let before = items.len();
        for path in files.into_iter().filter(|path| is_image_name(path)) {
            let item = Item { name: format!("{class}/{}", name_of(&path)), path, class: class.clone(), line: None };
            push(&mut items, item, root, problems);
        }
        if items.len() == before {
            let endings = EXTENSIONS.join(", .");
            problems.add(&folder, None, format!("the class has no images, expected files ending in .{endings}"));
        }
    }
    if let Some(message) = left_out.message() {
        log::warn!("{}: {message}", root.display());
    }
    Ok(DataSet { path: root.into(), items, classes: None })
}

/// Paths in a folder, in order of name, without hidden ones.
fn listed(folder: &Path, problems: &mut Problems) -> Vec<PathBuf> {
    match fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
        Ok(entries) => {
            let mut paths: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
            // Among them what file managers leave behind, such as `.DS_Store`.
            paths.retain(|path| !name_of(path).starts_with('.'));
            // An image's place names it in results, and `read_dir` has no order.
            paths.sort();
            paths
        }
        Err(error) => {
            problems.add(folder, None, format!("it cannot be read: {error}"));
            Vec::new()
        }
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
