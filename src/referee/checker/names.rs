//! Names: at most one owner each, and a token for every grant.
//!
//! Each name is an object of its own. The end of a lease is a call of nobody's, [`NameOp::LeaseEnds`], invoked when the lease may end
//! at the earliest, and open unless an answer told that it has ended.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use super::spec::Spec;
use super::token::{Token, Tokens};
use super::{Budget, Call, Verdict, check_keys};

/// A call about one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameCall {
    pub name: String,
    pub call: Call<NameOp, NameRet>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum NameOp {
    /// Create only.
    Register {
        owner: Arc<str>,
    },
    /// Whoever holds it.
    Takeover {
        owner: Arc<str>,
    },
    /// With a token: ends that very grant. Without: whatever stands there.
    Unregister {
        token: Option<Token>,
    },
    Whereis,
    /// The lease ends that every grant to that owner is bound to. Open, it happens if there is such a grant; with
    /// [`NameRet::LeaseOver`] it has happened, and whatever the owner held is gone.
    LeaseEnds {
        owner: Arc<str>,
    },
}

/// What the calls return. A token that is none was not told.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum NameRet {
    Granted {
        token: Option<Token>,
    },
    /// The caller held it already.
    Held {
        token: Option<Token>,
    },
    /// Somebody holds it, and nothing was done.
    Taken {
        owner: Arc<str>,
        token: Option<Token>,
    },
    EndedNow,
    /// That grant had ended before.
    EndedBefore,
    /// That token was never issued.
    NeverIssued,
    /// Nobody holds the name.
    Nobody,
    Found {
        owner: Arc<str>,
        token: Option<Token>,
    },
    LeaseOver,
}

/// Whether the calls about all names are linearizable. No calls: `Unknown`.
pub fn check(calls: &[NameCall], budget: &Budget) -> Verdict {
    check_keys(calls, |call| (&call.name, &call.call), |_, calls| OneName::of(calls), budget)
}

/// The specification of one name.
#[derive(Clone, Debug)]
pub struct OneName {
    tokens: Tokens,
    /// Whom an answer names.
    seen: HashSet<Arc<str>>,
}

impl OneName {
    /// For a history of these calls: what tokens mean depends on which grants were acknowledged.
    pub fn of(calls: &[&Call<NameOp, NameRet>]) -> Self {
        let (mut tokens, mut seen) = (Tokens::default(), HashSet::new());
        for call in calls {
            match (&call.op, &call.result) {
                (_, Some(NameRet::Taken { owner, .. } | NameRet::Found { owner, .. }))
                | (NameOp::Register { owner } | NameOp::Takeover { owner }, Some(NameRet::Held { .. })) => {
                    seen.insert(owner.clone());
                }
                (_, _) => {}
            }
            let (NameOp::Register { owner } | NameOp::Takeover { owner }) = &call.op else { continue };
            match &call.result {
                Some(NameRet::Granted { token }) => tokens.note(owner, token.as_ref()),
                None => tokens.note(owner, None),
                Some(_) => {}
            }
        }
        Self { tokens, seen }
    }
}

/// Who holds the name, and what is known of its tokens.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct NameState {
    holder: Option<Holder>,
    /// The greatest number known to have been issued.
    floor: u64,
    /// Whether a grant ended whose token nobody saw.
    lost: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Holder {
    owner: Arc<str>,
    /// None: a hole.
    token: Option<Token>,
}

impl fmt::Debug for NameState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.holder {
            None => f.write_str("nobody"),
            Some(Holder { owner, token: Some(token) }) => write!(f, "{owner} (token {token:?})"),
            Some(Holder { owner, token: None }) => write!(f, "{owner} (some token)"),
        }
    }
}

impl NameState {
    fn ended(&self) -> Self {
        let hole = matches!(self.holder, Some(Holder { token: None, .. }));
        Self { holder: None, floor: self.floor, lost: self.lost || hole }
    }
}

impl OneName {
    /// A new grant over whatever stands there.
    fn granted(&self, state: &NameState, owner: &Arc<str>, token: Option<&Token>) -> Option<NameState> {
        let floor = token.map_or(Some(state.floor), |token| self.tokens.raise(state.floor, token))?;
        let holder = Some(Holder { owner: owner.clone(), token: token.cloned() });
        Some(NameState { holder, floor, ..state.ended() })
    }

    /// The state with `token` shown for its holder.
    fn shown(&self, state: &NameState, token: Option<&Token>) -> Option<NameState> {
        let holder = state.holder.as_ref()?;
        let (token, floor) = self.tokens.show(holder.token.as_ref(), token, state.floor)?;
        Some(NameState { holder: Some(Holder { owner: holder.owner.clone(), token }), floor, lost: state.lost })
    }

    fn shown_with_owner(&self, state: &NameState, owner: &Arc<str>, token: Option<&Token>) -> Option<NameState> {
        state.holder.as_ref().filter(|holder| holder.owner == *owner)?;
        self.shown(state, token)
    }

    fn is_held_by(state: &NameState, token: &Token) -> bool {
        state.holder.as_ref().is_some_and(|holder| holder.token.as_ref() == Some(token))
    }

