//! Who holds which name: registering and giving up.

use super::Table;
use super::grant::{Grant, NeverIssued};
use super::leases::Key;
use super::news::News;
use crate::model::command::{Action, Command, Condition};
use crate::model::entry::{Entry, Holder};
use crate::model::event::{Change, EndReason};
use crate::model::ident::{LeaseId, Name, Owner, Revision, Token};
use crate::model::outcome::{Ended, Outcome, Refusal};

impl Table {
    /// Who holds the name.
    pub fn name(&self, name: &Name) -> Option<Entry> {
        let (owner, grant) = self.names.get(name)?;
        Some(grant.entry(Holder::Owner(name.clone(), owner.clone())))
    }

    /// The order of the checks is part of the contract: a retry after an unknown outcome has to find its own grant
    /// before any condition is held against it.
    pub(super) fn register(&mut self, command: &Command, news: &mut News) -> Outcome {
        let Action::Register { name, owner, meta, lease, condition } = &command.action else {
            unreachable!("asked for a registration alone")
        };
        if let Some(refusal) = lease.as_ref().and_then(|lease| self.leases.refusal(lease)) {
            return Outcome::Refused(refusal);
        }
        let held = self.names.get(name).cloned();
        if let (Condition::Absent, Some(current)) = (condition, self.name(name)) {
            return Outcome::Refused(Refusal::NameExists { current });
        }
        if let Some((holder, grant)) = &held
            && holder == owner
            && grant.lease == *lease
            && *condition != Condition::Takeover
        {
            if let Some(refusal) = self.own_refusal(name, grant, condition) {
                return Outcome::Refused(refusal);
            }
            let previous = grant.entry(Holder::Owner(name.clone(), owner.clone()));
            if grant.meta == *meta {
                return Outcome::Held { entry: previous };
            }
            let grant = Grant { meta: meta.clone(), changed: self.revision + 1, ..grant.clone() };
            let entry = grant.entry(previous.holder.clone());
            self.names.insert(name.clone(), (owner.clone(), grant));
            self.changed(vec![Change::Updated { entry: entry.clone(), previous: Some(previous), current: None }], news);
            return Outcome::Held { entry };
        }
        let superseded = match self.others_refusal(name, held.as_ref().map(|(_, grant)| grant), condition) {
            Ok(superseded) => superseded,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        let grant = Grant {
            meta: meta.clone(),
            lease: lease.clone(),
            token: self.revision + 1,
            superseded,
            changed: self.revision + 1,
            node: command.node,
            since: command.at,
        };
        let entry = grant.entry(Holder::Owner(name.clone(), owner.clone()));
        let previous = self.replace(name, owner, grant);
        if let Some(previous) = &previous
            && (previous.lease != *lease || previous.holder != entry.holder)
        {
            self.note_lost(previous, &entry, command.at);
        }
        self.changed(vec![Change::Registered { entry: entry.clone(), previous, current: None }], news);
        Outcome::Granted { entry, hides: None }
    }

    /// What stands against a registration of what the same owner and lease hold already.
    fn own_refusal(&self, name: &Name, grant: &Grant, condition: &Condition) -> Option<Refusal> {
        match condition {
            Condition::Token(token) => {
                let issued = [Some(grant.token), grant.superseded].map(|token| token.map(Token::Cp));
                let stale = || Refusal::TokenStale { current: self.name(name) };
                (!issued.contains(&Some(*token))).then(stale)
            }
            Condition::Unchanged(revision) => {
                let stale = || Refusal::RevisionStale { current: self.name(name) };
                (*revision != Revision::Cp(grant.changed)).then(stale)
            }
            Condition::Free | Condition::Present | Condition::Absent | Condition::Takeover => None,
        }
    }

    /// What stands against a registration over what another owner or lease holds, if anybody. Otherwise: the token that is handed over.
    fn others_refusal(&self, name: &Name, held: Option<&Grant>, condition: &Condition) -> Result<Option<u64>, Refusal> {
        match (condition, held) {
            (Condition::Token(token), Some(grant)) if *token == Token::Cp(grant.token) => Ok(Some(grant.token)),
            (Condition::Token(_), _) => Err(Refusal::TokenStale { current: self.name(name) }),
            (Condition::Unchanged(revision), Some(grant)) if *revision == Revision::Cp(grant.changed) => Ok(None),
            (Condition::Unchanged(_), _) | (Condition::Present, None) => {
                Err(Refusal::RevisionStale { current: self.name(name) })
            }
            (Condition::Present, Some(_)) | (Condition::Takeover, _) | (_, None) => Ok(None),
            (Condition::Free | Condition::Absent, Some(_)) => {
                Err(Refusal::NameTaken { current: self.name(name).expect("it is held") })
            }
        }
    }

    pub(super) fn unregister(&mut self, name: &Name, token: Option<Token>, news: &mut News) -> Outcome {
        let current = self.names.get(name).map(|(_, grant)| grant.token);
        match self.may_end(current, token) {
            Ok(Ended::Now) => {
                let change = self.end_name(name, EndReason::Given).expect("it is held");
                self.changed(vec![change], news);
                Outcome::Ended(Ended::Now)
            }
            Ok(Ended::Before) => Outcome::Ended(Ended::Before),
            Err(NeverIssued) => Outcome::Refused(match token {
                Some(_) => Refusal::TokenStale { current: self.name(name) },
                None => Refusal::NotFound,
            }),
        }
    }

    /// Removes the grant of a name, and what binds it to its lease. The revision is the caller's business.
    pub(super) fn end_name(&mut self, name: &Name, reason: EndReason) -> Option<Change> {
        let (owner, grant) = self.names.remove(name)?;
        self.unbind(grant.lease.as_ref(), Key::Name(name.clone()));
        let entry = grant.entry(Holder::Owner(name.clone(), owner));
        Some(Change::Ended { entry, reason, current: None })
    }

    fn replace(&mut self, name: &Name, owner: &Owner, grant: Grant) -> Option<Entry> {
        let lease = grant.lease.clone();
        let previous = self.names.insert(name.clone(), (owner.clone(), grant));
        if let Some((_, previous)) = &previous {
            self.unbind(previous.lease.as_ref(), Key::Name(name.clone()));
        }
        self.bind(lease.as_ref(), Key::Name(name.clone()));
        previous.map(|(owner, grant)| grant.entry(Holder::Owner(name.clone(), owner)))
    }

    pub(super) fn bind(&mut self, lease: Option<&LeaseId>, key: Key) {
        if let Some(lease) = lease {
            self.leases.bind(lease, key);
        }
    }

    pub(super) fn unbind(&mut self, lease: Option<&LeaseId>, key: Key) {
        if let Some(lease) = lease {
            self.leases.unbind(lease, key);
        }
    }
}
