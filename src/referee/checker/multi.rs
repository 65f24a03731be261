//! Several registers, read and written in transactions: a transaction's parts happen at once.
//!
//! Histories do not say how the registers began. Knossos' do with 0, others with nil; both are tried.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::register::Value;
use super::spec::Spec;

/// One part of a transaction.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Part {
    /// None: what was read is not known.
    Read(Value, Option<Value>),
    Write(Value, Value),
}

/// A transaction with what its reads returned: its parts, in order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Txn(pub Vec<Part>);

/// What the registers hold: those not written yet hold what all began with.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Registers {
    beginning: Value,
    written: Arc<BTreeMap<Value, Value>>,
}

impl fmt::Debug for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, the rest {:?}", self.written, self.beginning)
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct MultiRegister;

impl Spec for MultiRegister {
    type State = Registers;
    type Op = Txn;
    /// What was read stands in the transaction.
    type Ret = ();

    fn initial(&self) -> Vec<Registers> {
        [Value::Int(0), Value::Nil].map(|beginning| Registers { beginning, written: Arc::default() }).into()
    }

    fn step(&self, state: &Registers, op: &Txn, _: Option<&()>, next: &mut Vec<Registers>) {
        let mut after = state.clone();
        for part in &op.0 {
            match part {
                Part::Read(_, None) => {}
                Part::Read(key, Some(value)) if after.written.get(key).unwrap_or(&after.beginning) == value => {}
                Part::Read(_, Some(_)) => return,
                Part::Write(key, value) => {
                    Arc::make_mut(&mut after.written).insert(key.clone(), value.clone());
                }
            }
        }
        next.push(after);
    }

    fn reads(&self, op: &Txn, _: Option<&()>) -> bool {
        op.0.iter().all(|part| matches!(part, Part::Read(..)))
    }
}
