//! A lock without owner, as Knossos has it: acquire only when free, release only when held. Starts free.

use super::spec::Spec;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MutexOp {
    Acquire,
    Release,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Lock {
    Free,
    Held,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Mutex;

impl Spec for Mutex {
    type State = Lock;
    type Op = MutexOp;
    /// An acknowledgement.
    type Ret = ();

    fn initial(&self) -> Vec<Lock> {
        vec![Lock::Free]
    }

    fn step(&self, state: &Lock, op: &MutexOp, _: Option<&()>, next: &mut Vec<Lock>) {
        match (state, op) {
            (Lock::Free, MutexOp::Acquire) => next.push(Lock::Held),
            (Lock::Held, MutexOp::Release) => next.push(Lock::Free),
            (Lock::Held, MutexOp::Acquire) | (Lock::Free, MutexOp::Release) => {}
        }
    }

    fn reads(&self, _: &MutexOp, _: Option<&()>) -> bool {
        false
    }
}
