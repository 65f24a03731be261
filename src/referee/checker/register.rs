//! A register: read, write, compare and set. Starts as nil.

use std::fmt;
use std::sync::Arc;

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

/// The specification, with and without compare-and-set.
#[derive(Clone, Copy, Debug, Default)]
pub struct Register;

impl Spec for Register {
    type State = Value;
    type Op = RegisterOp;
    type Ret = RegisterRet;

    fn initial(&self) -> Vec<Value> {
        vec![Value::Nil]
    }

    fn step(&self, state: &Value, op: &RegisterOp, ret: Option<&RegisterRet>, next: &mut Vec<Value>) {
        let found = match (op, ret) {
            (RegisterOp::Read, Some(RegisterRet::Read(read))) => (read == state).then(|| state.clone()),
            (RegisterOp::Read, None) => Some(state.clone()),
            (RegisterOp::Write(value), Some(RegisterRet::Done) | None) => Some(value.clone()),
            (RegisterOp::Cas(old, new), Some(RegisterRet::Done)) => (old == state).then(|| new.clone()),
            (RegisterOp::Cas(old, _), Some(RegisterRet::Mismatch)) => (old != state).then(|| state.clone()),
            (RegisterOp::Cas(old, new), None) => Some(if old == state { new.clone() } else { state.clone() }),
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
}
