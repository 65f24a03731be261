//! Imports point downwards: the house's table, held against the source.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What each room may import; itself always. Finer rules are in `FORBIDDEN`.
const TABLE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("wire", &["model"]),
    ("registry", &["model"]),
    ("cluster", &["model", "registry"]),
    ("messages", &["model", "registry"]),
    ("feed", &["model"]),
    ("net", &["model"]),
    ("referee", &["model"]),
    ("gossip", &["model", "registry", "cluster", "feed", "net"]),
    ("raft", &["model", "registry", "cluster", "feed", "net"]),
    ("post", &["model", "registry", "messages", "net"]),
    ("http", &["model", "wire", "registry", "messages", "cluster", "feed"]),
    ("client", &["model", "wire", "registry", "messages", "cluster"]),
    ("systems", &["model", "wire", "registry", "cluster", "referee", "client"]),
    ("node", &["model", "registry", "messages", "cluster", "feed", "net", "gossip", "raft", "post", "http"]),
    (
        "cli",
        &[
            "model", "wire", "registry", "messages", "cluster", "feed", "net", "referee", "gossip", "raft", "post",
            "http", "client", "systems", "node",
        ],
    ),
];

/// Parts of a permitted room that a room may not use: room, path, why.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("referee", "model::table", "an examiner who copies from the student finds no mistakes"),
    ("net", "model::table", "the seams know ids alone"),
    ("net", "model::command", "the seams know ids alone"),
    ("systems", "client::client", "a recording client never retries"),
];

/// What the pure rooms may not touch.
const PURE: &[(&str, &[&str])] = &[
    ("model", &["tokio::", "axum::", "sled::", "openraft::", "rand::", "SystemTime", "Instant", "std::fs", "std::net"]),
    ("wire", &["tokio::", "axum::", "sled::", "openraft::", "rand::", "SystemTime", "Instant", "std::fs", "std::net"]),
];

/// What single files may not touch.
const BARE: &[(&str, &[&str], &str)] = &[(
    "raft/state_machine.rs",
    &["SystemTime", "wall_ms", "rand::"],
    "what is applied depends on the log alone, or replicas would differ",
)];

struct Breach {
    file: PathBuf,
    line: usize,
    what: String,
}

/// The room that a file below `src` belongs to; none for `lib.rs` and `main.rs`, which are the map.
fn room(file: &Path) -> Option<String> {
    let first = file.components().next()?.as_os_str().to_str()?;
    let room = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(room, "lib" | "main")).then(|| room.to_owned())
}

/// Where `super::super::…` leads from a file, as a path from the crate's root.
fn module_of(file: &Path) -> Vec<String> {
    let mut parts =
        file.iter().map(|part| part.to_str().unwrap().trim_end_matches(".rs").to_owned()).collect::<Vec<_>>();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

/// Every path from the crate's root that a line names: `crate::a::b`, and `super::` chains resolved.
fn paths(line: &str, module: &[String]) -> Vec<String> {
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    for piece in line.split(|c| !word(c)) {
        if let Some(at) = piece.find("crate::").filter(|at| *at == 0) {
            found.push(piece[at + "crate::".len()..].to_owned());
        } else if piece.starts_with("super::") {
            let ups = piece.matches("super::").count();
            // Inside `mod tests { … }` one `super` more is used than the file's own depth tells; resolving it from the file
            // then names a place further up, which can only be stricter.
            let base = &module[..module.len().saturating_sub(ups)];
            let rest = piece.trim_start_matches("super::");
            found.push(base.iter().map(String::as_str).chain([rest]).collect::<Vec<_>>().join("::"));
        }
    }
    found
}

fn breaches(file: &Path, source: &str) -> Vec<Breach> {
    let Some(room) = room(file) else { return Vec::new() };
    let table = TABLE.iter().copied().collect::<BTreeMap<_, _>>();
    let mut found = Vec::new();
    let mut breach = |line: usize, what: String| found.push(Breach { file: file.to_owned(), line, what });
    let Some(allowed) = table.get(room.as_str()) else {
        breach(0, format!("{room} is no room of the house"));
        return found;
    };
    let rooms = table.keys().copied().collect::<BTreeSet<_>>();
    let module = module_of(file);
    // `use crate::{a, b}` would hide rooms from the search; so it is a breach itself.
    for (number, line) in source.lines().enumerate().map(|(number, line)| (number + 1, line)) {
        let code = line.trim_start();
        if code.starts_with("//") {
            continue;
        }
        if code.contains("crate::{") || code.contains("crate::*") {
            breach(number, "imports by crate::{…} or crate::*: name each room on a line of its own".to_owned());
        }
        if code.contains("cfg(feature") || code.contains("cfg(any(feature") || code.contains("cfg(all(feature") {
            breach(number, "cfg(feature) belongs in lib.rs and main.rs alone".to_owned());
        }
        for path in paths(code, &module) {
            let target = path.split("::").next().unwrap_or_default();
            if rooms.contains(target) && target != room && !allowed.contains(&target) {
                breach(number, format!("{room} may not import {target}"));
            }
            for (_, forbidden, why) in FORBIDDEN.iter().filter(|(from, _, _)| *from == room) {
                if path == *forbidden || path.starts_with(&format!("{forbidden}::")) {
                    breach(number, format!("{room} may not import {forbidden}: {why}"));
                }
            }
        }
        for (_, impure) in PURE.iter().filter(|(pure, _)| *pure == room) {
            for word in impure.iter().filter(|word| code.contains(**word)) {
                breach(number, format!("{room} is pure and may not use {word}"));
            }
        }
        for (path, words, why) in BARE.iter().filter(|(path, ..)| file == Path::new(path)) {
            for word in words.iter().filter(|word| code.contains(**word)) {
                breach(number, format!("{path} may not use {word}: {why}"));
            }
        }
    }
    found
}

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            into.push(path);
        }
    }
}

