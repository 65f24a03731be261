//! Fencing tokens as a checker sees them: some it was told, some only exist.
//!
//! A call that never returned may have been granted a token that nobody told the checker: its state then holds a *hole*. The first answer
//! that shows the token of that grant fills it, if no acknowledged grant has that token and it is greater than those before it. So
//! an open call can explain any one token that its place in the order allows, and only that.

use std::collections::HashSet;
use std::fmt;
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
    pub granted: HashSet<Token>,
    /// Who may have been granted one that is not known.
    pub holes: HashSet<Arc<str>>,
}

impl Tokens {
    /// Whether an answer that shows this holder never changes what is known of it.
    pub fn is_settled(&self, holder: &Arc<str>, token: Option<&Token>) -> bool {
        token.is_none_or(|token| self.granted.contains(token)) || !self.holes.contains(holder)
    }

    /// Shows `shown` for a grant whose token is `held` (none: a hole), with `floor` the greatest token known to have been issued before.
    /// Returns what is then known of the grant, and the floor; none if it cannot be.
    pub fn show(&self, held: Option<&Token>, shown: Option<&Token>, floor: u64) -> Option<(Option<Token>, u64)> {
        match (held, shown) {
            (held, None) => Some((held.cloned(), floor)),
            (Some(held), Some(shown)) => (held == shown).then(|| (Some(held.clone()), floor)),
            (None, Some(shown)) if self.granted.contains(shown) => None,
            (None, Some(shown)) => raise(floor, shown).map(|floor| (Some(shown.clone()), floor)),
        }
    }
}

/// The floor after `token` was issued; none if it does not rise.
pub(super) fn raise(floor: u64, token: &Token) -> Option<u64> {
    match token {
        Token::Number(number) => (*number > floor).then_some(*number),
        Token::Word(_) => Some(floor),
    }
}
