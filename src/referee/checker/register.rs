//! A register: read, write, compare and set. Starts as nil.
//!
//! A value that no call names but the one that wrote it explains nothing: all such values are one.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use super::hash::Mixing;
use super::history::Call;
use super::spec::Spec;

/// What a register holds: whatever the history's format can write down.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    Nil,
    Int(i64),
    Text(Arc<str>),
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Nil => f.write_str("nil"),
            Value::Int(number) => write!(f, "{number}"),
            Value::Text(text) => write!(f, "{text:?}"),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum RegisterOp {
    Read,
    Write(Value),
    /// Sets the second if the register holds the first.
    Cas(Value, Value),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum RegisterRet {
    Read(Value),
    Done,
    /// A compare-and-set that found another value.
    Mismatch,
}

/// What a register holds.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum RegisterState {
    Value(Value),
    /// Some value that no call read or compared with.
    Unseen,
}

impl fmt::Debug for RegisterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegisterState::Value(value) => write!(f, "{value:?}"),
            RegisterState::Unseen => f.write_str("a value that was never read"),
        }
    }
}

/// The specification, with and without compare-and-set.
#[derive(Clone, Debug, Default)]
pub struct Register {
    /// The values that calls read or compared with.
    seen: HashSet<Value, Mixing>,
}

impl Register {
    /// For a history of these calls.
    pub fn of(calls: &[&Call<RegisterOp, RegisterRet>]) -> Self {
        let mut seen = HashSet::default();
        for call in calls {
            match (&call.op, &call.result) {
                (RegisterOp::Read, Some(RegisterRet::Read(value))) | (RegisterOp::Cas(value, _), _) => {
                    if !seen.contains(value) {
                        seen.insert(value.clone());
                    }
                }
                (RegisterOp::Read | RegisterOp::Write(_), _) => {}
            }
        }
        Self { seen }
    }

    fn state(&self, value: &Value) -> RegisterState {
        if self.seen.contains(value) { RegisterState::Value(value.clone()) } else { RegisterState::Unseen }
    }
}

impl Spec for Register {
    type State = RegisterState;
    type Op = RegisterOp;
    type Ret = RegisterRet;

    fn initial(&self) -> Vec<RegisterState> {
        vec![self.state(&Value::Nil)]
    }

    fn step(&self, state: &RegisterState, op: &RegisterOp, ret: Option<&RegisterRet>, next: &mut Vec<RegisterState>) {
        let holds = |value: &Value| matches!(state, RegisterState::Value(held) if held == value);
        let found = match (op, ret) {
            (RegisterOp::Read, Some(RegisterRet::Read(value))) => holds(value).then(|| state.clone()),
            (RegisterOp::Read, None) => Some(state.clone()),
            (RegisterOp::Write(value), Some(RegisterRet::Done) | None) => Some(self.state(value)),
            (RegisterOp::Cas(old, new), Some(RegisterRet::Done)) => holds(old).then(|| self.state(new)),
            (RegisterOp::Cas(old, _), Some(RegisterRet::Mismatch)) => (!holds(old)).then(|| state.clone()),
            (RegisterOp::Cas(old, new), None) => Some(if holds(old) { self.state(new) } else { state.clone() }),
            // A return that the operation does not have.
            (RegisterOp::Read, Some(RegisterRet::Done | RegisterRet::Mismatch))
            | (RegisterOp::Write(_), Some(RegisterRet::Read(_) | RegisterRet::Mismatch))
            | (RegisterOp::Cas(..), Some(RegisterRet::Read(_))) => None,
        };
        next.extend(found);
    }

    fn reads(&self, op: &RegisterOp, ret: Option<&RegisterRet>) -> bool {
        match op {
            RegisterOp::Read => true,
            RegisterOp::Write(_) => false,
            RegisterOp::Cas(old, new) => {
                ret == Some(&RegisterRet::Mismatch) || old == new && ret == Some(&RegisterRet::Done)
            }
        }
    }

    fn merged(&self, op: &RegisterOp, _: Option<&RegisterRet>) -> Option<u32> {
        match op {
            RegisterOp::Write(value) => (!self.seen.contains(value)).then_some(0),
            RegisterOp::Read | RegisterOp::Cas(..) => None,
        }
    }
}
