//! Where a watch goes on: a context, which is good on any node, or a place in one process's own history.
//!
//! A context says nothing of what its node hides, which is nobody else's matter: a reader that has been told of that, or may have to be,
//! goes on at that process alone, and elsewhere reads the state anew. So does one whose context is too long.

use std::sync::Arc;

use crate::model::ident::Revision;

use super::context::{Context, OpId, Run};

/// The longest text of a context that is given out as a position: longer ones would not pass as a header through every proxy.
const POSITION_LEN_MAX: usize = 8 * 1024;
const LOCAL: &str = "local:";

/// A position as it was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// After all operations that this covers.
    Context(Context),
    /// Before the event of this number in the history of this process.
    Local(Run, u64),
}

impl Cursor {
    /// None: no watch ever gave such a position out.
    pub fn parse(revision: &Revision) -> Option<Self> {
        let Revision::Ap(text) = revision else { return None };
        match text.strip_prefix(LOCAL) {
            Some(place) => {
                // An operation's id has the same parts: a run, and a number within it.
                let OpId { run, number } = OpId::parse(place)?;
                Some(Cursor::Local(run, number))
            }
            None => Context::parse(text).map(Cursor::Context),
        }
    }
}

/// The position of a reader that has been told all of this context, at a node that hides nothing.
pub fn position(context: &Context, run: Run, next: u64) -> Revision {
    match context.revision() {
        Revision::Ap(text) if text.len() > POSITION_LEN_MAX => local(run, next),
        short => short,
    }
}

/// The position of a reader that goes on at this number of this process's history.
pub fn local(run: Run, next: u64) -> Revision {
    Revision::Ap(Arc::from(format!("{LOCAL}{}", OpId { run, number: next })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(count: u64) -> Context {
        (0..count).map(|at| (Run { node: at % 5 + 1, bits: u64::MAX - at }, 1_000_000 + at)).collect()
    }

    #[test]
    fn a_position_is_good_everywhere_unless_it_is_too_long() {
        let run = Run { node: 3, bits: 0xabc };
        let context = runs(100);
        assert_eq!(Cursor::parse(&position(&context, run, 7)), Some(Cursor::Context(context)));
        let long = position(&runs(1_000), run, 7);
        assert!(long.to_string().len() < 100, "{long}");
        assert_eq!(Cursor::parse(&long), Some(Cursor::Local(run, 7)));
        for text in ["", "local:", "local:1.2", "!", "1.2.3.4"] {
            assert_eq!(Cursor::parse(&Revision::Ap(text.into())), None, "{text}");
        }
        assert_eq!(Cursor::parse(&Revision::Cp(7)), None);
    }
}
