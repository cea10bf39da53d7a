//! `rtpt cache`: the features on disk, and the packed weights of encoders.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::cache::{FOLDER_NAME, clear, disk_usage};
use crate::encoder::{clear_prepared, prepared_usage};
use crate::error::Error;
use crate::files::FileError;
use crate::setting::SettingError;
use crate::wording::counted;
use clap::{Args, Subcommand};

use super::settings::cache_folder;
use super::{Completion, Outcome};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show how much is cached: features of images, packed weights of encoders
    Info(Folder),
    /// Delete all of it
    Clear(Folder),
}

#[derive(Args)]
struct Folder {
    /// Folder of the features on disk [default: the cache folder]
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
}

impl Folder {
    fn path(&self) -> Result<PathBuf, Error> {
        Ok(self.cache_dir.clone().or_else(cache_folder).ok_or_else(|| SettingError {
            what: "the cache folder",
            expected: "XDG_CACHE_HOME or HOME to be set, or --cache-dir DIR".into(),
            found: "unknown".into(),
        })?)
    }
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let mut out = io::stdout().lock();
    let unreadable = |folder: &Path, source| FileError::Unreadable { path: folder.join(FOLDER_NAME), source };
    let unwritable = |folder: &Path, source| FileError::Unwritable { path: folder.join(FOLDER_NAME), source };
    match &arguments.command {
        Command::Info(folder) => {
            let folder = folder.path()?;
            let (encoders, packed) = prepared_usage(&folder).map_err(|source| unreadable(&folder, source))?;
            match disk_usage(&folder).map_err(|source| unreadable(&folder, source))? {
                None => writeln!(out, "no features are cached in {}", folder.display())?,
                Some(usage) => {
                    writeln!(out, "{}", folder.join(FOLDER_NAME).display())?;
                    let images = counted(usage.entries as usize, "image");
                    writeln!(out, "{images}, {:.1} MiB of features", mebibytes(usage.bytes))?;
                }
            }
            if encoders > 0 {
                writeln!(out, "{}, {:.1} MiB of packed weights", counted(encoders, "encoder"), mebibytes(packed))?;
            }
        }
        Command::Clear(folder) => {
            let folder = folder.path()?;
            let mut bytes = clear(&folder).map_err(|source| unwritable(&folder, source))?;
            bytes += clear_prepared(&folder).map_err(|source| unwritable(&folder, source))?;
            writeln!(out, "{} freed in {}", counted(bytes as usize, "byte"), folder.display())?;
        }
    }
    Ok(Completion::All)
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
