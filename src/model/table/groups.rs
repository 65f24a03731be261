//! Who is in which group: joining and leaving.

use super::Table;
use super::grant::{Grant, NeverIssued};
use super::leases::Key;
use super::news::News;
use crate::model::command::{Action, Command};
use crate::model::entry::{Entry, Holder};
use crate::model::event::{Change, EndReason};
use crate::model::ident::{Group, Member, Token};
use crate::model::outcome::{Ended, Outcome, Refusal};

impl Table {
    /// The membership, if that member has joined.
    pub fn member(&self, group: &Group, member: &Member) -> Option<Entry> {
        let grant = self.groups.get(group)?.get(member)?;
        Some(grant.entry(Holder::Member(group.clone(), member.clone())))
    }

    pub(super) fn join(&mut self, command: &Command, news: &mut News) -> Outcome {
        let Action::Join { group, member, meta, lease } = &command.action else {
            unreachable!("asked for a membership alone")
        };
        if let Some(refusal) = lease.as_ref().and_then(|lease| self.leases.refusal(lease)) {
            return Outcome::Refused(refusal);
        }
        let holder = Holder::Member(group.clone(), member.clone());
        let key = || Key::Member(group.clone(), member.clone());
        let held = self.groups.get(group).and_then(|members| members.get(member)).cloned();
        let revision = self.revision + 1;
        match held {
            Some(grant) if grant.lease == *lease && grant.meta == *meta => Outcome::Held { entry: grant.entry(holder) },
            // A member that moves to another lease keeps its place: the same member never conflicts with itself.
            Some(grant) => {
                self.unbind(grant.lease.as_ref(), key());
                self.bind(lease.as_ref(), key());
                let previous = Some(grant.entry(holder.clone()));
                let grant = Grant { meta: meta.clone(), lease: lease.clone(), changed: revision, ..grant };
                let entry = grant.entry(holder);
                self.insert_member(group, member, grant);
                self.changed(vec![Change::Updated { entry: entry.clone(), previous, current: None }], news);
                Outcome::Held { entry }
            }
            None => {
                self.bind(lease.as_ref(), key());
                let grant = Grant {
                    meta: meta.clone(),
                    lease: lease.clone(),
                    token: revision,
                    superseded: None,
                    changed: revision,
                    node: command.node,
                    since: command.at,
                };
                let entry = grant.entry(holder);
                self.insert_member(group, member, grant);
                self.changed(vec![Change::Joined { entry: entry.clone() }], news);
                Outcome::Granted { entry, hides: None }
            }
        }
    }

    pub(super) fn leave(&mut self, group: &Group, member: &Member, token: Option<Token>, news: &mut News) -> Outcome {
        let current = self.groups.get(group).and_then(|members| members.get(member)).map(|grant| grant.token);
        match self.may_end(current, token) {
            Ok(Ended::Now) => {
                let change = self.end_member(group, member, EndReason::Given).expect("it has joined");
                self.changed(vec![change], news);
                Outcome::Ended(Ended::Now)
            }
            Ok(Ended::Before) => Outcome::Ended(Ended::Before),
            Err(NeverIssued) => Outcome::Refused(match token {
                Some(_) => Refusal::TokenStale { current: self.member(group, member) },
                None => Refusal::NotFound,
            }),
        }
    }

    fn insert_member(&mut self, group: &Group, member: &Member, grant: Grant) {
        self.groups.entry(group.clone()).or_default().insert(member.clone(), grant);
    }

    /// Removes a membership, and what binds it to its lease. The revision is the caller's business.
    pub(super) fn end_member(&mut self, group: &Group, member: &Member, reason: EndReason) -> Option<Change> {
        let members = self.groups.get_mut(group)?;
        let grant = members.remove(member)?;
        // A group is there while it has members.
        if members.is_empty() {
            self.groups.remove(group);
        }
        self.unbind(grant.lease.as_ref(), Key::Member(group.clone(), member.clone()));
        let entry = grant.entry(Holder::Member(group.clone(), member.clone()));
        Some(Change::Left { entry, reason })
    }
}