/// Every file of the program and of its tests.
fn all_code() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    sources(&root.join("tests"), &mut files);
    files.into_iter().map(|file| (file.clone(), fs::read_to_string(file).unwrap())).collect()
}

#[test]
fn imports_point_downwards() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 10);
    let found = files
        .iter()
        .flat_map(|file| breaches(file.strip_prefix(&src).unwrap(), &fs::read_to_string(file).unwrap()))
        .map(|breach| format!("src/{}:{}: {}", breach.file.display(), breach.line, breach.what))
        .collect::<Vec<_>>();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn a_file_has_at_most_500_lines() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let long = files
        .iter()
        .map(|file| (file, fs::read_to_string(file).unwrap().lines().count()))
        .filter(|(_, lines)| *lines > 500)
        .map(|(file, lines)| format!("{}: {lines} lines", file.display()))
        .collect::<Vec<_>>();
    assert!(long.is_empty(), "\n{}", long.join("\n"));
}

/// The function that each `#[ignore]` stands before.
fn left_out(source: &str) -> Vec<String> {
    let lines = source.lines().map(str::trim).collect::<Vec<_>>();
    let ignored =
        lines.iter().enumerate().filter(|(_, line)| line.starts_with("#[ignore") || line.contains(", ignore"));
    ignored
        .map(|(at, _)| {
            let function = lines[at..].iter().find_map(|line| line.split_once("fn ")).map_or("", |(_, rest)| rest);
            function.split('(').next().unwrap_or_default().to_owned()
        })
        .collect()
}

/// A project that left its tests of partitions out of the usual run did not notice when they began to fail.
#[test]
fn no_test_is_left_out() {
    // This file speaks of the attribute.
    let others = all_code().into_iter().filter(|(file, _)| !file.ends_with("tests/layers.rs"));
    let found = others.flat_map(|(_, code)| left_out(&code)).collect::<Vec<_>>();
    assert_eq!(found, Vec::<String>::new());
    let planted = "#[test]\n#[ignore = \"slow\"]\nfn both_modes_survive() {\n";
    assert_eq!(left_out(planted), ["both_modes_survive"]);
}

/// The tests that a page names, as `file::claim`.
fn named(page: &str) -> Vec<&str> {
    let quoted = page.split('`').skip(1).step_by(2);
    quoted.filter(|word| word.contains("::")).map(|word| word.rsplit("::").next().unwrap_or_default()).collect()
}

/// `tests/found.md` promises that something keeps each trap out; a test that was renamed would make that a mere word.
#[test]
fn the_tests_that_found_md_names_exist() {
    let code = all_code();
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/found.md")).unwrap();
    let names = named(&page);
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        assert!(code.iter().any(|(_, code)| code.contains(&format!("fn {name}("))), "there is no {name}");
    }
}

#[test]
fn a_planted_breach_is_found() {
    let planted = [
        ("model/table.rs", "use crate::registry::Registry;"),
        ("model/table.rs", "use std::time::Instant;"),
        ("model/table.rs", "    let x = super::super::gossip::map::Map::new();"),
        ("gossip/map.rs", "use crate::raft::types::Request;"),
        ("gossip/map.rs", "fn f(x: crate::http::State) {}"),
        ("referee/checker/names.rs", "use crate::model::table::Table;"),
        ("referee/runner.rs", "use crate::client::call::Caller;"),
        ("http/names.rs", "use crate::{raft, wire};"),
        ("http/names.rs", "#[cfg(feature = \"flaws\")]"),
        ("systems/nodes.rs", "use crate::client::client::Client;"),
        ("net/links.rs", "use crate::cluster::Faults;"),
        ("raft/state_machine.rs", "let at = UnixMillis(self.clock.wall_ms());"),
        ("attic/x.rs", ""),
    ];
    for (file, line) in planted {
        let found = breaches(Path::new(file), &format!("//! A file.\n{line}\n"));
        assert!(!found.is_empty(), "{file}: {line} went unseen");
    }
    let fine = [
        ("gossip/map.rs", "use crate::model::ident::Name;"),
        ("gossip/map.rs", "use super::rank::Rank; // crate::raft is another room"),
        ("cli/serve.rs", "use crate::node::config::Config;"),
        ("model/table.rs", "use super::ident::Name;"),
    ];
    for (file, line) in fine {
        let found = breaches(Path::new(file), &format!("{}\n", line.split(" // ").next().unwrap()));
        assert!(found.is_empty(), "{file}: {line}: {}", found[0].what);
    }
}
