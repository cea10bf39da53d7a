//! The `rtpt` program: parse, run one command, exit with its code.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    let program = match cli::parse() {
        Ok(program) => program,
        Err(code) => return code,
    };
    let levels = env_logger::Env::default().default_filter_or(program.log_level());
    env_logger::Builder::from_env(levels).format_timestamp(None).init();
    cli::run(&program)
}
