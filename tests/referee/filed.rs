//! Writes toys' histories in the formats that the checker reads.

use std::fmt::Write;

use quorate::referee::checker::Call;
use quorate::referee::checker::groups::{GroupOp, GroupRet};
use quorate::referee::checker::kv::{KvOp, KvRet};
use quorate::referee::checker::multi::{Part, Txn};
use quorate::referee::checker::mutex::MutexOp;
use quorate::referee::checker::names::{NameOp, NameRet};
use quorate::referee::checker::register::{RegisterOp, RegisterRet};
use quorate::referee::checker::token::Token;
use quorate::referee::history::{
    Event, Found, Header, Joined, Kind, Membership, Process, Registered, Unregistered, What,
};

/// The moments of a history in order: a call, and whether it is its return.
fn moments<O, R>(calls: &[Call<O, R>]) -> Vec<(&Call<O, R>, bool)> {
    let mut moments: Vec<(u64, &Call<O, R>, bool)> = Vec::new();
    for call in calls {
        moments.push((call.invoke, call, false));
        moments.extend(call.complete.map(|complete| (complete, call, true)));
    }
    moments.sort_by_key(|(time, _, _)| *time);
    moments.into_iter().map(|(_, call, returns)| (call, returns)).collect()
}

/// A history in EDN, one map a line; `describe` gives `:f`, the rest of the map when it is invoked, and when it returned.
fn edn<O, R>(calls: &[Call<O, R>], describe: impl Fn(&Call<O, R>) -> (&'static str, String, String)) -> String {
    let mut text = String::new();
    for (call, returns) in moments(calls) {
        let (f, asked, answered) = describe(call);
        let (kind, rest) = if returns { ("ok", answered) } else { ("invoke", asked) };
        writeln!(text, "{{:process {}, :type :{kind}, :f :{f}, {rest}}}", call.process).unwrap();
    }
    text
}

pub fn register_edn(calls: &[Call<RegisterOp, RegisterRet>]) -> String {
    // In EDN a compare-and-set that found another value has failed, and tells nothing.
    let told: Vec<_> = calls.iter().filter(|call| call.result != Some(RegisterRet::Mismatch)).cloned().collect();
    edn(&told, |call| match (&call.op, &call.result) {
        (RegisterOp::Read, Some(RegisterRet::Read(value))) => {
            ("read", ":value nil".into(), format!(":value {value:?}"))
        }
        (RegisterOp::Read, _) => ("read", ":value nil".into(), String::new()),
        (RegisterOp::Write(value), _) => ("write", format!(":value {value:?}"), format!(":value {value:?}")),
        (RegisterOp::Cas(old, new), _) => {
            ("cas", format!(":value [{old:?} {new:?}]"), format!(":value [{old:?} {new:?}]"))
        }
    })
}

pub fn register_log(calls: &[Call<RegisterOp, RegisterRet>]) -> String {
    let mut text = String::new();
    for (call, returns) in moments(calls) {
        let (f, value) = match &call.op {
            RegisterOp::Read => (":read", "nil".to_owned()),
            RegisterOp::Write(value) => (":write", format!("{value:?}")),
            RegisterOp::Cas(old, new) => (":cas", format!("[{old:?} {new:?}]")),
        };
        let (kind, value) = match (&call.result, returns) {
            (Some(RegisterRet::Mismatch), true) => (":fail", value),
            (Some(RegisterRet::Read(read)), true) => (":ok", format!("{read:?}")),
            (_, true) => (":ok", value),
            (_, false) => (":invoke", value),
        };
        writeln!(text, "INFO  jepsen.util - {}\t{kind}\t{f}\t{value}", call.process).unwrap();
        if call.complete.is_none() {
            writeln!(text, "INFO  jepsen.util - {}\t:info\t{f}\t:timed-out", call.process).unwrap();
        }
    }
    text
}

pub fn mutex_edn(calls: &[Call<MutexOp, ()>]) -> String {
    edn(calls, |call| {
        let f = if call.op == MutexOp::Acquire { "acquire" } else { "release" };
        (f, ":value nil".into(), ":value nil".into())
    })
}

pub fn kv_edn(calls: &[Call<KvOp, KvRet>]) -> String {
    edn(calls, |call| match (&call.op, &call.result) {
        (KvOp::Get, Some(KvRet::Got(text))) => {
            ("get", ":key \"k\", :value nil".into(), format!(":key \"k\", :value {text:?}"))
        }
        (KvOp::Get, _) => ("get", ":key \"k\", :value nil".into(), String::new()),
        (KvOp::Put(text), _) => ("put", format!(":key \"k\", :value {text:?}"), format!(":key \"k\", :value {text:?}")),
        (KvOp::Append(text), _) => {
            ("append", format!(":key \"k\", :value {text:?}"), format!(":key \"k\", :value {text:?}"))
        }
    })
}

pub fn txn_edn(calls: &[Call<Txn, ()>]) -> String {
    let value = |txn: &Txn, answered: bool| {
        let parts: Vec<String> = txn
            .0
            .iter()
            .map(|part| match part {
                Part::Read(key, Some(value)) if answered => format!("[:read {} {value:?}]", bare(&format!("{key:?}"))),
                Part::Read(key, _) => format!("[:read {} nil]", bare(&format!("{key:?}"))),
                Part::Write(key, value) => format!("[:write {} {value:?}]", bare(&format!("{key:?}"))),
            })
            .collect();
        format!(":value [{}]", parts.join(" "))
    };
    edn(calls, |call| ("txn", value(&call.op, false), value(&call.op, true)))
}

/// A keyword, which the checker keeps as a text.
fn bare(text: &str) -> String {
    text.trim_matches('"').to_owned()
}

fn ndjson<O, R>(calls: &[Call<O, R>], what: impl Fn(&Call<O, R>, bool) -> What) -> String {
    let header = Header {
        format: 1,
        version: "0".to_owned(),
        system: "toy".to_owned(),
        seed: 0,
        nodes: vec![1],
        schedule: String::new(),
        concurrency: 4,
    };
    let mut text = serde_json::to_string(&header).unwrap() + "\n";
    for (index, (call, returns)) in moments(calls).into_iter().enumerate() {
        let event = Event {
            index: index as u64,
            time: index as u64 * 1_000,
            kind: if returns { Kind::Ok } else { Kind::Invoke },
            process: Process::Client(call.process),
            what: what(call, returns),
            node: None,
            side: None,
            error: None,
            end_of: None,
        };
        text += &serde_json::to_string(&event).unwrap();
        text.push('\n');
    }
    text
}

fn shown(token: &Option<Token>) -> String {
    token.as_ref().map_or(String::new(), |token| format!("{token:?}"))
}

fn joined(token: &Option<Token>, new: bool) -> Joined {
    Joined { token: shown(token), new, no_lease: false, revision: None }
}

pub fn names_ndjson(calls: &[Call<NameOp, NameRet>]) -> String {
    ndjson(calls, |call, returns| {
        let name = "n".to_owned();
        let ret = call.result.as_ref().filter(|_| returns);
        match &call.op {
            NameOp::Register { owner } | NameOp::Takeover { owner } => What::Register {
                name,
                owner: owner.to_string(),
                lease: None,
                result: ret.map(|ret| match ret {
                    NameRet::Granted { token } => Registered::Granted { token: shown(token) },
                    NameRet::Held { token } => Registered::Held { token: shown(token) },
                    NameRet::Taken { owner, token } => {
                        Registered::Taken { owner: owner.to_string(), token: shown(token) }
                    }
                    other => panic!("{other:?} to a register"),
                }),
            },
            NameOp::Unregister { token } => What::Unregister {
                name,
                token: token.as_ref().map(|token| format!("{token:?}")),
                result: ret.map(|ret| match ret {
                    NameRet::EndedNow => Unregistered::Now,
                    NameRet::EndedBefore => Unregistered::Before,
                    NameRet::NeverIssued => Unregistered::Never,
                    NameRet::Nobody => Unregistered::Absent,
                    other => panic!("{other:?} to an unregister"),
                }),
            },
            NameOp::LeaseEnds { .. } => panic!("no client calls that"),
            NameOp::Whereis => What::Whereis {
                name,
                result: ret.map(|ret| match ret {
                    NameRet::Found { owner, token } => {
                        Found { owner: Some(owner.to_string()), token: Some(shown(token)) }
                    }
                    _ => Found { owner: None, token: None },
                }),
            },
        }
    })
}

pub fn groups_ndjson(calls: &[Call<GroupOp, GroupRet>]) -> String {
    ndjson(calls, |call, returns| {
        let group = "g".to_owned();
        let ret = call.result.as_ref().filter(|_| returns);
        match &call.op {
            GroupOp::Join { member } => What::Join {
                group,
                member: member.to_string(),
                lease: None,
                result: ret.map(|ret| match ret {
                    GroupRet::Joined { token } => joined(token, true),
                    GroupRet::Held { token } => joined(token, false),
                    other => panic!("{other:?} to a join"),
                }),
            },
            GroupOp::Leave { member, token } => What::Leave {
                group,
                member: member.to_string(),
                token: token.as_ref().map(|token| format!("{token:?}")),
                result: ret.map(|ret| match ret {
                    GroupRet::EndedNow => Unregistered::Now,
                    GroupRet::EndedBefore => Unregistered::Before,
                    GroupRet::NeverIssued => Unregistered::Never,
                    GroupRet::Absent => Unregistered::Absent,
                    other => panic!("{other:?} to a leave"),
                }),
            },
            GroupOp::LeaseEnds { .. } => panic!("no client calls that"),
            GroupOp::Members => What::Members {
                group,
                result: ret.map(|ret| match ret {
                    GroupRet::Members { members, revision } => Membership {
                        members: members.iter().map(|member| member.to_string()).collect(),
                        twice: Default::default(),
                        revision: *revision,
                    },
                    other => panic!("{other:?} to members"),
                }),
            },
        }
    })
}
