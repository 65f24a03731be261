//! Quorate's own histories: `history.ndjson`, and the events of a run before they are written.
//!
//! Only what numbered clients did counts; what observers saw of single nodes is no part of what is promised. A call of unknown outcome
//! is open, a failed one is left out, reads without an answer too. Where a lease ends, calls of nobody's say so
//! ([`lease_ends`]).

use std::collections::HashMap;
use std::sync::Arc;

use super::{FormatError, History, Model, Recorded, lease_ends};
use crate::referee::checker::Call;
use crate::referee::checker::groups::{GroupCall, GroupOp, GroupRet};
use crate::referee::checker::names::{NameCall, NameOp, NameRet};
use crate::referee::checker::token::Token;
use crate::referee::history::{
    Event, Found, Header, Joined, Kind, Membership, Process, Registered, Unregistered, What,
};

/// Reads a file: the header, then one event a line.
pub(super) fn read(text: &str, model: Option<Model>) -> Result<Recorded, FormatError> {
    let (names, groups) = match model {
        None => (true, true),
        Some(Model::Names) => (true, false),
        Some(Model::Groups) => (false, true),
        Some(other) => {
            return Err(FormatError::new(1, format!("an ndjson history is about names and groups, not {other}")));
        }
    };
    let mut events: Vec<Event> = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let fail = |error: serde_json::Error| FormatError::new(index + 1, error.to_string());
        if index == 0 && !line.contains("\"type\"") {
            let header: Header = serde_json::from_str(line).map_err(fail)?;
            if header.format != 1 {
                return Err(FormatError::new(1, format!("this is format {}; 1 is known", header.format)));
            }
            continue;
        }
        events.push(serde_json::from_str(line).map_err(fail)?);
    }
    let calls = calls(&events).map_err(|Misplaced { index, message }| {
        let line = text.lines().enumerate().filter(|(_, line)| line.contains("\"type\"")).nth(index);
        FormatError::new(line.map_or(1, |(line, _)| line + 1), message)
    })?;
    let history = History::Own {
        names: if names { calls.names } else { Vec::new() },
        groups: if groups { calls.groups } else { Vec::new() },
    };
    // A run whose clients did nothing has checked nothing.
    let any_event = !history.is_empty();
    Ok(Recorded { history, any_event })
}

/// A run's calls, by what they are about.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    pub names: Vec<NameCall>,
    pub groups: Vec<GroupCall>,
    /// For each call of `names`, the index among the events of its invocation.
    pub name_events: Vec<usize>,
    /// For each call of `groups`, the index among the events of its invocation.
    pub group_events: Vec<usize>,
}

/// An event that cannot stand where it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event {index}: {message}")]
pub struct Misplaced {
    pub index: usize,
    pub message: String,
}

/// The calls that the clients made, in the order of their invocations. Times are positions among the events.
pub fn calls(events: &[Event]) -> Result<Calls, Misplaced> {
    let mut completions: Vec<Option<usize>> = vec![None; events.len()];
    let mut under_way: HashMap<u64, usize> = HashMap::new();
    for (index, event) in events.iter().enumerate() {
        let Process::Client(process) = event.process else { continue };
        let misplaced = |message: String| Misplaced { index, message };
        match event.kind {
            Kind::Invoke => {
                if under_way.insert(process, index).is_some() {
                    return Err(misplaced(format!("process {process} invokes while a call of it is under way")));
                }
            }
            Kind::Ok | Kind::Fail | Kind::Info => match under_way.remove(&process) {
                Some(invoked) => completions[invoked] = Some(index),
                None => return Err(misplaced(format!("process {process} is answered, but had invoked nothing"))),
            },
        }
    }
    let mut calls = Calls::default();
    for (index, event) in events.iter().enumerate() {
        let Process::Client(process) = event.process else { continue };
        if event.kind != Kind::Invoke {
            continue;
        }
        let completion = completions[index].map(|at| (at, &events[at]));
        let (answered_at, answer) = match completion.map(|(at, event)| (at, event.kind, &event.what)) {
            Some((_, Kind::Fail, _)) => continue,
            Some((at, Kind::Ok, what)) => (Some(at as u64), Some(what)),
            Some((_, Kind::Info | Kind::Invoke, _)) | None => (None, None),
        };
        let misplaced =
            |message: &str| Misplaced { index: completion.map_or(index, |(at, _)| at), message: message.to_owned() };
        if is_of_lease(&event.what) || says_nothing(&event.what, answer) {
            continue;
        }
        let result =
            answer.map(|answer| ret(&event.what, answer).ok_or_else(|| misplaced("the answer is not one to the call")));
        match (op(answer.unwrap_or(&event.what)), result.transpose()?) {
            (Some(Op::Name(name, op)), result) => {
                let result = result.map(|ret| match ret {
                    Ret::Name(ret) => Ok(ret),
                    Ret::Group(_) => Err(misplaced("a group's answer to a name's call")),
                });
                let call =
                    Call { process, op, invoke: index as u64, complete: answered_at, result: result.transpose()? };
                calls.names.push(NameCall { name, call });
                calls.name_events.push(index);
            }
            (Some(Op::Group(group, op)), result) => {
                let result = result.map(|ret| match ret {
                    Ret::Group(ret) => Ok(ret),
                    Ret::Name(_) => Err(misplaced("a name's answer to a group's call")),
                });
                let call =
                    Call { process, op, invoke: index as u64, complete: answered_at, result: result.transpose()? };
                calls.groups.push(GroupCall { group, call });
                calls.group_events.push(index);
            }
            (None, _) => return Err(misplaced("a client does not call that")),
        }
    }
    lease_ends::add(events, &mut calls);
    Ok(calls)
}

