//! Histories filed under their verdicts: our own, and others' where they are at hand.
//!
//! `tests/corpus` is what the generator below makes: small histories of toys, some with a planted flaw, in every format, their
//! verdicts by brute force. After a change of the generator `QUORATE_WRITE_CORPUS=1 cargo test --test referee corpus` writes it anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use quorate::referee::check::{self, Options, Tally, Word};
use quorate::referee::checker::groups::OneGroup;
use quorate::referee::checker::kv::Kv;
use quorate::referee::checker::multi::MultiRegister;
use quorate::referee::checker::mutex::Mutex;
use quorate::referee::checker::names::{NameOp, OneName};
use quorate::referee::checker::register::{Register, RegisterRet};
use quorate::referee::checker::{Call, Spec, Verdict};
use quorate::referee::formats::{self, Model};

use crate::filed;
use crate::toys::{self, Dice, FLAWS, Shape, Toy, ToyGroup, ToyKv, ToyMutex, ToyName, ToyRegister, ToyRegisters};

/// How many histories of each verdict a kind of file has.
const FILES_PER_VERDICT: usize = 6;

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
        super::skipped("set QUORATE_CORPUS to a directory that holds porcupine/verdicts.tsv and knossos/verdicts.tsv");
        return;
    };
    for part in ["porcupine", "knossos"] {
        let began = Instant::now();
        let tally = all_are_right(&Path::new(&corpus).join(part));
        println!("{part}: {} right in {:?}", tally.right, began.elapsed());
    }
}

/// Small histories of one kind: as many sound as flawed ones.
fn file<T: Toy, O: Clone, R: Clone, S: Spec<Op = O, Ret = R>>(
    files: &mut BTreeMap<String, (Model, bool, String)>,
    name: &str,
    model: Model,
    toy: impl Fn() -> T,
    convert: impl Fn(Vec<Call<T::Op, T::Ret>>) -> Vec<Call<O, R>>,
    spec: impl Fn(&[&Call<O, R>]) -> S,
    write: impl Fn(&[Call<O, R>]) -> String,
) {
    let (folder, ending) = name.split_once('.').unwrap();
    for expected in [true, false] {
        let mut found = 0;
        for seed in 0.. {
            let mut dice = Dice::new(seed);
            let flaw = (!expected).then(|| (dice.below(7), FLAWS[dice.below(FLAWS.len())]));
            let shape = Shape { calls: 8, processes: 3, open_percent: [0, 15][dice.below(2)], flaw };
            let calls = convert(toys::run(toy(), shape, &mut dice));
            let spec = spec(&calls.iter().collect::<Vec<_>>());
            if calls.len() < 6 || toys::brute_force(&spec, &calls) != expected {
                continue;
            }
            found += 1;
            let word = if expected { "good" } else { "bad" };
            files.insert(format!("{folder}/{word}-{found}.{ending}"), (model, expected, write(&calls)));
            if found == FILES_PER_VERDICT {
                break;
            }
        }
    }
}

/// The corpus by file: model, whether it is linearizable, contents.
fn generated() -> BTreeMap<String, (Model, bool, String)> {
    let mut files = BTreeMap::new();
    let all = &mut files;
    file(
        all,
        "register.edn",
        Model::Register,
        || ToyRegister::new(3, false),
        |calls| calls,
        Register::of,
        filed::register_edn,
    );
    let told = |calls: Vec<Call<_, _>>| {
        calls.into_iter().filter(|call| call.result != Some(RegisterRet::Mismatch)).collect::<Vec<_>>()
    };
    file(
        all,
        "cas-register.edn",
        Model::CasRegister,
        || ToyRegister::new(3, true),
        told,
        Register::of,
        filed::register_edn,
    );
    file(
        all,
        "etcd-log.log",
        Model::CasRegister,
        || ToyRegister::new(3, true),
        |calls| calls,
        Register::of,
        filed::register_log,
    );
    file(all, "mutex.edn", Model::Mutex, ToyMutex::default, |calls| calls, |_| Mutex, filed::mutex_edn);
    file(all, "kv.txt", Model::Kv, || ToyKv::new(100), |calls| calls, Kv::of, filed::kv_edn);
    file(
        all,
        "multi-register.edn",
        Model::MultiRegister,
        ToyRegisters::default,
        toys::as_txns,
        |_| MultiRegister,
        filed::txn_edn,
    );
    // The ndjson has no takeover.
    let create_only = |calls: Vec<Call<NameOp, _>>| {
        let takes_over = |call: &Call<NameOp, _>| matches!(call.op, NameOp::Takeover { .. });
        if calls.iter().any(takes_over) { Vec::new() } else { calls }
    };
    file(all, "names.ndjson", Model::Names, || ToyName::new(3), create_only, OneName::of, filed::names_ndjson);
    file(
        all,
        "groups.ndjson",
        Model::Groups,
        || ToyGroup::new(true),
        |calls| calls,
        OneGroup::of,
        filed::groups_ndjson,
    );
    file(
        all,
        "groups-unversioned.ndjson",
        Model::Groups,
        || ToyGroup::new(false),
        |calls| calls,
        OneGroup::of,
        filed::groups_ndjson,
    );
    files
}

