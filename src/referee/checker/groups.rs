//! Groups: any number of members each, and a token for every membership.
//!
//! Each group is an object of its own. Where answers carry the registry's revision, the revision is part of the model's state (as
//! etcd's robustness tests do with versions): every change takes a greater one, and a list at revision `r` is what all changes up
//! to `r` made. The revisions told then give the order, and the search is little more than a replay; without revisions it searches.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::hash::wide;
use super::spec::Spec;
use super::token::{Token, Tokens, none_between};
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
    /// The lease ends that the member's every membership is bound to. As with names.
    LeaseEnds {
        member: Arc<str>,
    },
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
    LeaseOver,
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
    /// The revisions of lists. Not used for explanations.
    lists: BTreeSet<u64>,
}

impl OneGroup {
    /// For a history of these calls: what tokens mean depends on which grants were acknowledged.
    pub fn of(calls: &[&Call<GroupOp, GroupRet>]) -> Self {
        let (mut tokens, mut lists) = (Tokens::default(), BTreeSet::new());
        for call in calls {
            match (&call.op, &call.result) {
                (GroupOp::Join { member }, Some(GroupRet::Joined { token })) => tokens.note(member, token.as_ref()),
                (GroupOp::Join { member }, None) => tokens.note(member, None),
                (_, Some(GroupRet::Members { revision: Some(revision), .. })) => {
                    lists.insert(*revision);
                }
                (_, _) => {}
            }
        }
        Self { tokens, versioned: !lists.is_empty(), lists }
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
    /// The revision after a change that takes the one told, or an unknown one; none if that has been passed, or leaves out a revision
    /// at which something still has to happen.
    fn advance(&self, state: &GroupState, token: Option<&Token>) -> Option<u64> {
        match token {
            _ if !self.versioned => Some(state.revision),
            Some(token @ Token::Number(revision)) => self
                .tokens
                .raise(state.revision, token)
                .filter(|_| none_between(&self.lists, state.revision, *revision)),
            // The least possible, which leaves most room.
            Some(Token::Word(_)) | None => {
                let next = state.revision + 1;
                (!self.tokens.order.contains(&next)).then_some(next)
            }
        }
    }

    /// The revision when a list was made at `revision`; none as above.
    fn list_at(&self, state: &GroupState, revision: u64) -> Option<u64> {
        let order = &self.tokens.order;
        let in_order = revision == state.revision
            || revision > state.revision
                && none_between(&self.lists, state.revision, revision)
                && none_between(order, state.revision, revision)
                && !order.contains(&revision);
        in_order.then_some(revision)
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
        // Nothing is known of what was issued before it: tokens of other members lie between.
        let floor = if let Some(Token::Number(number)) = token { number.saturating_sub(1) } else { 0 };
        let (known, _) = self.tokens.show(held, token, floor)?;
        Some(if known.as_ref() == held { state.clone() } else { state.with(member, known) })
    }

    fn leave(&self, state: &GroupState, member: &Arc<str>, token: Option<&Token>) -> Option<GroupState> {
        Some(self.shown(state, member, token)?.without(member).at(self.advance(state, None)?))
    }

    fn is_held(state: &GroupState, member: &Arc<str>, token: Option<&Token>) -> bool {
        state.members.get(member).is_some_and(|held| token.is_none() || held.as_ref() == token)
    }
}

impl OneGroup {
    fn answered(&self, state: &GroupState, op: &GroupOp, ret: &GroupRet) -> Option<GroupState> {
        match (op, ret) {
            (GroupOp::Join { member }, GroupRet::Joined { token }) => self.join(state, member, token.as_ref()),
            (GroupOp::Join { member }, GroupRet::Held { token }) => self.shown(state, member, token.as_ref()),
            (GroupOp::Leave { member, token }, GroupRet::EndedNow) => self.leave(state, member, token.as_ref()),
            (GroupOp::Leave { member, token }, GroupRet::EndedBefore | GroupRet::NeverIssued) => {
                (!Self::is_held(state, member, token.as_ref())).then(|| state.clone())
            }
            (GroupOp::Leave { member, .. }, GroupRet::Absent) => {
                (!state.members.contains_key(member)).then(|| state.clone())
            }
            (GroupOp::Members, GroupRet::Members { members, revision }) => {
                let revision = self.list_at(state, revision.unwrap_or(state.revision))?;
                state.members.keys().eq(members).then(|| state.clone().at(revision))
            }
            (GroupOp::LeaseEnds { member }, GroupRet::LeaseOver) => match state.members.contains_key(member) {
                true => self.leave(state, member, None),
                false => Some(state.clone()),
            },
            // A return that the operation does not have.
            (GroupOp::Join { .. } | GroupOp::Leave { .. } | GroupOp::Members | GroupOp::LeaseEnds { .. }, _) => None,
        }
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
        match ret {
            Some(ret) => next.extend(self.answered(state, op, ret)),
            // Where it does nothing it did not happen.
            None if matches!(op, GroupOp::LeaseEnds { .. }) => {
                if let GroupOp::LeaseEnds { member } = op {
                    next.extend(self.leave(state, member, None));
                }
            }
            // Of unknown outcome: what it does where it does something, and nothing where it was refused.
            None => {
                next.push(state.clone());
                next.extend(match op {
                    GroupOp::Join { member } => self.join(state, member, None),
                    GroupOp::Leave { member, token } => self.leave(state, member, token.as_ref()),
                    GroupOp::Members | GroupOp::LeaseEnds { .. } => None,
                });
            }
        }
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
            (_, Some(_)) | (GroupOp::Join { .. } | GroupOp::Leave { .. } | GroupOp::LeaseEnds { .. }, None) => false,
        }
    }

    fn plain(&self) -> Option<Self> {
        let mut plain = self.clone();
        plain.tokens.order.clear();
        plain.lists.clear();
        Some(plain)
    }
}
