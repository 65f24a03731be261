//! Histories filed under their verdicts: our own, and others' where they are at hand.

use std::path::Path;
use std::time::{Duration, Instant};

use quorate::referee::check::{self, Options, Tally, Word};

/// Checks every file of a list; panics unless all are right.
fn all_are_right(dir: &Path) -> Tally {
    let list = check::read_expected(&dir.join("verdicts.tsv")).unwrap();
    let mut tally = Tally::default();
    let mut wrong = Vec::new();
    for expected in &list {
        let began = Instant::now();
        let compared = check::compare(expected, dir, &Options::default());
        let took = began.elapsed();
        tally.count(&compared);
        if took > Duration::from_millis(500) {
            println!("{} took {took:?}", expected.file);
        }
        match compared.found {
            Ok(verdict) if Word::of(&verdict) == expected.verdict => {}
            found => wrong.push(format!("{}: expected {}, found {found:?}", expected.file, expected.verdict)),
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert_eq!(tally.right, list.len());
    tally
}

#[test]
fn the_histories_of_porcupine_and_knossos_get_their_verdicts() {
    let Some(corpus) = std::env::var_os("QUORATE_CORPUS") else {
        println!(
            "skipped: set QUORATE_CORPUS to a directory that holds porcupine/verdicts.tsv and knossos/verdicts.tsv"
        );
        return;
    };
    for part in ["porcupine", "knossos"] {
        let began = Instant::now();
        let tally = all_are_right(&Path::new(&corpus).join(part));
        println!("{part}: {} right in {:?}", tally.right, began.elapsed());
    }
}
