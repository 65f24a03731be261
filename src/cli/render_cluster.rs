//! How the cluster, and what became of its changes, is printed.

use serde::Serialize;

use super::Exit;
use super::connect;
use super::render::{Form, columns, print, print_json};
use crate::client::call::Cause;
use crate::client::error::Error;
use crate::wire::cluster::{ClusterBody, LeaderBody, MemberBody, RemovedBody, SnapshotBody};
use crate::wire::status::{Certainty, Code};
use crate::wire::write;

/// Prints the cluster.
pub fn cluster(body: &ClusterBody, form: Form) -> Exit {
    if form == Form::Json {
        print_json(&write::bytes(512, body));
        return Exit::Yes;
    }
    let leader = body.leader.map_or("no leader".to_owned(), |id| format!("leader {id}"));
    print(&format!("cluster {}, seen from node {} ({})", body.cluster, body.node, body.version));
    print(&format!("cp: {leader}, term {}, applied {} of {} committed", body.term, body.applied, body.committed));
    print(&format!(
        "ap: {} names, {} members, {} conflict records, digest {}",
        body.ap.names, body.ap.members, body.ap.conflicts, body.ap.digest
    ));
    let rows = body.nodes.iter().map(|node| {
        let http = node.http.clone().unwrap_or_default();
        let refused = node.refused.clone().unwrap_or_default();
        vec![node.id.to_string(), node.role.clone(), node.state.clone(), node.peer.clone(), http, refused]
    });
    print(&columns(&["node", "role", "state", "peer", "http", "refused"], rows));
    Exit::Yes
}

/// What a change of the cluster comes to, in words.
pub trait Told: Serialize {
    fn told(&self) -> String;
}

impl Told for MemberBody {
    fn told(&self) -> String {
        format!("node {} at {} is a {}", self.id, self.peer, self.role)
    }
}

impl Told for RemovedBody {
    fn told(&self) -> String {
        match self.removed.as_str() {
            "before" => format!("node {} was removed before; nothing was done", self.id),
            _ => format!("node {} is removed, and its id never returns", self.id),
        }
    }
}

impl Told for LeaderBody {
    fn told(&self) -> String {
        format!("node {} leads", self.leader)
    }
}

impl Told for SnapshotBody {
    fn told(&self) -> String {
        format!("node {} has its table on disk, up to log entry {}", self.node, self.index)
    }
}

/// Prints what became of a change.
pub fn change(changed: &Result<impl Told, Error>, form: Form) -> Exit {
    match (changed, form) {
        (Ok(body), Form::Human) => print(&body.told()),
        (Ok(body), Form::Json) => print_json(&write::bytes(128, body)),
        (Err(Error::NotApplied(Cause::Rejected { code, detail })), _) if refuses(*code) => {
            match form {
                Form::Human => eprintln!("refused, {}: {detail}", code.row().text),
                Form::Json => {
                    let mut problem = write::Problem::of(*code, Some(Certainty::NotApplied));
                    problem.detail = Some(detail);
                    problem.retryable = code.is_passing();
                    print_json(&write::problem(&problem));
                }
            }
            return Exit::No;
        }
        (Err(error), _) => return connect::failed(error),
    }
    Exit::Yes
}

/// Whether that is the cluster's no to a change, and not the door's.
fn refuses(code: Code) -> bool {
    matches!(
        code,
        Code::NodeUnknown
            | Code::NodeRemoved
            | Code::NodeExists
            | Code::NodeBehind
            | Code::QuorumAtRisk
            | Code::CannotLead
            | Code::ChangeUnderWay
    )
}
