//! Names as registers, and what others' checkers say of them: porcupine and Knossos, where their sources and Debian's compilers are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use quorate::referee::check::Word;
use quorate::referee::checker::names::{self, NameCall, NameOp};
use quorate::referee::checker::register::RegisterRet;
use quorate::referee::checker::{Budget, Verdict};
use quorate::referee::formats::{self, export};

use crate::filed;
use crate::porcupine::Porcupine;
use crate::toys::{self, Dice, FLAWS, Shape, ToyName};

fn name_history(seed: u64, calls: usize, flawed: bool) -> Vec<NameCall> {
    let mut dice = Dice::new(seed);
    let flaw = flawed.then(|| (calls / 3 + dice.below(calls / 3), FLAWS[dice.below(FLAWS.len())]));
    let shape = Shape { calls, processes: 4, open_percent: [0, 5][dice.below(2)], flaw };
    let toy = ToyName::new([0, 3][dice.below(2)]);
    let name = format!("name {} \"{seed}\"", dice.below(2));
    toys::run(toy, shape, &mut dice).into_iter().map(|call| NameCall { name: name.clone(), call }).collect()
}

fn verdict_on(text: &str) -> Verdict {
    formats::read(text, None).unwrap().check(&Budget::unlimited())
}

/// One history in every form.
struct Exported {
    edn: String,
    log: String,
    /// What we say of the name, of the register, and of the register without the calls that failed (EDN).
    name: Word,
    register: Word,
    register_in_edn: Word,
}

fn exported(calls: &[NameCall]) -> Exported {
    let registers = export::registers(calls);
    let register = registers.values().next().unwrap();
    let (edn, log) = (export::edn(register), export::log(register));
    let word = |text: &str| Word::of(&verdict_on(text));
    Exported {
        name: Word::of(&names::check(calls, &Budget::unlimited())),
        register: word(&log),
        register_in_edn: word(&edn),
        edn,
        log,
    }
}

fn many() -> Vec<Exported> {
    (0..90).map(|seed| exported(&name_history(seed, 30, seed % 3 > 0))).collect()
}

#[test]
fn a_sound_name_is_a_sound_register_and_most_broken_ones_are_broken_ones() {
    let (mut broken, mut seen) = (0, 0);
    for seed in 0..400 {
        let history = exported(&name_history(seed, 24, seed % 2 == 1));
        if history.name == Word::Linearizable {
            assert_eq!(history.register, Word::Linearizable, "seed {seed}:\n{}", history.log);
        }
        if history.register == Word::Linearizable {
            assert_eq!(history.register_in_edn, Word::Linearizable, "seed {seed}:\n{}", history.edn);
        }
        broken += usize::from(history.name == Word::NotLinearizable);
        seen += usize::from(history.register == Word::NotLinearizable);
    }
    // What only the tokens' order tells, a register does not show.
    assert!(broken >= 60 && seen * 3 >= broken * 2, "{seen} of {broken}");
}

#[test]
fn many_names_in_one_file_are_judged_each_alone() {
    let histories = [name_history(2, 24, false), name_history(4, 24, false)];
    let calls = histories.iter().flatten().cloned().enumerate().map(|(at, mut call)| {
        call.name = format!("{} \\ {}\n", call.name, usize::from(at >= histories[0].len()));
        // The second one's processes are others.
        call.call.process += 1_000 * u64::from(at >= histories[0].len());
        call
    });
    let mut registers = export::registers(&calls.collect::<Vec<_>>());
    assert_eq!(registers.len(), 2);
    for (at, calls) in registers.values_mut().enumerate() {
        calls[0].process = 5_000 + at as u64;
    }
    assert_eq!(verdict_on(&export::edn_of_many(&registers)), Verdict::Linearizable);
    let broken = registers.values_mut().next().unwrap();
    let read = broken.iter_mut().rev().find_map(|call| match &mut call.result {
        Some(RegisterRet::Read(value)) => Some(value),
        _ => None,
    });
    *read.unwrap() = quorate::referee::checker::register::Value::Int(4_711);
    assert!(verdict_on(&export::edn_of_many(&registers)).violation().is_some());
}

