//! Places to write to, checked before any work: what is written must not take the place of what is read.

use std::path::{Component, Path, PathBuf, absolute};

use crate::error::Result;
use crate::setting::SettingError;

/// Checks a file to write that is named by the flag `what`: it is none of `inputs`, and ends in `.png` where it is a
/// picture.
///
/// # Errors
/// It is an input, or ends otherwise.
pub(crate) fn check_file<'a>(
    what: &'static str,
    output: &Path,
    picture: bool,
    inputs: impl IntoIterator<Item = &'a Path>,
) -> Result<()> {
    let refused =
        |expected: &str| SettingError { what, expected: expected.into(), found: output.display().to_string() };
    let ends_well = output.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png"));
    if picture && !ends_well {
        return Err(refused("a file to write that ends in .png").into());
    }
    let place = resolved(output);
    if inputs.into_iter().any(|input| resolved(input) == place) {
        return Err(refused("another file than the image that is read").into());
    }
    Ok(())
}

/// Checks a folder to write to that is named by the flag `what`: it is new or empty, and outside of the data set.
///
/// # Errors
/// It is the data set's folder or inside of it, or has something in it.
#[cfg(feature = "eval")]
pub(crate) fn check_folder(what: &'static str, output: &Path, data_set: &Path) -> Result<()> {
    let refused = |found: String, expected: &str| SettingError { what, expected: expected.into(), found };
    let (place, read) = (resolved(output), resolved(data_set));
    // The file of a list may lie anywhere, as beside the folder to write.
    let within = data_set.is_dir() && place.starts_with(&read);
    if within || read.starts_with(&place) {
        let found =
            format!("{}, which is the data set {}, or inside or around it", output.display(), data_set.display());
        return Err(refused(found, "a new folder elsewhere").into());
    }
    if output.is_file() {
        return Err(refused(format!("{}, which is a file", output.display()), "a new folder").into());
    }
    if output.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(refused(format!("{}, which is not empty", output.display()), "a new folder").into());
    }
    Ok(())
}

/// The path without links and dots, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let whole = absolute(path).unwrap_or_else(|_| path.into());
    // The nearest folder that there is, and what is to be made in it.
    let known = whole.ancestors().find_map(|ancestor| Some((ancestor, ancestor.canonicalize().ok()?)));
    let Some((ancestor, mut place)) = known else { return whole };
    for part in whole.strip_prefix(ancestor).unwrap_or(Path::new("")).components() {
        // What is not there yet is no link: its `..` leads back.
        match part {
            Component::ParentDir => drop(place.pop()),
            part => place.push(part),
        }
    }
    place
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_read_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("photos/cup")).unwrap();
        fs::write(at("photos/cup/a.png"), "a").unwrap();
        std::os::unix::fs::symlink(at("photos"), at("link")).unwrap();
        let photo = at("photos/cup/a.png");
        for (output, fits) in [
            ("why.png", true),
            ("new/why.PNG", true),
            ("why.jpg", false),
            ("why", false),
            ("link/cup/../cup/a.png", false),
        ] {
            let checked = check_file("--explain", &at(output), true, [photo.as_path()]);
            assert_eq!(checked.is_ok(), fits, "{output}");
        }
        assert!(check_file("--output", &at("trace"), false, [photo.as_path()]).is_ok());
        assert!(check_file("--output", &photo, false, [photo.as_path()]).is_err());
    }

    #[cfg(feature = "eval")]
    #[test]
    fn altered_copies_go_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("photos/cup")).unwrap();
        fs::create_dir_all(at("empty")).unwrap();
        fs::create_dir_all(at("full/x")).unwrap();
        fs::write(at("list.csv"), "path,label\n").unwrap();
        for (output, fits) in [
            ("out", true),
            ("empty", true),
            ("photos2", true),
            ("full", false),
            ("list.csv", false),
            ("photos", false),
            ("photos/out", false),
            ("out/../photos", false),
            ("", false),
        ] {
            assert_eq!(check_folder("--out", &at(output), &at("photos")).is_ok(), fits, "{output}");
        }
        assert!(check_folder("--out", &at("out"), &at("list.csv")).is_ok());
    }
}
