//! `quorate clean`: what a run left that was killed.

use std::path::PathBuf;

use super::Exit;
use crate::systems::leftovers::{self, CleanError};

/// Removes the data of nodes that a comparison or campaign left when it was killed; histories, reports and logs stay
#[derive(clap::Args, Clone, Debug)]
pub struct CleanArgs {
    /// The run's directory: what --out was
    #[arg(value_name = "RUN")]
    run: PathBuf,
}

/// Runs the command, and prints what was removed.
pub fn run(args: &CleanArgs) -> Exit {
    match leftovers::clean(&args.run) {
        Ok(removed) => {
            removed.iter().for_each(|path| println!("{}", path.display()));
            Exit::Yes
        }
        Err(why @ CleanError::NoRun { .. }) => {
            eprintln!("quorate: {why}");
            Exit::Usage
        }
        Err(why @ CleanError::UnderWay { .. }) => {
            eprintln!("quorate: {why}");
            Exit::No
        }
        Err(why @ CleanError::Io { .. }) => {
            eprintln!("quorate: {why}");
            Exit::NotDone
        }
    }
}
