//! Search for a bundle when none is named.
use super::error::{BundleError, Result};

use std::env;
use std::path::{Path, PathBuf};

/// The everyday bundle inside a clone of the repository.
const IN_CLONE: &str = "models/everyday/bundle";
/// A bundle installed beside the program's `bin` folder.
const INSTALLED: &str = "share/rtpt/bundles/everyday";

/// The folder to open: `given` if there is one, else the everyday bundle, which comes with the program.
///
/// That is looked for in the folders above the program: a clone's `target/release`, or an installed `bin`.
/// The current folder is not consulted, so that no bundle is picked up by accident, and no folder of the machine that
/// built the program is either.
///
/// # Errors
/// None is given and none is found; the error lists where it was looked for.
pub(crate) fn locate_bundle(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.to_path_buf());
    }
    // A link in some `bin` leads to where the program was installed, and the bundle is beside that.
    let program = env::current_exe().and_then(|path| path.canonicalize()).unwrap_or_default();
    let candidates: Vec<PathBuf> =
        program.ancestors().skip(1).flat_map(|folder| [folder.join(IN_CLONE), folder.join(INSTALLED)]).collect();
    match candidates.iter().find(|folder| folder.join("manifest.json").is_file()) {
        Some(found) => Ok(found.clone()),
        None => Err(BundleError::NotFound { tried: candidates.iter().map(|p| p.display().to_string()).collect() }),
    }
}
