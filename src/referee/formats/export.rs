//! A name's history for referees that know nothing of names: as a compare-and-set register, in the two forms that others read.
//!
//! Every grant is a number of its own, and nobody is 0, written before all else. A registration sets 0 to the grant's number, an end
//! sets it back (the end of its lease too, at any time from when it is due), a look reads. What a register cannot say is lost: that tokens rise, that an end without a token found somebody, and in
//! EDN (where a call that failed says nothing) that a token had ended. So whatever is linearizable as a name is so as a register, and
//! a register that is not linearizable was no name either; the reverse does not hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use crate::referee::checker::Call;
use crate::referee::checker::names::{NameCall, NameOp, NameRet};
use crate::referee::checker::register::{RegisterOp, RegisterRet, Value};
use crate::referee::checker::token::Token;

type NameHistory<'a> = [&'a Call<NameOp, NameRet>];
type RegisterCall = Call<RegisterOp, RegisterRet>;

/// Nobody holds the name.
const NOBODY: i64 = 0;

/// Every name's calls as [`register`] has them.
pub fn registers(calls: &[NameCall]) -> BTreeMap<String, Vec<RegisterCall>> {
    let mut names = BTreeMap::<&String, Vec<&Call<NameOp, NameRet>>>::new();
    for NameCall { name, call } in calls {
        names.entry(name).or_default().push(call);
    }
    names.into_iter().map(|(name, calls)| (name.clone(), register(&calls))).collect()
}

/// The calls about one name as calls of a register that begins as nil; in the order of their invocations, after the write of 0.
pub fn register(calls: &NameHistory) -> Vec<RegisterCall> {
    let numbers = Numbers::of(calls);
    // All times move by two, so that the first write is over before anything else begins.
    let first = calls.iter().map(|call| call.process + 1).max().unwrap_or(0);
    let mut register = vec![Call {
        process: first,
        op: RegisterOp::Write(Value::Int(NOBODY)),
        invoke: 0,
        complete: Some(1),
        result: Some(RegisterRet::Done),
    }];
    let mut rest: Vec<RegisterCall> = calls
        .iter()
        .filter_map(|call| {
            let (op, result) = numbers.project(&call.op, call.result.as_ref())?;
            // That a lease has ended by some moment a register cannot say: it may have no grant to end.
            let ends = !matches!(call.op, NameOp::LeaseEnds { .. });
            let complete = call.complete.filter(|_| ends).map(|complete| complete + 2);
            Some(Call { process: call.process, op, invoke: call.invoke + 2, complete, result })
        })
        .collect();
    rest.sort_by_key(|call| call.invoke);
    register.append(&mut rest);
    register
}

/// A register's history in Jepsen's EDN, one event a line, as Knossos reads it.
pub fn edn(calls: &[RegisterCall]) -> String {
    written(calls, None)
}

/// The histories of several registers in Jepsen's EDN, each value a pair `[key value]` as Jepsen's `independent` has it.
pub fn edn_of_many(registers: &BTreeMap<String, Vec<RegisterCall>>) -> String {
    registers.iter().map(|(key, calls)| written(calls, Some(&edn_text(key)))).collect()
}

/// A register's history as the log lines of Jepsen in 2014, which porcupine reads.
pub fn log(calls: &[RegisterCall]) -> String {
    let mut text = String::new();
    for Moment { call, kind } in moments(calls) {
        let (f, operands) = (f(call), |read| value(call, read));
        let said = match (kind, &call.op) {
            ("invoke", _) => operands(false),
            ("info", _) => ":timed-out".to_owned(),
            (_, _) => operands(true),
        };
        let _ = writeln!(text, "INFO  jepsen.util - {}\t:{kind}\t:{f}\t{said}", call.process);
    }
    text
}

fn written(calls: &[RegisterCall], key: Option<&str>) -> String {
    let mut text = String::new();
    for Moment { call, kind } in moments(calls) {
        let said = value(call, kind == "ok");
        let said = key.map_or_else(|| said.clone(), |key| format!("[{key} {said}]"));
        let _ = writeln!(text, "{{:process {}, :type :{kind}, :f :{}, :value {said}}}", call.process, f(call));
    }
    text
}

/// What a line tells: a call's invocation, or how it ended.
struct Moment<'a> {
    call: &'a RegisterCall,
    kind: &'static str,
}

