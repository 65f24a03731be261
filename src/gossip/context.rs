//! Runs, numbered operations, and contexts: what a node has applied, as one small vector.
//!
//! After Bieniusa et al. 2012, *An optimized conflict-free replicated set*, and Almeida, Shoker, Baquero 2018,
//! *Delta state replicated data types*.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::ident::{ApToken, NodeId, Revision};

use super::text;

/// One process's life. Never reused, never ordered in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Run {
    pub node: NodeId,
    /// 64 random bits, drawn when the process began.
    pub bits: u64,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}", self.node, self.bits)
    }
}

/// Names an operation: the number counts within its run, from 1. A grant's id is that of its Add.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OpId {
    pub run: Run,
    pub number: u64,
}

impl OpId {
    /// The token of the grant with this id, which was made at this stamp.
    pub fn token(self, hlc: u64) -> ApToken {
        ApToken { hlc, node: self.run.node, run: self.run.bits, number: self.number }
    }

    /// The id of the grant that the token names.
    pub fn of(token: &ApToken) -> Self {
        Self { run: Run { node: token.node, bits: token.run }, number: token.number }
    }

    /// Parses what [`Display`](fmt::Display) wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| u64::from_str_radix(part, 16).ok());
        let mut next = || parts.next().flatten();
        let id = Self { run: Run { node: next()?, bits: next()? }, number: next()? };
        (parts.next().is_none() && id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:x}", self.run, self.number)
    }
}

/// What has been applied: of each run, all operations up to a number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context(BTreeMap<Run, u64>);

impl Context {
    /// The highest number applied of the run; 0 if none.
    pub fn get(&self, run: Run) -> u64 {
        self.0.get(&run).copied().unwrap_or(0)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn covers(&self, id: OpId) -> bool {
        id.number <= self.get(id.run)
    }

    pub fn covers_all(&self, other: &Context) -> bool {
        other.0.iter().all(|(run, number)| *number <= self.get(*run))
    }

    /// Takes the next operation of its run in. Its number has to follow the last one.
    pub fn advance(&mut self, id: OpId) {
        let last = self.0.entry(id.run).or_insert(0);
        assert_eq!(id.number, *last + 1, "operations of a run apply in order");
        *last = id.number;
    }

    /// Raises each run to the greater number of the two.
    pub fn merge(&mut self, other: &Context) {
        for (run, number) in &other.0 {
            let mine = self.0.entry(*run).or_insert(0);
            *mine = (*mine).max(*number);
        }
    }

    /// Raises one run to at least this number.
    pub fn raise(&mut self, run: Run, number: u64) {
        let mine = self.0.entry(run).or_insert(0);
        *mine = (*mine).max(number);
    }

    pub fn iter(&self) -> impl Iterator<Item = (Run, u64)> + '_ {
        self.0.iter().map(|(run, number)| (*run, *number))
    }

    /// Equal for equal contexts, the same on every node.
    pub fn hash(&self) -> u64 {
        let mut print = text::Fingerprint::new();
        for (run, number) in &self.0 {
            for part in [run.node, run.bits, *number] {
                print.add(&part.to_le_bytes());
            }
        }
        print.finish() as u64
    }

    /// The context as a revision: opaque to callers.
    pub fn revision(&self) -> Revision {
        let bytes = postcard::to_stdvec(self).expect("a context always encodes");
        Revision::Ap(text::base64(&bytes).into())
    }

    /// The context that a revision stands for. None: no context was ever written like this.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text::unbase64(text)?;
        let (context, rest) = postcard::take_from_bytes::<Context>(&bytes).ok()?;
        rest.is_empty().then_some(context)
    }
}

impl FromIterator<(Run, u64)> for Context {
    fn from_iter<I: IntoIterator<Item = (Run, u64)>>(pairs: I) -> Self {
        let mut context = Context::default();
        for (run, number) in pairs {
            context.raise(run, number);
        }
        context
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_survives_its_text() {
        let context: Context =
            [(Run { node: 1, bits: u64::MAX }, 7), (Run { node: 300, bits: 0 }, u64::MAX)].into_iter().collect();
        let Revision::Ap(text) = context.revision() else { panic!("an ap revision") };
        assert_eq!(Context::parse(&text), Some(context));
        assert_eq!(Context::parse("!!"), None);
        assert_eq!(Context::parse(&format!("{text}AAAA")), None);
    }

    #[test]
    fn an_operation_id_survives_its_text() {
        let id = OpId { run: Run { node: 3, bits: 0xabc }, number: 12 };
        assert_eq!(OpId::parse(&id.to_string()), Some(id));
        for text in ["", "1.2", "1.2.3.4", "01.2.3", "+1.2.3", "x.2.3"] {
            assert_eq!(OpId::parse(text), None, "{text}");
        }
    }
}
