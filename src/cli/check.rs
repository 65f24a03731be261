//! `quorate check`: whether histories in files are linearizable.

use std::path::PathBuf;
use std::time::Duration;

use rayon::prelude::*;

use super::Exit;
use crate::referee::check::{self, CheckError, Compared, Options, Tally, Word};
use crate::referee::checker::Verdict;
use crate::referee::formats::Model;

/// Tells whether histories are linearizable, one line each: FILE, a tab, and linearizable, not-linearizable or unknown.
///
/// Reads Quorate's ndjson, Jepsen's and Knossos' EDN, and porcupine's logs; the format is told from the contents.
/// Exit code: 0 all linearizable (with --expect: all right), 1 some not (some wrong), 2 cannot tell, 3 a file could not be read.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// What the calls are about, where the file does not tell: names, groups, register, cas-register, multi-register, kv, mutex
    #[arg(long, value_parser = |text: &str| text.parse::<Model>())]
    model: Option<Model>,
    /// Look at the calls about this one name, group or key alone
    #[arg(long, value_name = "KEY", conflicts_with = "expect")]
    key: Option<String>,
    /// How many seconds to search one file for, before it is unknown
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    budget: Duration,
    /// How many threads to check with [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Say on standard error why a history is not linearizable or cannot be told
    #[arg(long)]
    explain: bool,
    /// A list of the verdicts expected (tab-separated: name, expected, perhaps model); counts right, wrong and unknown
    #[arg(long, value_name = "VERDICTS.TSV", requires = "paths")]
    expect: Option<PathBuf>,
    /// Histories; with --expect the one directory that the list's names are relative to
    #[arg(value_name = "FILE", required = true)]
    paths: Vec<PathBuf>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds is asked for".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// Runs the command, prints, and returns the exit code.
pub fn run(args: &CheckArgs) -> Exit {
    let options = Options { model: args.model, key: args.key.clone(), budget: args.budget };
    let pool = match rayon::ThreadPoolBuilder::new().num_threads(args.jobs.map_or(0, usize::from)).build() {
        Ok(pool) => pool,
        Err(error) => {
            eprintln!("quorate: no threads to check with: {error}");
            return Exit::NotDone;
        }
    };
    pool.install(|| match &args.expect {
        Some(list) => {
            let [dir] = &args.paths[..] else {
                eprintln!("quorate: --expect takes one directory");
                return Exit::Usage;
            };
            expect(list, dir, &options, args.explain)
        }
        None => files(&args.paths, &options, args.explain),
    })
}

fn files(paths: &[PathBuf], options: &Options, explain: bool) -> Exit {
    let mut worst = Exit::Yes;
    // In order, and each as soon as it is known: the search within a file uses all threads already.
    for path in paths {
        let code = match check::check_file(path, options) {
            Ok(verdict) => {
                println!("{}\t{}", path.display(), Word::of(&verdict));
                if explain {
                    say_why(&path.display().to_string(), &verdict);
                }
                match verdict {
                    Verdict::Linearizable => Exit::Yes,
                    Verdict::NotLinearizable(_) => Exit::No,
                    Verdict::Unknown(_) => Exit::Unknown,
                }
            }
            Err(error) => {
                say_error(&error);
                Exit::NotDone
            }
        };
        if severity(code) > severity(worst) {
            worst = code;
        }
    }
    worst
}

/// A violation weighs more than a doubt; a file that could not be read leaves the question itself open.
fn severity(code: Exit) -> u8 {
    match code {
        Exit::Yes => 0,
        Exit::Unknown => 1,
        Exit::No => 2,
        _ => 3,
    }
}

fn expect(list: &std::path::Path, dir: &std::path::Path, options: &Options, explain: bool) -> Exit {
    let expected = match check::read_expected(list) {
        Ok(expected) => expected,
        Err(error) => {
            say_error(&error);
            return Exit::NotDone;
        }
    };
    let compared: Vec<Compared> = expected.par_iter().map(|expected| check::compare(expected, dir, options)).collect();
    let mut tally = Tally::default();
    for compared in &compared {
        tally.count(compared);
        match &compared.found {
            Err(error) => say_error(error),
            Ok(verdict) => {
                let found = Word::of(verdict);
                if found != compared.expected {
                    println!("{}\t{found}\texpected {}", compared.file, compared.expected);
                }
                if explain {
                    say_why(&compared.file, verdict);
                }
            }
        }
    }
    println!("right {}\twrong {}\tunknown {}", tally.right, tally.wrong, tally.unknown);
    match tally {
        Tally { failed: 1.., .. } => Exit::NotDone,
        Tally { wrong: 1.., .. } => Exit::No,
        Tally { unknown: 1.., .. } | Tally { right: 0, .. } => Exit::Unknown,
        Tally { .. } => Exit::Yes,
    }
}

fn say_why(file: &str, verdict: &Verdict) {
    match verdict {
        Verdict::Linearizable => {}
        Verdict::NotLinearizable(violation) => eprintln!("{file}: {violation}"),
        Verdict::Unknown(why) => eprintln!("{file}: {why}"),
    }
}

fn say_error(error: &CheckError) {
    eprintln!("quorate: {error}");
}
