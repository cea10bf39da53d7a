//! `rtpt manual` and `rtpt completions`: the command line described to `man` and to shells.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use crate::files::FileError;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Completion, Outcome};

#[derive(Args)]
pub(crate) struct ManualArguments {
    /// Folder for the pages, one a subcommand
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

#[derive(Args)]
pub(crate) struct CompletionsArguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Writes the manual pages.
pub(crate) fn manual(arguments: &ManualArguments) -> Outcome {
    let folder = &arguments.folder;
    let pages = fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(Cli::command(), folder));
    pages.map_err(|source| FileError::Unwritable { path: folder.clone(), source })?;
    Ok(Completion::All)
}

/// Prints a shell's completions.
pub(crate) fn completions(arguments: &CompletionsArguments) -> Outcome {
    // Into memory first: the generator panics where it cannot write, as into a pipe that was closed.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "rtpt", &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(Completion::All)
}
