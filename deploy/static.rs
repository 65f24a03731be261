//! The `quorate` command once more, to be linked statically by the test of the images: under a name of its own, so that the
//! program that other tests run at the same time stays as it is.

use std::process::ExitCode;

fn main() -> ExitCode {
    quorate::cli::main()
}
