//! Calls put together from their events.

use std::collections::HashMap;

use crate::model::ident::NodeId;
use crate::referee::history::{Event, KeptAlive, Key, Kind, LeaseMade, Process, Registered, Side, Unregistered, What};

/// One call of a client, from its invocation to what became of it.
#[derive(Clone, Copy, Debug)]
pub struct Op<'a> {
    /// Of the invocation.
    pub index: u64,
    pub process: u64,
    pub node: Option<NodeId>,
    pub side: Option<Side>,
    pub invoked: u64,
    /// When the client stopped waiting; None: the run ended first. Of an `Info` this bounds nothing but the client's patience.
    pub ended: Option<u64>,
    pub outcome: Outcome,
    /// With its result, if the outcome is `Ok`.
    pub what: &'a What,
    pub error: Option<&'a str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    Ok,
    Fail,
    Info,
}

impl Outcome {
    pub const ALL: [Outcome; 3] = [Outcome::Ok, Outcome::Fail, Outcome::Info];

    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Fail => "fail",
            Outcome::Info => "info",
        }
    }
}

/// The clients' calls, by invocation. A call that never returned is `Info`.
pub fn pair(events: &[Event]) -> Vec<Op<'_>> {
    let mut ops: Vec<Op> = Vec::new();
    let mut open: HashMap<u64, usize> = HashMap::new();
    for event in events {
        let Process::Client(process) = event.process else { continue };
        if event.kind == Kind::Invoke {
            open.insert(process, ops.len());
            ops.push(Op {
                index: event.index,
                process,
                node: event.node,
                side: event.side,
                invoked: event.time,
                ended: None,
                outcome: Outcome::Info,
                what: &event.what,
                error: None,
            });
            continue;
        }
        let Some(at) = open.remove(&process) else { continue };
        let op = &mut ops[at];
        op.ended = Some(event.time);
        op.error = event.error.as_deref();
        op.outcome = match event.kind {
            Kind::Ok => Outcome::Ok,
            Kind::Fail => Outcome::Fail,
            Kind::Info | Kind::Invoke => Outcome::Info,
        };
        if op.outcome == Outcome::Ok {
            op.what = &event.what;
        }
    }
    ops
}

impl<'a> Op<'a> {
    /// When it was acknowledged; None: it was not.
    pub fn acked(&self) -> Option<u64> {
        self.ended.filter(|_| self.outcome == Outcome::Ok)
    }

    /// It may have had an effect, or may have one yet.
    pub fn possible(&self) -> bool {
        self.outcome != Outcome::Fail
    }