fn own_corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

#[test]
fn our_own_corpus_is_what_the_generator_makes_and_gets_its_verdicts() {
    let dir = own_corpus();
    let files = generated();
    let mut list = "name\tmodel\texpected\n".to_owned();
    for (name, (model, legal, _)) in &files {
        list += &format!("{name}\t{model}\t{}\n", if *legal { Word::Linearizable } else { Word::NotLinearizable });
    }
    if std::env::var_os("QUORATE_WRITE_CORPUS").is_some() {
        for (name, (_, _, text)) in &files {
            std::fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
            std::fs::write(dir.join(name), text).unwrap();
        }
        std::fs::write(dir.join("verdicts.tsv"), &list).unwrap();
    }
    for (name, (model, legal, text)) in &files {
        assert_eq!(&std::fs::read_to_string(dir.join(name)).unwrap(), text, "{name}");
        // The file tells its model by itself.
        let verdict = check::check_file(&dir.join(name), &Options::default()).unwrap();
        assert_eq!(verdict.is_linearizable(), *legal, "{name} ({model}): {verdict:?}");
    }
    assert_eq!(std::fs::read_to_string(dir.join("verdicts.tsv")).unwrap(), list);
    all_are_right(&dir);
}

#[test]
fn a_file_that_records_nothing_is_unknown() {
    for text in ["", " \n\n", "[]", "; nothing\n"] {
        let recorded = formats::read(text, None).unwrap();
        assert!(matches!(recorded.check(&checker_budget()), Verdict::Unknown(_)), "{text:?}");
    }
}

fn checker_budget() -> quorate::referee::checker::Budget<'static> {
    quorate::referee::checker::Budget::unlimited()
}

#[test]
fn a_file_that_is_no_history_is_refused_with_its_line() {
    let cases: [(&str, usize); 12] = [
        ("hello\nworld\n", 1),
        ("[{:process 0, :type :invoke, :f :read, :value nil}\n {:process 0 :type", 2),
        ("{:process 0, :type :invoke, :f :read}\n{:process 0, :type :done, :f :read}\n", 2),
        ("{:process 0, :type :ok, :f :read, :value 1}\n", 1),
        ("{:process 0, :type :invoke, :f :read}\n\n{:process 0, :type :invoke, :f :read}\n", 3),
        ("{:process 0, :type :invoke, :f :read}\n{:process 0, :type :ok, :f :write, :value 1}\n", 2),
        ("{:process 0, :type :invoke, :f :frobnicate}\n", 1),
        ("{:process 0, :type :invoke, :f :cas, :value 3}\n", 1),
        ("42\n", 1),
        ("INFO  jepsen.util - 0\t:invoke\t:read\tnil\nINFO  jepsen.util - 0\t:okay\t:read\t1\n", 2),
        ("{\"format\":1}\n", 1),
        ("{\"type\":\"ok\",\"index\":0,\"time\":0,\"process\":0,\"f\":\"whereis\",\"value\":{\"name\":\"n\"}}\n", 1),
    ];
    for (text, line) in cases {
        let error = formats::read(text, None).expect_err(text);
        assert_eq!(error.line, line, "{text:?}: {error}");
        assert_eq!(error.to_string().lines().count(), 1);
    }
    let nested = "[".repeat(100_000);
    assert!(formats::read(&nested, None).is_err());
}

#[test]
fn registers_with_keys_are_judged_each_alone() {
    let line = |process: u64, kind: &str, f: &str, value: &str| {
        format!("{{:process {process}, :type :{kind}, :f :{f}, :value {value}}}\n")
    };
    let history = |last: &str| {
        [
            line(0, "invoke", "write", "[\"a\" 1]"),
            line(0, "ok", "write", "[\"a\" 1]"),
            line(0, "invoke", "read", "[\"b\" nil]"),
            line(0, "ok", "read", &format!("[\"b\" {last}]")),
        ]
        .concat()
    };
    let verdict = |text: &str| formats::read(text, None).unwrap().check(&checker_budget());
    assert_eq!(verdict(&history("nil")), Verdict::Linearizable);
    assert!(verdict(&history("1")).violation().is_some());
}

#[test]
fn the_model_asked_for_has_to_be_able_to_read_the_file() {
    let text = "{:process 0, :type :invoke, :f :cas, :value [1 2]}\n";
    assert!(formats::read(text, Some(Model::CasRegister)).is_ok());
    for model in [Model::Register, Model::Mutex, Model::Kv, Model::MultiRegister, Model::Names] {
        assert!(formats::read(text, Some(model)).is_err(), "{model}");
    }
}
