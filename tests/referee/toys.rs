//! Histories for judging the checker: a seeded generator runs toy objects, each step at one moment, and logs calls that overlap;
//! a planted flaw makes the object lie once. Toys are written apart from the checker's specifications.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use quorate::referee::checker::groups::{GroupOp, GroupRet};
use quorate::referee::checker::kv::{KvOp, KvRet, Text};
use quorate::referee::checker::multi::{Part, Txn};
use quorate::referee::checker::mutex::MutexOp;
use quorate::referee::checker::names::{NameOp, NameRet};
use quorate::referee::checker::register::{RegisterOp, RegisterRet, Value};
use quorate::referee::checker::token::Token;
use quorate::referee::checker::{Call, Spec};

/// A stream of numbers that depends on the seed alone, for ever (SplitMix64).
#[derive(Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x1234_5678_9abc_def0)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }

    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }
}

/// An object that takes one call at a time. None: refused, and a log would say that it failed.
pub trait Toy: Clone {
    type Op: Clone + Debug;
    type Ret: Clone + Debug + PartialEq;
    fn draw(&self, dice: &mut Dice) -> Self::Op;
    fn take(&mut self, op: &Self::Op) -> Option<Self::Ret>;
}

/// How a history is made.
#[derive(Clone, Copy)]
pub struct Shape {
    pub calls: usize,
    pub processes: usize,
    /// How many calls of a hundred never return.
    pub open_percent: usize,
    /// The call at which the object lies: which one, and how. None: it never does.
    pub flaw: Option<(usize, Flaw)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Acknowledged, but without effect.
    DroppedEffect,
    /// Answered from the state of some calls before, without effect.
    Stale,
    /// The answers of this call and the one taken before are exchanged, if they asked the same kind of thing.
    Swapped,
    /// The object forgets its last change before it takes the call: what it counts, it counts again.
    Repeated,
}

pub const FLAWS: [Flaw; 4] = [Flaw::DroppedEffect, Flaw::Stale, Flaw::Swapped, Flaw::Repeated];

enum Doing<T: Toy> {
    Idle,
    Asked { op: T::Op, invoke: u64 },
    Taken { op: T::Op, invoke: u64, ret: Option<T::Ret>, number: usize },
}

/// Runs a toy. The calls come back in the order in which they were invoked.
pub fn run<T: Toy>(mut toy: T, shape: Shape, dice: &mut Dice) -> Vec<Call<T::Op, T::Ret>> {
    let mut doing: Vec<Doing<T>> = (0..shape.processes).map(|_| Doing::Idle).collect();
    let mut ids: Vec<u64> = (0..shape.processes as u64).collect();
    let mut calls = Vec::new();
    let mut past: Vec<T> = Vec::new();
    let (mut time, mut asked, mut taken) = (0, 0, 0);
    while asked < shape.calls || doing.iter().any(|doing| !matches!(doing, Doing::Idle)) {
        let process = dice.below(shape.processes);
        time += 1;
        doing[process] = match std::mem::replace(&mut doing[process], Doing::Idle) {
            Doing::Idle if asked < shape.calls => {
                asked += 1;
                Doing::Asked { op: toy.draw(dice), invoke: time }
            }
            Doing::Idle => Doing::Idle,
            Doing::Asked { op, invoke } if dice.percent(shape.open_percent) => {
                // It may have been taken nevertheless.
                if dice.percent(50) {
                    toy.take(&op);
                }
                calls.push((usize::MAX, Call { process: ids[process], op, invoke, complete: None, result: None }));
                ids[process] += shape.processes as u64;
                Doing::Idle
            }
            Doing::Asked { op, invoke } => {
                taken += 1;
                past.push(toy.clone());
                if past.len() > 6 {
                    past.remove(0);
                }
                let ret = match shape.flaw {
                    Some((at, Flaw::DroppedEffect)) if at + 1 == taken => toy.clone().take(&op),
                    Some((at, Flaw::Stale)) if at + 1 == taken => past[0].clone().take(&op),
                    Some((at, Flaw::Repeated)) if at + 1 == taken => {
                        toy = past[past.len().saturating_sub(2)].clone();
                        toy.take(&op)
                    }
                    _ => toy.take(&op),
                };
                Doing::Taken { op, invoke, ret, number: taken }
            }
            Doing::Taken { op, invoke, ret, number } => {
                if let Some(ret) = ret {
                    let call = Call { process: ids[process], op, invoke, complete: Some(time), result: Some(ret) };
                    calls.push((number, call));
                }
                Doing::Idle
            }
        };
    }
    if let Some((at, Flaw::Swapped)) = shape.flaw {
        let find = |number: usize| calls.iter().position(|(taken, _)| *taken == number);
        // Only answers of one kind of operation: others could not be written down.
        let kind = |call: usize| std::mem::discriminant(&calls[call].1.op);
        if let (Some(one), Some(other)) = (find(at + 1), find(at))
            && kind(one) == kind(other)
        {
            let result = calls[one].1.result.clone();
            calls[one].1.result = std::mem::replace(&mut calls[other].1.result, result);
        }
    }
    calls.sort_by_key(|(_, call)| call.invoke);
    calls.into_iter().map(|(_, call)| call).collect()
}