fn is_of_lease(what: &What) -> bool {
    matches!(what, What::CreateLease { .. } | What::KeepAlive { .. } | What::Revoke { .. })
}

/// It changed nothing and tells nothing of the name or group: the lease had ended, or a renewal got no answer.
fn says_nothing(asked: &What, answer: Option<&What>) -> bool {
    match answer {
        Some(What::Register { result, .. } | What::Renew { result, .. }) => {
            matches!(result, Some(Registered::NoLease))
        }
        Some(What::Join { result, .. }) => result.as_ref().is_some_and(|joined| joined.no_lease),
        Some(_) => false,
        None => matches!(asked, What::Renew { .. }),
    }
}

enum Op {
    Name(String, NameOp),
    Group(String, GroupOp),
}

enum Ret {
    Name(NameRet),
    Group(GroupRet),
}

fn token(text: &Option<String>) -> Option<Token> {
    text.as_deref().and_then(Token::parse)
}

fn op(what: &What) -> Option<Op> {
    Some(match what {
        What::Register { name, owner, .. } => Op::Name(name.clone(), NameOp::Register { owner: Arc::from(&**owner) }),
        What::Unregister { name, token: of, .. } => Op::Name(name.clone(), NameOp::Unregister { token: token(of) }),
        // Held: it shows the caller's own grant. Not: it shows that this grant does not stand.
        What::Renew { name, token: of, result, .. } => match result {
            Some(Registered::Stale) => Op::Name(name.clone(), NameOp::Unregister { token: Token::parse(of) }),
            _ => Op::Name(name.clone(), NameOp::Whereis),
        },
        What::Whereis { name, .. } => Op::Name(name.clone(), NameOp::Whereis),
        What::Join { group, member, .. } => Op::Group(group.clone(), GroupOp::Join { member: Arc::from(&**member) }),
        What::Leave { group, member, token: of, .. } => {
            Op::Group(group.clone(), GroupOp::Leave { member: Arc::from(&**member), token: token(of) })
        }
        What::Members { group, .. } => Op::Group(group.clone(), GroupOp::Members),
        What::CreateLease { .. }
        | What::KeepAlive { .. }
        | What::Revoke { .. }
        | What::GuardedWrite { .. }
        | What::Watched(_)
        | What::Fault(_)
        | What::Probe { .. }
        | What::View(_)
        | What::Conflicts { .. } => return None,
    })
}

/// What the answer says; none if it is not one to that call.
fn ret(asked: &What, answer: &What) -> Option<Ret> {
    Some(match (asked, answer) {
        (What::Register { name, .. }, What::Register { name: same, result: Some(result), .. }) if name == same => {
            Ret::Name(match result {
                Registered::Granted { token } => NameRet::Granted { token: Token::parse(token) },
                Registered::Held { token } => NameRet::Held { token: Token::parse(token) },
                Registered::Taken { owner, token } => {
                    NameRet::Taken { owner: Arc::from(&**owner), token: Token::parse(token) }
                }
                Registered::Stale | Registered::NoLease => return None,
            })
        }
        (What::Renew { name, .. }, What::Renew { name: same, owner, result: Some(result), .. }) if name == same => {
            Ret::Name(match result {
                Registered::Granted { token } | Registered::Held { token } => {
                    NameRet::Found { owner: Arc::from(&**owner), token: Token::parse(token) }
                }
                Registered::Taken { owner, token } => {
                    NameRet::Found { owner: Arc::from(&**owner), token: Token::parse(token) }
                }
                Registered::Stale => NameRet::EndedBefore,
                Registered::NoLease => return None,
            })
        }
        (What::Unregister { name, .. }, What::Unregister { name: same, result: Some(result), .. }) if name == same => {
            Ret::Name(match result {
                Unregistered::Now => NameRet::EndedNow,
                Unregistered::Before => NameRet::EndedBefore,
                Unregistered::Absent => NameRet::Nobody,
                Unregistered::Never => NameRet::NeverIssued,
            })
        }
        (What::Whereis { name, .. }, What::Whereis { name: same, result: Some(Found { owner, token: shown }) })
            if name == same =>
        {
            Ret::Name(match owner {
                Some(owner) => NameRet::Found { owner: Arc::from(&**owner), token: token(shown) },
                None => NameRet::Nobody,
            })
        }
        (
            What::Join { group, .. },
            What::Join { group: same, result: Some(Joined { token, new, no_lease: false, .. }), .. },
        ) if group == same => {
            let token = Token::parse(token);
            Ret::Group(if *new { GroupRet::Joined { token } } else { GroupRet::Held { token } })
        }
        (What::Leave { group, .. }, What::Leave { group: same, result: Some(result), .. }) if group == same => {
            Ret::Group(match result {
                Unregistered::Now => GroupRet::EndedNow,
                Unregistered::Before => GroupRet::EndedBefore,
                Unregistered::Absent => GroupRet::Absent,
                Unregistered::Never => GroupRet::NeverIssued,
            })
        }
        (
            What::Members { group, .. },
            What::Members { group: same, result: Some(Membership { members, revision, .. }) },
        ) if group == same => {
            let members = members.iter().map(|member| Arc::from(&**member)).collect();
            Ret::Group(GroupRet::Members { members, revision: *revision })
        }
        _ => return None,
    })
}
