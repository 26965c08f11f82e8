//! Parse the command line, run it, turn the result into an exit status.

use std::process::ExitCode;

fn main() -> ExitCode {
    lossfloor::cli::main().into()
}
