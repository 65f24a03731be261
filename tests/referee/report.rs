//! The report of a synthetic comparison: one file that needs nothing, and says the same thing in three forms.

use quorate::referee::analysis::verdict::Verdict;
use quorate::referee::report::{self, Judged};
use serde_json::Value;

use crate::synthetic::comparison;

fn judged() -> Judged {
    report::judge(comparison(42))
}

/// Where `QUORATE_REPORT_OUT` points, so that a person can look at it; else a directory that goes away.
fn written() -> (String, Value) {
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let wanted = std::env::var_os("QUORATE_REPORT_OUT").map(std::path::PathBuf::from);
    let out = wanted.as_deref().unwrap_or(temporary.path());
    let index = report::write(&judged(), out).expect("it is written");
    assert_eq!(index, out.join("index.html"));
    let json = std::fs::read_to_string(out.join("report.json")).expect("it is there");
    (std::fs::read_to_string(index).expect("it is there"), serde_json::from_str(&json).expect("it is JSON"))
}

/// What a page holds.
pub fn data_in(page: &str) -> Value {
    let (_, data) = page.split_once("id=\"data\">").expect("the element");
    let (data, _) = data.split_once("</script>").expect("its end");
    serde_json::from_str(data).expect("it is JSON")
}

#[test]
fn both_modes_keep_their_promises_in_the_synthetic_run() {
    let judged = judged();
    for found in &judged.findings {
        assert_eq!(found.verdict, Verdict::Holds, "{}: {:#?}", found.system, found.promises);
    }
    assert_eq!(judged.verdict(), Some(Verdict::Holds));
    let [cp, ap] = &judged.findings[..] else { panic!("two systems") };
    assert_eq!(cp.duplicates.names, 0);
    assert!(ap.duplicates.names > 0 && ap.conflicts.losing_grants > 0);
}

#[test]
fn the_page_loads_nothing_and_is_small() {
    let (page, _) = written();
    assert!(page.len() < 5 * 1024 * 1024, "{} bytes", page.len());
    for load in ["http://", "https://", "src=", "<link", "@import", "url(http", "fetch(", "XMLHttpRequest", "import("] {
        assert!(!page.contains(load), "{load}");
    }
    for place in ["/*STYLE*/", "/*SCRIPT*/", "/*DATA*/"] {
        assert!(!page.contains(place), "{place} was not filled");
    }
}

#[test]
fn the_data_in_the_page_parses_and_cannot_end_its_element() {
    let mut set = comparison(1);
    set.command = "quorate compare --out '</script><!--'".to_owned();
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let index = report::write(&report::judge(set), temporary.path()).expect("it is written");
    let page = std::fs::read_to_string(index).expect("it is there");
    let data = data_in(&page);
    assert_eq!(data["command"], "quorate compare --out '</script><!--'");
    assert_eq!(data["systems"].as_array().map(Vec::len), Some(2));
    assert!(data["names"].as_array().is_some_and(|names| names[0][0].as_str().unwrap().starts_with("contested/")));
}

#[test]
fn report_json_holds_what_the_design_lists() {
    let (_, json) = written();
    assert_eq!(json["format"], 1);
    assert_eq!(json["verdict"], "holds");
    assert_eq!(json["skipped"][0]["system"], "etcd");
    for system in json["systems"].as_array().expect("a list") {
        for place in [
            "/latency/counts/during/register/ok",
            "/availability/sides/majority/ok",
            "/availability/sides/minority/fail",
            "/availability/write_gaps/0/gap_ms",
            "/latency/by_phase/before/register/p99_ms",
            "/names/linearizable",
            "/groups/linearizable",
            "/duplicates/seconds",
            "/losses/lost",
            "/losses/resurrected",
            "/stale_reads/stale",
            "/conflicts/records",
            "/convergence/heals/0/agreed_after_ms",
            "/faults/0/state",
        ] {
            assert!(system.pointer(place).is_some(), "{}: {place}", system["system"]);
        }
        assert_eq!(system["faults"][0]["state"], "installed");
        assert!(system["summary"].as_str().is_some_and(|text| text.len() > 80));
    }
}

#[test]
fn the_table_puts_systems_side_by_side_and_says_what_it_means() {
    let table = report::table(&judged(), 120);
    let header = table.lines().nth(1).expect("a header");
    assert!(header.contains("cp") && header.contains("ap"), "{header}");
    for words in
        ["Never two owners at once", "✓ every promise kept", "not promised", "cp: cp was given", "etcd: skipped"]
    {
        assert!(table.contains(words), "{words} is not in\n{table}");
    }
    assert!(table.lines().take_while(|line| !line.is_empty()).all(|line| line.chars().count() <= 120), "{table}");
}

#[test]
fn the_same_runs_make_the_same_report() {
    let (one, two) = (written(), written());
    assert!(one.0 == two.0 && one.1 == two.1);
}

#[test]
fn the_group_strip_has_what_every_node_showed() {
    let (page, _) = written();
    let data = data_in(&page);
    assert_eq!(data["groups"], serde_json::json!(["workers"]));
    for system in data["systems"].as_array().expect("a list") {
        let nodes = system["groups"][0]["nodes"].as_array().expect("lanes");
        assert_eq!(nodes.len(), 5);
        for lane in nodes {
            let stretches = lane.as_array().expect("stretches");
            let ends = |at: usize| stretches[at][1].as_f64().expect("a time");
            assert!((1..stretches.len()).all(|at| ends(at - 1) <= stretches[at][0].as_f64().expect("a time")));
            assert!(stretches.last().expect("it was looked at")[2].as_u64() > Some(0), "{system}");
        }
    }
}
