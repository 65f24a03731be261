//! Fencing tokens as a checker sees them: some it was told, some only exist.
//!
//! A call that never returned may have been granted a token that nobody told the checker: its state then holds a *hole*. The first answer
//! that shows the token of that grant fills it, if no acknowledged grant has that token and it is greater than those before it. So
//! an open call can explain any one token that its place in the order allows, and only that.
//!
//! Tokens that are numbers rise, so they tell the order of the grants: whoever takes a grant while one with a lesser token has not
//! been taken is on a way that leads nowhere.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::ops::Bound::Excluded;
use std::sync::Arc;

/// A token. Numbers are ordered, and those of one key rise from grant to grant; words (of systems without order) are only equal or
/// not.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Token {
    Number(u64),
    Word(Arc<str>),
}

impl Token {
    /// From its text; the empty text is no token.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        Some(text.parse().map_or_else(|_| Token::Word(Arc::from(text)), Token::Number))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Number(number) => write!(f, "{number}"),
            Token::Word(word) => f.write_str(word),
        }
    }
}

/// What a history says about the tokens of one key.
#[derive(Clone, Debug, Default)]
pub(super) struct Tokens {
    /// Those that an acknowledged grant is known to have made.
    granted: HashSet<Token>,
    /// Those of them that are numbers. Not used for explanations.
    pub order: BTreeSet<u64>,
    /// Who may have been granted one that is not known.
    holes: HashSet<Arc<str>>,
}

impl Tokens {
    /// Notes a grant to `holder`: acknowledged with this token, or perhaps made with some token.
    pub fn note(&mut self, holder: &Arc<str>, token: Option<&Token>) {
        match token {
            Some(token) => {
                self.granted.insert(token.clone());
                if let Token::Number(number) = token {
                    self.order.insert(*number);
                }
            }
            None => {
                self.holes.insert(holder.clone());
            }
        }
    }

    /// Whether an acknowledged grant made this token.
    pub fn is_granted(&self, token: &Token) -> bool {
        self.granted.contains(token)
    }

    /// Whether there may be grants whose tokens are not known.
    pub fn has_holes(&self) -> bool {
        !self.holes.is_empty()
    }

    /// Whether an answer that shows this holder never changes what is known of it.
    pub fn is_settled(&self, holder: &Arc<str>, token: Option<&Token>) -> bool {
        token.is_none_or(|token| self.granted.contains(token)) || !self.holes.contains(holder)
    }

    /// Shows `shown` for a grant whose token is `held` (none: a hole), with `floor` the greatest number known to have been issued.
    /// Returns what is then known of the grant, and the floor; none if it cannot be.
    pub fn show(&self, held: Option<&Token>, shown: Option<&Token>, floor: u64) -> Option<(Option<Token>, u64)> {
        match (held, shown) {
            (held, None) => Some((held.cloned(), floor)),
            (Some(held), Some(shown)) => (held == shown).then(|| (Some(held.clone()), floor)),
            (None, Some(shown)) if self.granted.contains(shown) => None,
            (None, Some(shown)) => self.raise(floor, shown).map(|floor| (Some(shown.clone()), floor)),
        }
    }

    /// The floor after `token` was issued; none if it does not rise, or leaves out one that must still be issued.
    pub fn raise(&self, floor: u64, token: &Token) -> Option<u64> {
        match token {
            Token::Number(number) => (*number > floor && none_between(&self.order, floor, *number)).then_some(*number),
            Token::Word(_) => Some(floor),
        }
    }
}

/// Whether the set has nothing greater than `low` and less than `high`.
pub(super) fn none_between(set: &BTreeSet<u64>, low: u64, high: u64) -> bool {
    low >= high || set.range((Excluded(low), Excluded(high))).next().is_none()
}