/// Tries every order: true if one explains the calls.
pub fn brute_force<S: Spec>(spec: &S, calls: &[Call<S::Op, S::Ret>]) -> bool {
    spec.initial().iter().any(|state| explains(spec, state, calls))
}

/// As [`brute_force`], from one state.
pub fn explains<S: Spec>(spec: &S, state: &S::State, calls: &[Call<S::Op, S::Ret>]) -> bool {
    fn search<S: Spec>(spec: &S, state: &S::State, calls: &[Call<S::Op, S::Ret>], left: u32) -> bool {
        let waiting = |index: usize| left & (1 << index) != 0;
        if (0..calls.len()).all(|index| !waiting(index) || calls[index].complete.is_none()) {
            return true;
        }
        (0..calls.len()).filter(|&index| waiting(index)).any(|index| {
            let call = &calls[index];
            let first = (0..calls.len())
                .filter(|&other| waiting(other))
                .all(|other| calls[other].complete.is_none_or(|complete| complete >= call.invoke));
            let mut next = Vec::new();
            if first {
                spec.step(state, &call.op, call.result.as_ref(), &mut next);
            }
            next.iter().any(|state| search(spec, state, calls, left & !(1 << index)))
        })
    }
    assert!(calls.len() <= 20, "brute force is for small histories");
    search(spec, state, calls, (1 << calls.len()) - 1)
}

#[derive(Clone)]
pub struct ToyRegister {
    value: Value,
    /// How many values there are; 0: every write has its own.
    values: usize,
    cas: bool,
}

impl ToyRegister {
    pub fn new(values: usize, cas: bool) -> Self {
        Self { value: Value::Nil, values, cas }
    }
}

impl Toy for ToyRegister {
    type Op = RegisterOp;
    type Ret = RegisterRet;

    fn draw(&self, dice: &mut Dice) -> RegisterOp {
        let limit = if self.values == 0 { 1 << 40 } else { self.values };
        let mut value = || Value::Int(dice.below(limit) as i64);
        let (a, b) = (value(), value());
        match dice.below(if self.cas { 3 } else { 2 }) {
            0 => RegisterOp::Read,
            1 => RegisterOp::Write(a),
            _ => RegisterOp::Cas(a, b),
        }
    }

    fn take(&mut self, op: &RegisterOp) -> Option<RegisterRet> {
        match op {
            RegisterOp::Read => return Some(RegisterRet::Read(self.value.clone())),
            RegisterOp::Write(value) => self.value = value.clone(),
            RegisterOp::Cas(old, new) if *old == self.value => self.value = new.clone(),
            RegisterOp::Cas(..) => return Some(RegisterRet::Mismatch),
        }
        Some(RegisterRet::Done)
    }
}

#[derive(Clone, Default)]
pub struct ToyMutex {
    held: bool,
}

impl Toy for ToyMutex {
    type Op = MutexOp;
    type Ret = ();

    fn draw(&self, dice: &mut Dice) -> MutexOp {
        if dice.percent(50) { MutexOp::Acquire } else { MutexOp::Release }
    }

    fn take(&mut self, op: &MutexOp) -> Option<()> {
        let wants = *op == MutexOp::Acquire;
        if wants == self.held {
            return None;
        }
        self.held = wants;
        Some(())
    }
}

