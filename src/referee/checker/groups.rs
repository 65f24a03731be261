//! Groups: any number of members each, and a token for every membership.
//!
//! Each group is an object of its own. Where answers carry the registry's revision, the revision is part of the model's state (as
//! etcd's robustness tests do with versions): every change takes a greater one, and a list at revision `r` is what all changes up
//! to `r` made. The order of the changes is then known, and the search replays it; without revisions it searches.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::hash::wide;
use super::spec::Spec;
use super::token::{Token, Tokens};
use super::{Budget, Call, Verdict, check_keys};

/// A call about one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupCall {
    pub group: String,
    pub call: Call<GroupOp, GroupRet>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum GroupOp {
    Join {
        member: Arc<str>,
    },
    /// With a token: ends that very membership. Without: whatever stands there.
    Leave {
        member: Arc<str>,
        token: Option<Token>,
    },
    Members,
}

/// What the calls return. A token that is none was not told.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum GroupRet {
    Joined {
        token: Option<Token>,
    },
    /// It was a member already.
    Held {
        token: Option<Token>,
    },
    EndedNow,
    EndedBefore,
    NeverIssued,
    /// Leave: it is no member.
    Absent,
    /// All members; and, if told, the revision of the registry that they are the members at.
    Members {
        members: BTreeSet<Arc<str>>,
        revision: Option<u64>,
    },
}

/// Whether the calls about all groups are linearizable. No calls: `Unknown`.
pub fn check(calls: &[GroupCall], budget: &Budget) -> Verdict {
    check_keys(calls, |call| (&call.group, &call.call), |_, calls| OneGroup::of(calls), budget)
}

/// The specification of one group.
#[derive(Clone, Debug)]
pub struct OneGroup {
    tokens: Tokens,
    /// Lists carry revisions; the tokens of memberships are revisions as well.
    versioned: bool,
}

impl OneGroup {
    /// For a history of these calls: what tokens mean depends on which grants were acknowledged.
    pub fn of(calls: &[&Call<GroupOp, GroupRet>]) -> Self {
        let (mut tokens, mut versioned) = (Tokens::default(), false);
        for call in calls {
            match (&call.op, &call.result) {
                (GroupOp::Join { .. }, Some(GroupRet::Joined { token: Some(token) })) => {
                    tokens.granted.insert(token.clone());
                }
                (GroupOp::Join { member }, Some(GroupRet::Joined { token: None }) | None) => {
                    tokens.holes.insert(member.clone());
                }
                (_, Some(GroupRet::Members { revision: Some(_), .. })) => versioned = true,
                (_, _) => {}
            }
        }
        Self { tokens, versioned }
    }
}

/// Who is a member. Compared by a 128-bit fingerprint of the set, so that large groups cost no more than small ones.
#[derive(Clone)]
pub struct GroupState {
    members: imbl::OrdMap<Arc<str>, Option<Token>>,
    fingerprint: u128,
    /// The greatest revision known to have been reached.
    revision: u64,
}

impl PartialEq for GroupState {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
            && self.revision == other.revision
            && self.members.len() == other.members.len()
    }
}

impl Eq for GroupState {}

impl Hash for GroupState {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.fingerprint, self.revision).hash(hasher);
    }
}

impl fmt::Debug for GroupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.members.keys()).finish()
    }
}

impl GroupState {
    fn with(&self, member: &Arc<str>, token: Option<Token>) -> Self {
        let mut after = self.without(member);
        after.fingerprint ^= wide((member, &token));
        after.members.insert(member.clone(), token);
        after
    }

    fn without(&self, member: &Arc<str>) -> Self {
        let mut after = self.clone();
        if let Some(token) = after.members.remove(member) {
            after.fingerprint ^= wide((member, &token));
        }
        after
    }

    fn at(self, revision: u64) -> Self {
        Self { revision, ..self }
    }
}

