//! A finding that is told in one line, and where in the run it is to be seen.

use serde::Serialize;

use super::faults::Span;
use super::story::Story;
use crate::referee::history::{KeptAlive, LeaseMade, What};

/// In `report.json` it is its line; the page also shows the calls.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Evidence {
    /// Begins with the name or group, if it is about one.
    pub line: String,
    #[serde(skip)]
    pub key: String,
    #[serde(skip)]
    pub span: Span,
    /// Their places in the story.
    #[serde(skip)]
    pub calls: Vec<usize>,
}

impl Evidence {
    pub fn new(key: &str, what: impl std::fmt::Display, span: Span, calls: impl Into<Vec<usize>>) -> Self {
        let line = if key.is_empty() { what.to_string() } else { format!("{key}: {what}") };
        Self { line, key: key.to_owned(), span, calls: calls.into() }
    }

    /// The line without the name or group.
    pub fn what(&self) -> &str {
        self.line.strip_prefix(&self.key).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&self.line)
    }
}

pub fn lines(list: &[Evidence]) -> Vec<String> {
    list.iter().map(|evidence| evidence.line.clone()).collect()
}

/// The answered call that was the last one by then to prove that a lease lived: what its time is counted from.
pub fn last_proof(story: &Story, lease: &str, until: u64) -> Option<usize> {
    let proves = |what: &What| match what {
        What::CreateLease { lease: of, result: Some(LeaseMade::Made), .. } => of == lease,
        What::KeepAlive { lease: of, result: Some(KeptAlive::Alive { .. }), .. } => of == lease,
        _ => false,
    };
    story.ops.iter().rposition(|op| proves(op.what) && op.acked().is_some_and(|acked| acked <= until))
}