#[test]
fn the_command_writes_a_file_a_name_that_check_reads() {
    let dir = tempfile::tempdir().unwrap();
    let create_only = |calls: &[NameCall]| !calls.iter().any(|call| matches!(call.call.op, NameOp::Takeover { .. }));
    let calls = (0..).map(|seed| name_history(seed, 12, false)).find(|calls| create_only(calls)).unwrap();
    let calls = calls.into_iter().map(|call| call.call).collect::<Vec<_>>();
    let history = dir.path().join("history.ndjson");
    fs::write(&history, filed::names_ndjson(&calls)).unwrap();
    let quorate = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_quorate")).args(args).output().unwrap();
    for (form, ending) in [("edn", "edn"), ("log", "log")] {
        let out = dir.path().join(form);
        let (history, out) = (history.to_str().unwrap(), out.to_str().unwrap());
        let exported = quorate(&["export", history, "--out", out, "--form", form]);
        assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
        let files = fs::read_dir(out).unwrap().map(|file| file.unwrap().path()).collect::<Vec<_>>();
        assert_eq!(files.len(), 1);
        assert_eq!(files[0].extension().unwrap(), ending);
        let checked = quorate(&["check", files[0].to_str().unwrap()]);
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    }
    fs::write(&history, "no history\n").unwrap();
    let refused = quorate(&["export", history.to_str().unwrap(), "--out", dir.path().to_str().unwrap()]);
    let told = String::from_utf8(refused.stderr).unwrap();
    assert_eq!((refused.status.code(), told.lines().count()), (Some(3), 1), "{told}");
}

/// Writes each history to a file of its own.
fn written(dir: &Path, histories: &[Exported], ending: &str, text: impl Fn(&Exported) -> &str) -> Vec<PathBuf> {
    let write = |(at, history): (usize, &Exported)| {
        let path = dir.join(format!("{at}.{ending}"));
        fs::write(&path, text(history)).unwrap();
        path
    };
    histories.iter().enumerate().map(write).collect()
}

#[test]
fn porcupine_says_the_same() {
    let porcupine = match Porcupine::build() {
        Ok(porcupine) => porcupine,
        Err(why) => return super::skipped(&why),
    };
    let dir = tempfile::tempdir().unwrap();
    let histories = many();
    let files = written(dir.path(), &histories, "log", |history| &history.log);
    let judged = porcupine.judge(&files);
    assert_eq!(judged.len(), histories.len());
    for (history, judged) in histories.iter().zip(&judged) {
        assert_eq!(history.register.to_string(), judged.verdict, "{}", history.log);
    }
    println!("porcupine searched for {:?}", judged.iter().map(|judged| judged.took).sum::<std::time::Duration>());
    both_verdicts_are_there(&judged.iter().map(|judged| judged.verdict.as_str()).collect::<Vec<_>>());
}

#[test]
fn knossos_says_the_same() {
    let Some(source) = std::env::var_os("QUORATE_KNOSSOS") else {
        return super::skipped("set QUORATE_KNOSSOS to a checkout of jepsen-io/knossos");
    };
    let jars = [
        "clojure",
        "spec.alpha",
        "core.specs.alpha",
        "potemkin",
        "clj-tuple",
        "riddley",
        "slingshot",
        "tools.logging",
        "math.combinatorics",
        "data.priority-map",
    ];
    let jars = jars.map(|jar| PathBuf::from(format!("/usr/share/java/{jar}.jar")));
    if let Some(missing) = jars.iter().find(|jar| !jar.exists()) {
        return super::skipped(&format!(
            "{} is missing: apt-get install clojure libpotemkin-clojure libslingshot-clojure libtools-logging-clojure \
             libmath-combinatorics-clojure libdata-priority-map-clojure",
            missing.display()
        ));
    }
    let dir = tempfile::tempdir().unwrap();
    let histories = many();
    let files = written(dir.path(), &histories, "edn", |history| &history.edn);
    let path = std::env::join_paths([Path::new(&source).join("src")].into_iter().chain(jars)).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/referee/others/knossos.clj");
    let run = Command::new("java").arg("-cp").arg(path).args(["clojure.main", script]).args(&files).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let told = String::from_utf8(run.stdout).unwrap();
    let verdicts: Vec<&str> = told.lines().filter_map(|line| line.split('\t').nth(1)).collect();
    assert_eq!(verdicts.len(), histories.len());
    for (history, verdict) in histories.iter().zip(&verdicts) {
        // One that Knossos did not finish says nothing.
        assert!(*verdict == "unknown" || *verdict == history.register_in_edn.to_string(), "{}", history.edn);
    }
    both_verdicts_are_there(&verdicts);
}

/// Or nothing has been compared.
fn both_verdicts_are_there(verdicts: &[&str]) {
    for wanted in ["linearizable", "not-linearizable"] {
        let count = verdicts.iter().filter(|verdict| **verdict == wanted).count();
        assert!(count >= 10, "{wanted}: {count} of {}", verdicts.len());
    }
}
