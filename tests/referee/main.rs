//! The referee, judged.

mod analysis;
mod browser;
mod campaigns;
mod checker;
mod comparison;
mod controls;
mod corpus;
mod filed;
mod harms;
mod holding;
mod logs;
mod namespaces;
mod nemesis;
mod others;
mod page;
mod porcupine;
mod processes;
mod report;
mod reproduced;
mod rivals;
mod runner;
mod sides;
mod synthetic;
mod telling;
mod toys;
mod weaker;

/// Says that a test cannot run here. Straight to standard error: the harness would keep what a passing test prints to itself.
fn skipped(why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
