//! The referee, judged.

mod analysis;
mod browser;
mod checker;
mod comparison;
mod corpus;
mod filed;
mod logs;
mod namespaces;
mod others;
mod page;
mod porcupine;
mod processes;
mod report;
mod runner;
mod sides;
mod synthetic;
mod toys;
mod weaker;

/// Says that a test cannot run here. Straight to standard error: the harness would keep what a passing test prints to itself.
fn skipped(why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
