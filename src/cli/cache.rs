//! `rtpt cache`: the features on disk.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::cache::{FILE_NAME, clear, disk_usage};
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
    /// Show how much is remembered
    Info(Folder),
    /// Forget all of it
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
    let unusable = |folder: &Path, problem: String| FileError::Unwritable {
        path: folder.join(FILE_NAME),
        source: io::Error::other(problem),
    };
    match &arguments.command {
        Command::Info(folder) => {
            let folder = folder.path()?;
            match disk_usage(&folder).map_err(|problem| unusable(&folder, problem))? {
                None => writeln!(out, "no features are remembered in {}", folder.display())?,
                Some(usage) => {
                    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
                    let (held, file) = (mebibytes(usage.bytes), mebibytes(usage.file_bytes));
                    writeln!(out, "{}", folder.join(FILE_NAME).display())?;
                    let images = counted(usage.entries as usize, "image");
                    writeln!(out, "{images}, {held:.1} MiB of features in a file of {file:.1} MiB")?;
                }
            }
        }
        Command::Clear(folder) => {
            let folder = folder.path()?;
            let bytes = clear(&folder).map_err(|problem| unusable(&folder, problem))?;
            writeln!(out, "{} freed in {}", counted(bytes as usize, "byte"), folder.display())?;
        }
    }
    Ok(Completion::All)
}