#[derive(Clone)]
pub struct ToyKv {
    text: String,
    /// How many different texts are put and appended.
    texts: usize,
}

impl ToyKv {
    pub fn new(texts: usize) -> Self {
        Self { text: String::new(), texts }
    }
}

impl Toy for ToyKv {
    type Op = KvOp;
    type Ret = KvRet;

    fn draw(&self, dice: &mut Dice) -> KvOp {
        let text = Arc::from(format!("{} ", dice.below(self.texts)));
        match dice.below(10) {
            0..4 => KvOp::Get,
            4..9 => KvOp::Append(text),
            _ => KvOp::Put(text),
        }
    }

    fn take(&mut self, op: &KvOp) -> Option<KvRet> {
        match op {
            KvOp::Get => return Some(KvRet::Got(Text::new(&self.text))),
            KvOp::Put(text) => self.text = text.to_string(),
            KvOp::Append(text) => self.text.push_str(text),
        }
        Some(KvRet::Done)
    }
}

#[derive(Clone, Default)]
pub struct ToyRegisters {
    values: BTreeMap<usize, usize>,
}

impl ToyRegisters {
    fn key(key: usize) -> Value {
        Value::Text(Arc::from([":x", ":y"][key]))
    }
}

/// For each part of a transaction the key, and what to write there, or none to read.
pub type ToyTxn = Vec<(usize, Option<usize>)>;

impl Toy for ToyRegisters {
    type Op = ToyTxn;
    type Ret = Txn;

    fn draw(&self, dice: &mut Dice) -> Self::Op {
        (0..1 + dice.below(2)).map(|_| (dice.below(2), dice.percent(50).then(|| dice.below(3)))).collect()
    }

    fn take(&mut self, op: &Self::Op) -> Option<Txn> {
        let parts = op.iter().map(|&(key, write)| match write {
            Some(value) => {
                self.values.insert(key, value);
                Part::Write(Self::key(key), Value::Int(value as i64))
            }
            None => {
                let value = self.values.get(&key).copied().unwrap_or(0);
                Part::Read(Self::key(key), Some(Value::Int(value as i64)))
            }
        });
        Some(Txn(parts.collect()))
    }
}

/// The calls as the checker takes them: what was read stands in the operation.
pub fn as_txns(calls: Vec<Call<ToyTxn, Txn>>) -> Vec<Call<Txn, ()>> {
    let asked = |op: &[(usize, Option<usize>)]| {
        let part = |&(key, write): &(usize, Option<usize>)| match write {
            Some(value) => Part::Write(ToyRegisters::key(key), Value::Int(value as i64)),
            None => Part::Read(ToyRegisters::key(key), None),
        };
        Txn(op.iter().map(part).collect())
    };
    let call = |call: Call<ToyTxn, Txn>| Call {
        process: call.process,
        op: call.result.clone().unwrap_or_else(|| asked(&call.op)),
        invoke: call.invoke,
        complete: call.complete,
        result: call.result.map(|_| ()),
    };
    calls.into_iter().map(call).collect()
}

/// One name, its tokens rising by uneven steps, as revisions do that others take as well.
#[derive(Clone, Default)]
pub struct ToyName {
    holder: Option<(Arc<str>, u64)>,
    last: u64,
    issued: Vec<u64>,
    /// How many owners there are; 0: every register has its own.
    owners: usize,
}

impl ToyName {
    pub fn new(owners: usize) -> Self {
        Self { owners, ..Self::default() }
    }

    fn grant(&mut self, owner: &Arc<str>) -> NameRet {
        self.last += 1 + self.last * 7 % 3;
        self.issued.push(self.last);
        self.holder = Some((owner.clone(), self.last));
        NameRet::Granted { token: Some(Token::Number(self.last)) }
    }
}

impl Toy for ToyName {
    type Op = NameOp;
    type Ret = NameRet;

