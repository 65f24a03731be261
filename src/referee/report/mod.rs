//! What a comparison shows: a table in the terminal, `report.json`, and one page that opens offline.
//!
//! [`data`] is what comes in; [`judge`] has it analysed once. Then [`mod@table`] is for the terminal, [`json`] for scripts, [`page`] and
//! [`html`] for people, who also get [`prose`]: what was found, in plain English.

mod anomalies;
pub mod data;
mod doubles;
mod groups;
mod html;
mod json;
mod lanes;
mod page;
mod prose;
mod table;

use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::analysis::verdict::Verdict;
use super::analysis::{self, Findings};
use data::RunSet;

/// A comparison with its findings.
pub struct Judged {
    pub set: RunSet,
    /// One for each run, in the same order.
    pub findings: Vec<Findings>,
}

/// Analyses every run, on all threads of the current rayon pool.
pub fn judge(set: RunSet) -> Judged {
    let findings = set.runs.par_iter().map(analysis::analyse).collect();
    Judged { set, findings }
}

impl Judged {
    /// The worst verdict of the systems that decide. None: none of those that ran does.
    pub fn verdict(&self) -> Option<Verdict> {
        self.findings.iter().filter(|found| found.decides).map(|found| found.verdict).max()
    }
}

/// Writes `index.html` and `report.json` into an existing directory; returns the path of the page.
pub fn write(judged: &Judged, out_dir: &Path) -> io::Result<PathBuf> {
    std::fs::write(out_dir.join("report.json"), json::text(judged)?)?;
    let index = out_dir.join("index.html");
    std::fs::write(&index, html::page(judged)?)?;
    Ok(index)
}

/// Findings as rows, systems side by side, then a paragraph on each. For a terminal of `width` columns.
pub fn table(judged: &Judged, width: u16) -> String {
    table::text(judged, width)
}