    pub fn f(&self) -> &'static str {
        f_of(self.what)
    }

    pub fn writes(&self) -> bool {
        match self.what {
            What::Register { .. }
            | What::Unregister { .. }
            | What::Join { .. }
            | What::Leave { .. }
            | What::CreateLease { .. }
            | What::Revoke { .. } => true,
            // A renewal and a keep-alive change nothing that anybody else can read.
            What::Renew { .. }
            | What::KeepAlive { .. }
            | What::Whereis { .. }
            | What::Members { .. }
            | What::GuardedWrite { .. }
            | What::Watched(_)
            | What::Fault(_)
            | What::Probe { .. }
            | What::View(_)
            | What::Conflicts { .. } => false,
        }
    }

    /// It changed something, or may have: a refusal changes nothing, and neither does asking for what is the case already.
    pub fn changes(&self) -> bool {
        let ended = |result: &Option<Unregistered>| matches!(result, None | Some(Unregistered::Now));
        self.possible()
            && match self.what {
                What::Register { result, .. } => matches!(result, None | Some(Registered::Granted { .. })),
                What::Join { result, .. } => result.as_ref().is_none_or(|joined| joined.new && !joined.no_lease),
                What::Unregister { result, .. } | What::Leave { result, .. } => ended(result),
                // What ends with a lease is accounted for grant by grant.
                What::CreateLease { .. }
                | What::KeepAlive { .. }
                | What::Revoke { .. }
                | What::Renew { .. }
                | What::Whereis { .. }
                | What::Members { .. }
                | What::GuardedWrite { .. }
                | What::Watched(_)
                | What::Fault(_)
                | What::Probe { .. }
                | What::View(_)
                | What::Conflicts { .. } => false,
            }
    }

    /// What it is about: a name or a group.
    pub fn key(&self) -> Key<'a> {
        self.what.key()
    }

    /// One line for a person.
    pub fn tell(&self) -> String {
        let mut line = match self.what {
            What::Register { name, owner, lease, result } => {
                format!("register {name} for {owner}{}{}", under(lease), registered_as(result))
            }
            What::Renew { name, owner, lease, token, result } => {
                format!("renew {name} for {owner}{} with token {token}{}", under(lease), registered_as(result))
            }
            What::Unregister { name, token, result } => {
                format!("unregister {name}{}{}", with_token(token), ended_as(result))
            }
            What::Whereis { name, result } => match result {
                Some(found) => match (&found.owner, &found.token) {
                    (Some(owner), Some(token)) => format!("whereis {name}: {owner}, token {token}"),
                    (Some(owner), None) => format!("whereis {name}: {owner}"),
                    (None, _) => format!("whereis {name}: nobody"),
                },
                None => format!("whereis {name}"),
            },
            What::Join { group, member, lease, result } => {
                let result = match result {
                    Some(joined) if joined.no_lease => ": the lease has ended".to_owned(),
                    Some(joined) if joined.new => format!(": joined, token {}", joined.token),
                    Some(joined) => format!(": there already, token {}", joined.token),
                    None => String::new(),
                };
                format!("join {group} as {member}{}{result}", under(lease))
            }
            What::CreateLease { lease, ttl_ms, result } => {
                let result = match result {
                    Some(LeaseMade::Made) => ": it lives",
                    Some(LeaseMade::Refused) => ": the id is not free",
                    None => "",
                };
                format!("create lease {lease} of {ttl_ms} ms{result}")
            }
            What::KeepAlive { lease, result, .. } => {
                let result = match result {
                    Some(KeptAlive::Alive { .. }) => ": it lives",
                    Some(KeptAlive::Ended) => ": it has ended",
                    Some(KeptAlive::Unknown) => ": it is not known",
                    None => "",
                };
                format!("keep lease {lease} alive{result}")
            }
            What::Revoke { lease, result } => format!("revoke lease {lease}{}", ended_as(result)),
            What::Leave { group, member, token, result } => {
                format!("leave {group} as {member}{}{}", with_token(token), ended_as(result))
            }
            What::Members { group, result } => match result {
                Some(membership) => {
                    let members: Vec<&str> = membership.members.iter().map(String::as_str).collect();
                    let revision = membership.revision.map(|r| format!(" at revision {r}")).unwrap_or_default();
                    format!("members of {group}: {{{}}}{revision}", members.join(", "))
                }
                None => format!("members of {group}"),
            },
            What::GuardedWrite { .. }
            | What::Watched(_)
            | What::Fault(_)
            | What::Probe { .. }
            | What::View(_)
            | What::Conflicts { .. } => self.f().to_owned(),
        };
        match self.outcome {
            Outcome::Ok => {}
            Outcome::Fail => line.push_str(": failed, surely without effect"),
            Outcome::Info => line.push_str(": no answer, perhaps applied"),
        }
        line
    }
}

fn under(lease: &Option<String>) -> String {
    lease.as_ref().map(|lease| format!(" under lease {lease}")).unwrap_or_default()
}

fn registered_as(result: &Option<Registered>) -> String {
    match result {
        Some(Registered::Granted { token }) => format!(": granted, token {token}"),
        Some(Registered::Held { token }) => format!(": held already, token {token}"),
        Some(Registered::Taken { owner, token }) => format!(": taken by {owner}, token {token}"),
        Some(Registered::Stale) => ": that grant does not stand any more".to_owned(),
        Some(Registered::NoLease) => ": the lease has ended".to_owned(),
        None => String::new(),
    }
}

fn with_token(token: &Option<String>) -> String {
    token.as_ref().map(|token| format!(" with token {token}")).unwrap_or_default()
}

fn ended_as(result: &Option<Unregistered>) -> &'static str {
    match result {
        Some(Unregistered::Now) => ": ended",
        Some(Unregistered::Before) => ": had ended before",
        Some(Unregistered::Absent) => ": nothing stood there",
        Some(Unregistered::Never) => ": no such token",
        None => "",
    }
}

/// The word that a history file has for it.
pub fn f_of(what: &What) -> &'static str {
    match what {
        What::Register { .. } => "register",
        What::Renew { .. } => "renew",
        What::Unregister { .. } => "unregister",
        What::Whereis { .. } => "whereis",
        What::Join { .. } => "join",
        What::Leave { .. } => "leave",
        What::Members { .. } => "members",
        What::CreateLease { .. } => "create-lease",
        What::KeepAlive { .. } => "keep-alive",
        What::Revoke { .. } => "revoke",
        What::GuardedWrite { .. } => "guarded-write",
        What::Watched(_) => "watched",
        What::Fault(_) => "fault",
        What::Probe { .. } => "probe",
        What::View(_) => "view",
        What::Conflicts { .. } => "conflicts",
    }
}
