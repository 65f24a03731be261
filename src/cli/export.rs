//! `quorate export`: what others' checkers read.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Exit;
use crate::referee::formats::{self, History, Model, export};

/// What stays as it is in a file's name.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    /// A history of names: a run's history.ndjson
    #[arg(value_name = "HISTORY")]
    pub history: PathBuf,
    /// Where the files go, one a name; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// edn is read by Jepsen and Knossos, log by porcupine
    #[arg(long, value_enum, default_value_t = Form::Edn)]
    pub form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    Edn,
    Log,
}

/// Writes the files and tells how many.
pub fn run(args: &ExportArgs) -> anyhow::Result<Exit> {
    let shown = args.history.display();
    let text = fs::read_to_string(&args.history).with_context(|| format!("cannot read {shown}"))?;
    let recorded =
        formats::read(&text, Some(Model::Names)).with_context(|| format!("{shown} is no history of names"))?;
    let History::Own { names, .. } = recorded.history else { bail!("{shown} is no history of names") };
    fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let registers = export::registers(&names);
    for (name, calls) in &registers {
        let (text, ending) = match args.form {
            Form::Edn => (export::edn(calls), "edn"),
            Form::Log => (export::log(calls), "log"),
        };
        let path = args.out.join(format!("{}.{ending}", utf8_percent_encode(name, ESCAPED)));
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("{} in {}", crate::referee::analysis::verdict::plural(registers.len(), "name"), args.out.display());
    Ok(Exit::Yes)
}