    fn draw(&self, dice: &mut Dice) -> NameOp {
        let limit = if self.owners == 0 { 1 << 40 } else { self.owners };
        let owner = Arc::from(format!("o{}", dice.below(limit)));
        let known = |dice: &mut Dice| match (&self.holder, self.issued.len()) {
            (_, 0) => 1 + dice.below(3) as u64,
            (Some((_, token)), _) if dice.percent(70) => *token,
            (_, count) => self.issued[count - 1 - dice.below(count.min(3))],
        };
        match dice.below(20) {
            0..7 => NameOp::Register { owner },
            7..9 => NameOp::Takeover { owner },
            9..13 => NameOp::Unregister { token: Some(Token::Number(known(dice))) },
            13..14 => NameOp::Unregister { token: None },
            _ => NameOp::Whereis,
        }
    }

    fn take(&mut self, op: &NameOp) -> Option<NameRet> {
        let number = |token: u64| Some(Token::Number(token));
        Some(match (op, self.holder.clone()) {
            (NameOp::Register { owner } | NameOp::Takeover { owner }, Some((holder, token))) if *owner == holder => {
                NameRet::Held { token: number(token) }
            }
            (NameOp::Register { .. }, Some((owner, token))) => NameRet::Taken { owner, token: number(token) },
            (NameOp::Register { owner }, None) | (NameOp::Takeover { owner }, _) => self.grant(owner),
            (NameOp::Unregister { token: None }, None) | (NameOp::Whereis, None) => NameRet::Nobody,
            (NameOp::Unregister { token: None }, Some(_)) => {
                self.holder = None;
                NameRet::EndedNow
            }
            (NameOp::Unregister { token: Some(token) }, Some((_, held))) if *token == Token::Number(held) => {
                self.holder = None;
                NameRet::EndedNow
            }
            (NameOp::Unregister { token: Some(token) }, _) => {
                let issued = self.issued.iter().any(|number| *token == Token::Number(*number));
                if issued { NameRet::EndedBefore } else { NameRet::NeverIssued }
            }
            (NameOp::Whereis, Some((owner, token))) => NameRet::Found { owner, token: number(token) },
            (NameOp::LeaseEnds { owner }, holder) => {
                self.holder = holder.filter(|(held_by, _)| held_by != owner);
                NameRet::LeaseOver
            }
        })
    }
}

/// One group of a registry that others change as well.
#[derive(Clone, Default)]
pub struct ToyGroup {
    members: BTreeMap<Arc<str>, u64>,
    issued: BTreeSet<(Arc<str>, u64)>,
    revision: u64,
    versioned: bool,
}

impl ToyGroup {
    pub fn new(versioned: bool) -> Self {
        Self { versioned, ..Self::default() }
    }
}

impl Toy for ToyGroup {
    type Op = GroupOp;
    type Ret = GroupRet;

    fn draw(&self, dice: &mut Dice) -> GroupOp {
        let member: Arc<str> = Arc::from(format!("m{}", dice.below(3)));
        match dice.below(10) {
            0..4 => GroupOp::Join { member },
            4..6 => {
                let token = self.members.get(&member).map(|token| Token::Number(*token));
                GroupOp::Leave { member, token }
            }
            6..7 => GroupOp::Leave { member, token: None },
            _ => GroupOp::Members,
        }
    }

    fn take(&mut self, op: &GroupOp) -> Option<GroupRet> {
        Some(match op {
            GroupOp::Join { member } => match self.members.get(member) {
                Some(token) => GroupRet::Held { token: Some(Token::Number(*token)) },
                None => {
                    self.revision += 1 + self.revision % 2;
                    self.members.insert(member.clone(), self.revision);
                    self.issued.insert((member.clone(), self.revision));
                    GroupRet::Joined { token: Some(Token::Number(self.revision)) }
                }
            },
            GroupOp::Leave { member, token } => match (self.members.get(member), token) {
                (Some(held), token) if token.as_ref().is_none_or(|token| *token == Token::Number(*held)) => {
                    self.members.remove(member);
                    self.revision += 1;
                    GroupRet::EndedNow
                }
                (None, None) => GroupRet::Absent,
                (_, _) => GroupRet::EndedBefore,
            },
            GroupOp::LeaseEnds { member } => {
                if self.members.remove(member).is_some() {
                    self.revision += 1;
                }
                GroupRet::LeaseOver
            }
            GroupOp::Members => GroupRet::Members {
                members: self.members.keys().cloned().collect(),
                revision: self.versioned.then_some(self.revision),
            },
        })
    }
}
