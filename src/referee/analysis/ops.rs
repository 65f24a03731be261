//! Calls put together from their events.

use std::collections::HashMap;

use crate::model::ident::NodeId;
use crate::referee::history::{Event, Kind, Process, Registered, Side, Unregistered, What};

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
            What::Register { .. } | What::Unregister { .. } | What::Join { .. } | What::Leave { .. } => true,
            What::Whereis { .. }
            | What::Members { .. }
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
                What::Join { result, .. } => result.as_ref().is_none_or(|joined| joined.new),
                What::Unregister { result, .. } | What::Leave { result, .. } => ended(result),
                What::Whereis { .. }
                | What::Members { .. }
                | What::Fault(_)
                | What::Probe { .. }
                | What::View(_)
                | What::Conflicts { .. } => false,
            }
    }

    /// What it is about: a name or a group.
    pub fn key(&self) -> Key<'a> {
        match self.what {
            What::Register { name, .. } | What::Unregister { name, .. } | What::Whereis { name, .. } => Key::Name(name),
            What::Join { group, .. } | What::Leave { group, .. } | What::Members { group, .. } => Key::Group(group),
            What::Fault(_) | What::Probe { .. } | What::View(_) | What::Conflicts { .. } => Key::Other,
        }
    }

    /// One line for a person.
    pub fn tell(&self) -> String {
        let mut line = match self.what {
            What::Register { name, owner, result } => {
                let result = match result {
                    Some(Registered::Granted { token }) => format!(": granted, token {token}"),
                    Some(Registered::Held { token }) => format!(": held already, token {token}"),
                    Some(Registered::Taken { owner, token }) => format!(": taken by {owner}, token {token}"),
                    None => String::new(),
                };
                format!("register {name} for {owner}{result}")
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
            What::Join { group, member, result } => match result {
                Some(joined) if joined.new => format!("join {group} as {member}: joined, token {}", joined.token),
                Some(joined) => format!("join {group} as {member}: there already, token {}", joined.token),
                None => format!("join {group} as {member}"),
            },
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
            What::Fault(_) | What::Probe { .. } | What::View(_) | What::Conflicts { .. } => self.f().to_owned(),
        };
        match self.outcome {
            Outcome::Ok => {}
            Outcome::Fail => line.push_str(": failed, surely without effect"),
            Outcome::Info => line.push_str(": no answer, perhaps applied"),
        }
        line
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key<'a> {
    Name(&'a str),
    Group(&'a str),
    Other,
}

/// The word that a history file has for it.
pub fn f_of(what: &What) -> &'static str {
    match what {
        What::Register { .. } => "register",
        What::Unregister { .. } => "unregister",
        What::Whereis { .. } => "whereis",
        What::Join { .. } => "join",
        What::Leave { .. } => "leave",
        What::Members { .. } => "members",
        What::Fault(_) => "fault",
        What::Probe { .. } => "probe",
        What::View(_) => "view",
        What::Conflicts { .. } => "conflicts",
    }
}
