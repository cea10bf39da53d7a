//! The configuration file of `rtpt serve`: every flag may stand in it, under its long name.
//!
//! The file's settings go through the same parser as the command line, so that the two cannot mean different things.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Category, Class, Error, ProgramLayer, Result};
use crate::files::read_up_to;
use crate::labels::nearest;
use crate::limits::CONFIG_BYTES_MAX;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use toml::{Table, Value};

use super::{Cli, command};

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the configuration {} {problem}", path.display())]
pub(super) struct ConfigurationError {
    /// The file.
    path: PathBuf,
    /// Problem found, and what to do.
    problem: String,
}

impl ProgramLayer for ConfigurationError {
    fn class(&self) -> Class {
        (Category::Usage, "configuration")
    }
}

/// Parses a command line; for `serve --config FILE`, with what the file says where the command line says nothing.
///
/// The command line itself being wrong ends the program, as clap does it.
///
/// # Errors
/// The file cannot be read, or says something that no flag takes.
pub(crate) fn parse(arguments: Vec<OsString>) -> Result<Cli> {
    // Parsed without the file first: it says which file there is, and its own mistakes are told as clap tells them.
    let matches = command().get_matches_from(&arguments);
    let matches = match config_of(&matches) {
        Some((path, given)) => {
            let problem = |problem: String| Error::from(ConfigurationError { path: path.clone(), problem });
            let more = flags_of(&path, given)?;
            // The program and `serve` are the first two words, since no flag may stand before a subcommand. The file's
            // flags come between them and the given ones.
            let own = arguments.iter().skip(2).cloned();
            let all = arguments[..2].iter().cloned().chain(more).chain(own);
            command()
                .try_get_matches_from(all)
                .map_err(|error| problem(format!("is refused: {}", in_a_file(&error))))?
        }
        None => matches,
    };
    Ok(Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()))
}

/// An error of a flag in the words of a file, whose keys have no hyphens before them.
fn in_a_file(error: &clap::Error) -> String {
    let text = error.to_string();
    // Clap goes on with a usage of flags, which are not what the file has.
    let lines: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let text = lines.join(" ").trim_start_matches("error: ").to_string();
    match text.split_once("'--") {
        Some((before, rest)) => {
            let (flag, after) = rest.split_once('\'').unwrap_or((rest, ""));
            let key = flag.split([' ', '=']).next().unwrap_or_default();
            format!("{before}{key:?}{after}")
        }
        None => text,
    }
}

/// Path of the configuration file, and the arguments of the subcommand that names it.
fn config_of(matches: &ArgMatches) -> Option<(PathBuf, &ArgMatches)> {
    let (name, given) = matches.subcommand()?;
    // Other subcommands have no such argument, over which `get_one` would panic.
    let path = given.try_get_one::<PathBuf>("config").ok()??;
    (name == "serve").then(|| (path.clone(), given))
}

/// Entries of the file as flags, without those that were given.
fn flags_of(path: &Path, given: &ArgMatches) -> Result<Vec<OsString>> {
    let problem = |problem: String| Error::from(ConfigurationError { path: path.into(), problem });
    let bytes = read_up_to(path, CONFIG_BYTES_MAX).map_err(|error| problem(format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > CONFIG_BYTES_MAX {
        return Err(problem(format!("is larger than {CONFIG_BYTES_MAX} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| problem("is not UTF-8".into()))?;
    let table: Table = toml::from_str(&text).map_err(|error| problem(format!("is not valid TOML: {error}")))?;
    let command = Cli::command();
    let serve = command.find_subcommand("serve").expect("it is a subcommand");
    let mut flags = Vec::new();
    for (key, value) in table {
        if value.is_table() {
            return Err(problem(format!("has a section [{key}]; settings stand at the top level")));
        }
        let known = |argument: &&clap::Arg| {
            let is_alias = argument.get_all_aliases().is_some_and(|names| names.contains(&key.as_str()));
            (argument.get_long() == Some(&key) || is_alias) && key != "config" && key != "help"
        };
        let Some(argument) = serve.get_arguments().find(known) else {
            let all: Vec<String> = serve
                .get_arguments()
                .filter_map(clap::Arg::get_long)
                .filter(|name| *name != "config" && *name != "help")
                .map(String::from)
                .collect();
            let hint = nearest(&all, &key).map_or(String::new(), |name| format!(" (did you mean {name:?}?)"));
            return Err(problem(format!("has {key:?}, which is not a setting{hint}; there are {}", all.join(", "))));
        };
        if value.is_array() && !matches!(argument.get_action(), clap::ArgAction::Append) {
            return Err(problem(format!("has a list for {key:?}, expected one value")));
        }
        // An environment variable counts as given: as flags, the file's settings would win over it.
        let is_given = |argument: &clap::Arg| {
            let source = given.value_source(argument.get_id().as_str());
            matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
        };
        // What was given wins also over a setting that it excludes: templates over a context.
        let excludes = |one: &clap::Arg, other: &clap::Arg| {
            serve.get_arg_conflicts_with(one).iter().any(|excluded| excluded.get_id() == other.get_id())
        };
        let is_excluded = serve
            .get_arguments()
            .any(|other| is_given(other) && (excludes(argument, other) || excludes(other, argument)));
        if is_given(argument) || is_excluded {
            continue;
        }
        let values = match value {
            Value::Array(values) => values,
            value => vec![value],
        };
        for value in values {
            let text = match value {
                Value::String(text) => text,
                Value::Integer(number) => number.to_string(),
                Value::Float(number) => number.to_string(),
                other => {
                    let found = other.type_str();
                    return Err(problem(format!("has a {found} for {key:?}, expected a text or a number")));
                }
            };
            // One word with `=`, so that a value that begins with a hyphen is not taken for a flag.
            flags.push(format!("--{key}={text}").into());
        }
    }
    Ok(flags)
}
