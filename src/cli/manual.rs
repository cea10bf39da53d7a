//! `rtpt manual` and `rtpt completions`: the command line described to `man` and to shells.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::files::FileError;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Cli, Completion, Outcome};

pub(crate) const EXAMPLES: &str = "\
Examples:
  rtpt manual ~/.local/share/man/man1    then: man rtpt, man rtpt-serve";

pub(crate) const PLACES: &str = "\
Where shells look for it:
  bash  rtpt completions bash > ~/.local/share/bash-completion/completions/rtpt
  zsh   rtpt completions zsh > ~/.zfunc/_rtpt, with fpath+=~/.zfunc before compinit in ~/.zshrc
  fish  rtpt completions fish > ~/.config/fish/completions/rtpt.fish";

#[derive(Args)]
pub(crate) struct ManualArguments {
    /// Folder for the pages, one per command
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
    let mut command = Cli::command().disable_help_subcommand(true);
    // Gives subcommands the names that they have together with the program's.
    command.build();
    let pages = fs::create_dir_all(folder).and_then(|()| write_pages(command, folder));
    pages.map_err(|source| FileError::Unwritable { path: folder.clone(), source })?;
    Ok(Completion::All)
}

/// Writes the page of a command and those of its subcommands.
fn write_pages(command: clap::Command, folder: &Path) -> io::Result<()> {
    for subcommand in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        write_pages(subcommand.clone(), folder)?;
    }
    let end = command.get_after_help().map(|text| sections(&text.to_string()));
    let page = Man::new(command);
    let mut text = Vec::new();
    page.render(&mut text)?;
    let mut text = String::from_utf8_lossy(&text).into_owned();
    // The generator runs all lines after the flags together, under a heading of its own.
    let extra = "\n.SH EXTRA\n";
    if let (Some(end), Some(begins)) = (end, text.find(extra)) {
        let ends = text[begins + extra.len()..].find("\n.SH ").map_or(text.len(), |ends| begins + extra.len() + ends);
        text.replace_range(begins + 1..ends, &end);
    }
    fs::write(folder.join(page.get_filename()), text)
}

/// The text that a command's help ends in, for `man`: a section for every heading, and lines that are indented as they are.
fn sections(help: &str) -> String {
    let (mut page, mut filled) = (String::new(), true);
    for line in help.lines() {
        let indented = line.starts_with(' ');
        if !filled && !indented {
            page += ".fi\n";
            filled = true;
        }
        match line.strip_suffix(':') {
            Some(heading) if !indented => page += &format!(".SH {:?}\n", heading.to_uppercase()),
            _ if line.is_empty() => page += ".PP\n",
            _ => {
                if indented && filled {
                    page += ".nf\n";
                    filled = false;
                }
                // Backslash, hyphen and quote have a meaning of their own, and so has a full stop that begins a line.
                let escaped = line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
                page += &format!("\\&{escaped}\n");
            }
        }
    }
    if !filled {
        page += ".fi\n";
    }
    page.trim_end().to_string()
}

/// Prints a shell's completions.
pub(crate) fn completions(arguments: &CompletionsArguments) -> Outcome {
    // Into memory first: the generator panics where it cannot write, as into a pipe that was closed.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "rtpt", &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(Completion::All)
}