impl OneGroup {
    /// The revision after a change that takes `revision`, or some unknown one; none if that has been passed.
    fn advance(&self, state: &GroupState, token: Option<&Token>) -> Option<u64> {
        match (self.versioned, token) {
            (false, _) => Some(state.revision),
            (true, Some(Token::Number(revision))) => (*revision > state.revision).then_some(*revision),
            (true, Some(Token::Word(_)) | None) => Some(state.revision + 1),
        }
    }

    fn join(&self, state: &GroupState, member: &Arc<str>, token: Option<&Token>) -> Option<GroupState> {
        if state.members.contains_key(member) {
            return None;
        }
        Some(state.with(member, token.cloned()).at(self.advance(state, token)?))
    }

    /// The state with `token` shown for a member.
    fn shown(&self, state: &GroupState, member: &Arc<str>, token: Option<&Token>) -> Option<GroupState> {
        let held = state.members.get(member)?.as_ref();
        // A membership's own token is no floor for it: only the order of changes is, and `revision` keeps that.
        let (known, _) = self.tokens.show(held, token, 0)?;
        Some(if known.as_ref() == held { state.clone() } else { state.with(member, known) })
    }

    fn leave(&self, state: &GroupState, member: &Arc<str>, token: Option<&Token>) -> Option<GroupState> {
        Some(self.shown(state, member, token)?.without(member).at(self.advance(state, None)?))
    }

    fn is_held(state: &GroupState, member: &Arc<str>, token: Option<&Token>) -> bool {
        state.members.get(member).is_some_and(|held| token.is_none() || held.as_ref() == token)
    }
}

impl Spec for OneGroup {
    type State = GroupState;
    type Op = GroupOp;
    type Ret = GroupRet;

    fn initial(&self) -> Vec<GroupState> {
        vec![GroupState { members: imbl::OrdMap::new(), fingerprint: 0, revision: 0 }]
    }

    fn step(&self, state: &GroupState, op: &GroupOp, ret: Option<&GroupRet>, next: &mut Vec<GroupState>) {
        let found = match (op, ret) {
            (GroupOp::Join { member }, Some(GroupRet::Joined { token })) => self.join(state, member, token.as_ref()),
            (GroupOp::Join { member }, Some(GroupRet::Held { token })) => self.shown(state, member, token.as_ref()),
            (GroupOp::Leave { member, token }, Some(GroupRet::EndedNow)) => self.leave(state, member, token.as_ref()),
            (GroupOp::Leave { member, token }, Some(GroupRet::EndedBefore | GroupRet::NeverIssued)) => {
                (!Self::is_held(state, member, token.as_ref())).then(|| state.clone())
            }
            (GroupOp::Leave { member, .. }, Some(GroupRet::Absent)) => {
                (!state.members.contains_key(member)).then(|| state.clone())
            }
            (GroupOp::Members, Some(GroupRet::Members { members, revision })) => {
                let revision = revision.unwrap_or(state.revision);
                (revision >= state.revision && state.members.keys().eq(members)).then(|| state.clone().at(revision))
            }
            // Of unknown outcome: what it does where it does something, and nothing where it was refused.
            (GroupOp::Join { member }, None) => Some(self.join(state, member, None).unwrap_or_else(|| state.clone())),
            (GroupOp::Leave { member, token }, None) => {
                next.push(state.clone());
                self.leave(state, member, token.as_ref())
            }
            (GroupOp::Members, None) => Some(state.clone()),
            // A return that the operation does not have.
            (GroupOp::Join { .. } | GroupOp::Leave { .. } | GroupOp::Members, Some(_)) => None,
        };
        next.extend(found);
    }

    fn reads(&self, op: &GroupOp, ret: Option<&GroupRet>) -> bool {
        match (op, ret) {
            (GroupOp::Members, Some(GroupRet::Members { revision, .. })) => revision.is_none(),
            (GroupOp::Join { member }, Some(GroupRet::Held { token })) => {
                self.tokens.is_settled(member, token.as_ref())
            }
            (_, Some(GroupRet::EndedBefore | GroupRet::NeverIssued | GroupRet::Absent)) | (GroupOp::Members, None) => {
                true
            }
            (_, Some(_)) | (GroupOp::Join { .. } | GroupOp::Leave { .. }, None) => false,
        }
    }
}
