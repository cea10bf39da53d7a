//! Where a bundle is looked for when none is named.
use super::error::{BundleError, Result};

use std::env;
use std::path::{Path, PathBuf};

/// The demo bundle inside a clone of the repository.
const IN_CLONE: &str = "models/demo/bundle";
/// A bundle installed beside the program's `bin` folder.
const INSTALLED: &str = "share/rtpt/bundles/demo";

/// The folder to open: `given` if there is one, else the demo bundle.
///
/// The demo bundle is looked for in the folders above the program (a clone's `target/release`, or an installed
/// `bin`), then in the clone the program was built from. The current folder is not consulted: a bundle lying
/// about must not be picked up by accident.
///
/// # Errors
/// None is given and none is found; the error lists where it was looked for.
pub(crate) fn locate_bundle(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.to_path_buf());
    }
    let program = env::current_exe().and_then(|path| path.canonicalize()).unwrap_or_default();
    let mut candidates: Vec<PathBuf> =
        program.ancestors().skip(1).flat_map(|folder| [folder.join(IN_CLONE), folder.join(INSTALLED)]).collect();
    candidates.push(Path::new(env!("CARGO_MANIFEST_DIR")).join(IN_CLONE));
    match candidates.iter().position(|folder| folder.join("manifest.json").is_file()) {
        Some(found) => Ok(candidates.swap_remove(found)),
        None => Err(BundleError::NotFound { tried: candidates.iter().map(|p| p.display().to_string()).collect() }),
    }
}
