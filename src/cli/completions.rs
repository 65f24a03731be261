//! `quorate completions`: what a shell needs to complete this command line.

use std::io;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Exit;

#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// For this shell; put what is printed where it looks for completions
    shell: Shell,
}

/// Prints the completions of the whole command line.
pub fn run<Cli: CommandFactory>(args: &CompletionsArgs) -> Exit {
    let mut command = Cli::command();
    let mut printed = Vec::new();
    clap_complete::generate(args.shell, &mut command, "quorate", &mut printed);
    // A reader that hangs up ends the printing, not the command.
    let _ = io::Write::write_all(&mut io::stdout().lock(), &printed);
    Exit::Yes
}