/// Invocations and answers in their order; calls that touch are written as concurrent. Open calls are told at the end.
fn moments(calls: &[RegisterCall]) -> Vec<Moment<'_>> {
    let mut moments = Vec::with_capacity(2 * calls.len());
    for call in calls {
        moments.push((call.invoke, 0, Moment { call, kind: "invoke" }));
        let (at, kind) = match (call.complete, &call.result) {
            (Some(at), Some(RegisterRet::Mismatch)) => (at, "fail"),
            (Some(at), _) => (at, "ok"),
            (None, _) => (u64::MAX, "info"),
        };
        moments.push((at, 1, Moment { call, kind }));
    }
    moments.sort_by_key(|(at, last, _)| (*at, *last));
    moments.into_iter().map(|(_, _, moment)| moment).collect()
}

fn f(call: &RegisterCall) -> &'static str {
    match call.op {
        RegisterOp::Read => "read",
        RegisterOp::Write(_) => "write",
        RegisterOp::Cas(..) => "cas",
    }
}

/// The call's value; of a read what it returned, if that is to be told.
fn value(call: &RegisterCall, answered: bool) -> String {
    match (&call.op, &call.result) {
        (RegisterOp::Read, Some(RegisterRet::Read(read))) if answered => format!("{read:?}"),
        (RegisterOp::Read, _) => "nil".to_owned(),
        (RegisterOp::Write(written), _) => format!("{written:?}"),
        (RegisterOp::Cas(old, new), _) => format!("[{old:?} {new:?}]"),
    }
}

