//! From a history to verdicts: pure functions of what was recorded, each asking one question.
//!
//! [`story`] puts a run in order once ([`ops`] pairs calls, [`faults`] tells when what was in force, [`views`] what the observer saw,
//! [`grants`] what was granted and what may have ended it, [`survival`] who surely knows of an operation; [`evidence`] tells what
//! convicts). Then each question has its file: [`linearizable`], [`duplicates`], [`certain`], [`fencing`], [`expiry`], [`lost`], [`stale`], [`sessions`], [`sets`],
//! [`convergence`], [`conflicts`], [`tidings`], [`watches`] (by [`streams`]), [`availability`], [`latency`]; and [`verdict`] holds the answers against what the system promised. Everything is measured on every system.

pub mod availability;
pub mod certain;
pub mod conflicts;
pub mod convergence;
pub mod duplicates;
pub mod evidence;
pub mod expiry;
pub mod faults;
pub mod fencing;
pub mod grants;
pub mod latency;
pub mod linearizable;
pub mod lost;
pub mod ops;
pub mod sessions;
pub mod sets;
pub mod stale;
pub mod story;
pub mod streams;
pub mod survival;
pub mod tidings;
pub mod verdict;
pub mod views;
pub mod watches;

use serde::Serialize;

use crate::model::ident::NodeId;
use crate::referee::history::Installed;
use crate::referee::report::data::Run;
use availability::Availability;
use certain::Certainties;
use conflicts::Conflicts;
use convergence::Convergence;
use duplicates::Duplicates;
use expiry::Expiry;
use faults::ms;
use fencing::Fencing;
use latency::Latency;
use linearizable::Linearizability;
use lost::Losses;
use sessions::Sessions;
use sets::Sets;
use stale::StaleReads;
use story::Story;
use tidings::Tidings;
use verdict::{Promise, Verdict};
use watches::Watches;

/// All that was found in one run.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    pub system: String,
    /// Whether the verdict counts for the comparison's exit code.
    pub decides: bool,
    pub verdict: Verdict,
    pub promises: Vec<Promise>,
    /// Calls of clients.
    pub operations: usize,
    pub faults: Vec<FaultFound>,
    pub names: Linearizability,
    pub groups: Linearizability,
    /// Names and groups as the writes' answers alone show them.
    pub writes: Linearizability,
    pub duplicates: Duplicates,
    pub losses: Losses,
    pub stale_reads: StaleReads,
    pub conflicts: Conflicts,
    pub convergence: Convergence,
    pub availability: Availability,
    pub latency: Latency,
    pub certainties: Certainties,
    pub fencing: Fencing,
    pub expiry: Expiry,
    pub watches: Watches,
    pub tidings: Tidings,
    pub sessions: Sessions,
    pub sets: Sets,
}

/// A fault, and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct FaultFound {
    pub id: u64,
    pub kind: String,
    pub state: Installed,
    pub detail: String,
    pub from_ms: f64,
    /// None: it lasted until the end of the run.
    pub to_ms: Option<f64>,
    pub cut: Vec<(NodeId, NodeId)>,
    pub nodes: Vec<NodeId>,
}

pub fn analyse(run: &Run) -> Findings {
    let story = Story::of(run);
    let linearizable::Found { names, groups, writes } = linearizable::find(&story);
    let faults = story.faults.all.iter().map(|fault| FaultFound {
        id: fault.id,
        kind: fault.kind.clone(),
        state: fault.state,
        detail: fault.details(),
        from_ms: ms(fault.begin.from),
        to_ms: fault.end.map(|end| ms(end.to)),
        cut: fault.cut.clone(),
        nodes: fault.nodes.clone(),
    });
    let mut findings = Findings {
        system: run.header.system.clone(),
        decides: run.decides,
        verdict: Verdict::Unknown,
        promises: Vec::new(),
        operations: story.ops.len(),
        faults: faults.collect(),
        names,
        groups,
        writes,
        duplicates: duplicates::find(&story),
        losses: lost::find(&story),
        stale_reads: stale::find(&story),
        conflicts: conflicts::find(&story),
        convergence: convergence::find(&story),
        availability: availability::find(&story),
        latency: latency::find(&story),
        certainties: certain::find(&story),
        fencing: fencing::find(&story),
        expiry: expiry::find(&story),
        watches: watches::find(&story),
        tidings: tidings::find(&story),
        sessions: sessions::find(&story),
        sets: sets::find(&story),
    };
    findings.promises = verdict::promises(&story, &findings);
    findings.verdict = verdict::worst(&findings.promises);
    findings
}
