//! The `rtpt` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    rtpt_edge::internal::bound_heap();
    rtpt_edge::internal::run()
}
