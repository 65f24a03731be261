//! `quorate credential`: makes what callers show at the door.

use clap::Subcommand;
use serde_json::json;

use super::Exit;
use crate::http::caller::Grants;
use crate::http::credentials::mint;
use crate::model::ident::CredentialName;

#[derive(Subcommand, Debug)]
pub enum CredentialCommand {
    /// Makes a token for a caller, and the line for the servers' --credentials file that lets it in
    ///
    /// Standard output has two lines: the token, shown this once and kept nowhere, and the line for the file, which holds the
    /// token's hash alone.
    New {
        /// Whose it is; leases belong to the name that made them
        name: CredentialName,
        /// What it may read: names and groups that begin with this (repeat for more; '' is all)
        #[arg(long, value_name = "PREFIX")]
        read: Vec<String>,
        /// What it may read and change (repeat for more; '' is all)
        #[arg(long, value_name = "PREFIX")]
        write: Vec<String>,
        /// May do everything, also with the cluster, its faults and other callers' leases
        #[arg(long)]
        admin: bool,
        /// Print one JSON object instead
        #[arg(long)]
        json: bool,
    },
}

pub fn run(command: CredentialCommand) -> Exit {
    let CredentialCommand::New { name, read, write, admin, json } = command;
    if !admin && read.is_empty() && write.is_empty() {
        eprintln!("quorate: a credential that allows nothing: give --read, --write or --admin");
        return Exit::Usage;
    }
    let minted = mint(&Grants { name, read, write, admin });
    if json {
        println!("{}", json!({ "token": minted.token, "line": minted.line }));
        return Exit::Yes;
    }
    eprintln!("The token, for its holder alone, and then the line for the file that --credentials names:");
    println!("{}\n{}", minted.token, minted.line);
    Exit::Yes
}