    /// Whether `token` may have been issued before this state.
    fn may_be_issued(&self, state: &NameState, token: &Token) -> bool {
        let in_order = match token {
            Token::Number(number) => *number <= state.floor,
            // Words have no order: when they were issued is not tracked.
            Token::Word(_) => true,
        };
        if self.tokens.is_granted(token) {
            in_order
        } else {
            // Of a grant that was not acknowledged: shown before it ended, or never.
            self.tokens.has_holes() && (in_order || state.lost)
        }
    }

    fn register(&self, state: &NameState, owner: &Arc<str>, takeover: bool, ret: &NameRet) -> Option<NameState> {
        match ret {
            NameRet::Granted { token } if takeover || state.holder.is_none() => {
                self.granted(state, owner, token.as_ref())
            }
            NameRet::Held { token } => self.shown_with_owner(state, owner, token.as_ref()),
            NameRet::Taken { owner: other, token } if !takeover => self.shown_with_owner(state, other, token.as_ref()),
            _ => None,
        }
    }

    fn unregister(&self, state: &NameState, token: Option<&Token>, ret: &NameRet) -> Option<NameState> {
        match (ret, token) {
            (NameRet::EndedNow, token) => Some(self.shown(state, token)?.ended()),
            (NameRet::Nobody, _) | (NameRet::EndedBefore, None) => state.holder.is_none().then(|| state.clone()),
            (NameRet::EndedBefore, Some(token)) => {
                (!Self::is_held_by(state, token) && self.may_be_issued(state, token)).then(|| state.clone())
            }
            (NameRet::NeverIssued, Some(token @ Token::Number(number))) => {
                let issued = self.tokens.is_granted(token) && *number <= state.floor;
                (!Self::is_held_by(state, token) && !issued).then(|| state.clone())
            }
            (NameRet::NeverIssued, Some(token)) => (!Self::is_held_by(state, token)).then(|| state.clone()),
            _ => None,
        }
    }
}

impl Spec for OneName {
    type State = NameState;
    type Op = NameOp;
    type Ret = NameRet;

    fn initial(&self) -> Vec<NameState> {
        vec![NameState { holder: None, floor: 0, lost: false }]
    }

    fn step(&self, state: &NameState, op: &NameOp, ret: Option<&NameRet>, next: &mut Vec<NameState>) {
        let found = match (op, ret) {
            (NameOp::Register { owner }, Some(ret)) => self.register(state, owner, false, ret),
            (NameOp::Takeover { owner }, Some(ret)) => self.register(state, owner, true, ret),
            (NameOp::Unregister { token }, Some(ret)) => self.unregister(state, token.as_ref(), ret),
            (NameOp::Whereis, Some(NameRet::Nobody)) => state.holder.is_none().then(|| state.clone()),
            (NameOp::Whereis, Some(NameRet::Found { owner, token })) => {
                self.shown_with_owner(state, owner, token.as_ref())
            }
            (NameOp::LeaseEnds { owner }, _) if state.holder.as_ref().is_some_and(|held| held.owner == *owner) => {
                Some(state.ended())
            }
            (NameOp::LeaseEnds { .. }, Some(NameRet::LeaseOver)) => Some(state.clone()),
            (NameOp::Whereis | NameOp::LeaseEnds { .. }, Some(_)) | (NameOp::LeaseEnds { .. }, None) => None,
            // Of unknown outcome: what it does where it does something, and nothing where it was refused.
            (NameOp::Register { owner }, None) if state.holder.is_none() => self.granted(state, owner, None),
            (NameOp::Takeover { owner }, None) if state.holder.as_ref().is_none_or(|holder| holder.owner != *owner) => {
                self.granted(state, owner, None)
            }
            (NameOp::Unregister { token }, None) => {
                next.push(state.clone());
                self.shown(state, token.as_ref()).map(|state| state.ended())
            }
            (NameOp::Register { .. } | NameOp::Takeover { .. } | NameOp::Whereis, None) => Some(state.clone()),
        };
        next.extend(found);
    }

    fn reads(&self, op: &NameOp, ret: Option<&NameRet>) -> bool {
        match (op, ret) {
            (NameOp::Register { owner } | NameOp::Takeover { owner }, Some(NameRet::Held { token })) => {
                self.tokens.is_settled(owner, token.as_ref())
            }
            (_, Some(NameRet::Taken { owner, token } | NameRet::Found { owner, token })) => {
                self.tokens.is_settled(owner, token.as_ref())
            }
            (_, Some(NameRet::EndedBefore | NameRet::NeverIssued | NameRet::Nobody)) | (NameOp::Whereis, None) => true,
            (_, Some(_))
            | (
                NameOp::Register { .. }
                | NameOp::Takeover { .. }
                | NameOp::Unregister { .. }
                | NameOp::LeaseEnds { .. },
                None,
            ) => false,
        }
    }

    fn merged(&self, op: &NameOp, ret: Option<&NameRet>) -> Option<u32> {
        match (op, ret) {
            (NameOp::Register { owner }, None) if !self.seen.contains(owner) => Some(0),
            (NameOp::Takeover { owner }, None) if !self.seen.contains(owner) => Some(1),
            (_, _) => None,
        }
    }

    fn plain(&self) -> Option<Self> {
        let mut plain = self.clone();
        plain.tokens.order.clear();
        Some(plain)
    }
}