/// A text in EDN, which has the escapes of Java.
fn edn_text(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

type Holder<'a> = (&'a Arc<str>, Option<&'a Token>);

/// Which grant has which number.
struct Numbers<'a> {
    numbers: BTreeMap<(&'a str, Option<String>), i64>,
    /// Owners one of whose grants has a token that is not certain: all their grants are one number.
    blurred: BTreeSet<&'a str>,
    /// Owners that an open call may have made a grant for, with the one token that answers showed for it.
    open: BTreeMap<&'a str, Option<&'a Token>>,
    /// Whose grant a token is.
    owners: BTreeMap<String, &'a Arc<str>>,
}

impl<'a> Numbers<'a> {
    fn of(calls: &NameHistory<'a>) -> Self {
        let (mut granted, mut shown) = (BTreeSet::new(), BTreeMap::<&str, BTreeMap<String, &Token>>::new());
        let mut numbers =
            Self { numbers: BTreeMap::new(), blurred: BTreeSet::new(), open: BTreeMap::new(), owners: BTreeMap::new() };
        for call in calls {
            for (owner, token) in holders(call) {
                match token {
                    Some(token) => {
                        numbers.owners.insert(text(token), owner);
                        shown.entry(owner).or_default().insert(text(token), token);
                    }
                    None => drop(numbers.blurred.insert(owner)),
                }
            }
            match (&call.op, &call.result) {
                (NameOp::Register { .. } | NameOp::Takeover { .. }, Some(NameRet::Granted { token: Some(token) })) => {
                    granted.insert(text(token));
                }
                (NameOp::Register { owner } | NameOp::Takeover { owner }, None) => {
                    // Which of several made the grant that was seen, nobody can tell.
                    if numbers.open.insert(owner, None).is_some() {
                        numbers.blurred.insert(owner);
                    }
                }
                (_, _) => {}
            }
        }
        for (owner, token) in &mut numbers.open {
            let known = shown.get(owner).into_iter().flatten().filter(|(text, _)| !granted.contains(*text));
            match known.map(|(_, token)| *token).collect::<Vec<_>>()[..] {
                [] => {}
                [one] => *token = Some(one),
                [..] => drop(numbers.blurred.insert(owner)),
            }
        }
        for call in calls {
            let open = match (&call.op, &call.result) {
                (NameOp::Register { owner } | NameOp::Takeover { owner }, None) => {
                    Some((owner, numbers.open[&**owner]))
                }
                (_, _) => None,
            };
            for holder in holders(call).into_iter().chain(open) {
                let next = numbers.numbers.len() as i64 + NOBODY + 1;
                let key = numbers.key(holder);
                numbers.numbers.entry(key).or_insert(next);
            }
        }
        numbers
    }

    fn key(&self, (owner, token): Holder<'a>) -> (&'a str, Option<String>) {
        (owner, token.filter(|_| !self.blurred.contains(&**owner)).map(text))
    }

    fn number(&self, holder: Holder<'a>) -> Value {
        Value::Int(self.numbers[&self.key(holder)])
    }

    /// Ends the grant that the owner has; none if it never had one.
    fn lease_end(&self, owner: &'a Arc<str>) -> Option<RegisterOp> {
        let of_owner = |((holder, _), number): (&(&str, _), &i64)| (*holder == &**owner).then_some(*number);
        match self.numbers.iter().filter_map(of_owner).collect::<Vec<_>>()[..] {
            [] => None,
            [number] => Some(RegisterOp::Cas(Value::Int(number), Value::Int(NOBODY))),
            // Whichever it was.
            [..] => Some(RegisterOp::Write(Value::Int(NOBODY))),
        }
    }

    /// What the call is to a register; none if it tells nothing there.
    fn project(&self, op: &'a NameOp, ret: Option<&'a NameRet>) -> Option<(RegisterOp, Option<RegisterRet>)> {
        let nobody = || Value::Int(NOBODY);
        let read = |value| (RegisterOp::Read, Some(RegisterRet::Read(value)));
        let done = |op| (op, Some(RegisterRet::Done));
        let ends = |token: &'a Option<Token>| {
            let owner = token.as_ref().and_then(|token| Some((*self.owners.get(&text(token))?, token)));
            match owner {
                Some((owner, token)) => RegisterOp::Cas(self.number((owner, Some(token))), nobody()),
                // Whoever it was.
                None => RegisterOp::Write(nobody()),
            }
        };
        Some(match (op, ret) {
            (NameOp::Register { owner }, Some(NameRet::Granted { token })) => {
                done(RegisterOp::Cas(nobody(), self.number((owner, token.as_ref()))))
            }
            (NameOp::Takeover { owner }, Some(NameRet::Granted { token })) => {
                done(RegisterOp::Write(self.number((owner, token.as_ref()))))
            }
            (NameOp::Register { owner }, None) => {
                (RegisterOp::Cas(nobody(), self.number((owner, self.open[&**owner]))), None)
            }
            (NameOp::Takeover { owner }, None) => (RegisterOp::Write(self.number((owner, self.open[&**owner]))), None),
            (NameOp::Register { owner } | NameOp::Takeover { owner }, Some(NameRet::Held { token })) => {
                read(self.number((owner, token.as_ref())))
            }
            (NameOp::Unregister { token }, Some(NameRet::EndedNow)) => done(ends(token)),
            (NameOp::Unregister { token: Some(token) }, Some(NameRet::EndedBefore | NameRet::NeverIssued)) => {
                // Of a number that stands for several grants another one may be the present one.
                let owner = self.owners.get(&text(token)).filter(|owner| !self.blurred.contains(owner.as_ref()))?;
                let number = self.number((owner, Some(token)));
                (RegisterOp::Cas(number, nobody()), Some(RegisterRet::Mismatch))
            }
            (NameOp::Unregister { token: None }, Some(NameRet::EndedBefore)) => read(nobody()),
            (NameOp::Unregister { token }, None) => (ends(token), None),
            (NameOp::LeaseEnds { owner }, _) => (self.lease_end(owner)?, None),
            (_, Some(NameRet::Nobody)) => read(nobody()),
            (_, Some(NameRet::Taken { owner, token } | NameRet::Found { owner, token })) => {
                read(self.number((owner, token.as_ref())))
            }
            (NameOp::Whereis, _)
            | (_, Some(NameRet::Granted { .. } | NameRet::Held { .. } | NameRet::EndedNow))
            | (_, Some(NameRet::EndedBefore | NameRet::NeverIssued | NameRet::LeaseOver)) => return None,
        })
    }
}

/// Whom a call's answer names.
fn holders(call: &Call<NameOp, NameRet>) -> Vec<Holder<'_>> {
    match (&call.op, &call.result) {
        (
            NameOp::Register { owner } | NameOp::Takeover { owner },
            Some(NameRet::Granted { token } | NameRet::Held { token }),
        ) => vec![(owner, token.as_ref())],
        (_, Some(NameRet::Taken { owner, token } | NameRet::Found { owner, token })) => vec![(owner, token.as_ref())],
        (_, _) => Vec::new(),
    }
}

fn text(token: &Token) -> String {
    format!("{token:?}")
}
