//! What an object may do: the sequential specification that a history is held against.

use std::fmt::Debug;
use std::hash::Hash;

/// A state machine that takes one operation at a time. It is not the registry's own table: an examiner who copies from the student
/// finds no mistakes.
pub trait Spec: Clone + Sync {
    /// Compared and hashed often: keep it small, or shared.
    type State: Clone + Eq + Hash + Debug + Send + Sync;
    type Op: Eq + Hash + Debug + Sync;
    type Ret: Eq + Hash + Debug + Sync;

    /// The states in which a history may begin, at least one.
    fn initial(&self) -> Vec<Self::State>;

    /// Appends to `next` every state that `op` may leave behind when it is taken in `state` and returns `ret`; none if it cannot
    /// return that there. With `ret` unknown: what any return would leave behind. Leaving an unknown call without effect is the
    /// engines' business, unless it returned.
    fn step(&self, state: &Self::State, op: &Self::Op, ret: Option<&Self::Ret>, next: &mut Vec<Self::State>);

    /// Whether the operation with this return leaves *every* state in which it is possible as it was. Such calls are taken as soon
    /// as they fit, without a second thought; `false` is always sound.
    fn reads(&self, op: &Self::Op, ret: Option<&Self::Ret>) -> bool;

    /// Operations with the same number and the same return do the same in every state, as far as any answer in the history can tell;
    /// none: only equal ones do. An open call whose effect nobody looked for is then one of many, not a possibility of its own.
    fn merged(&self, _op: &Self::Op, _ret: Option<&Self::Ret>) -> Option<u32> {
        None
    }

    /// The same, without conclusions that were drawn from the whole history to make the search short: for explaining a part of it.
    /// None: there are no such conclusions.
    fn plain(&self) -> Option<Self> {
        None
    }
}
