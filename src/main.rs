//! The `quorate` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(quorate::cli::main() as u8)
}
