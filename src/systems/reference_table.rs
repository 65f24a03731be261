//! What the reference registry keeps: one machine's names, groups and leases, and every change in the order in which it came.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::model::ident::NodeId;
use crate::referee::history::{Found, Joined, KeptAlive, LeaseMade, Membership, Registered, Unregistered, View, What};
use crate::referee::watched::{Change, ChangeKind};

/// Names, groups and leases as they are now.
#[derive(Default)]
pub struct Table {
    revision: u64,
    names: BTreeMap<String, Grant>,
    groups: BTreeMap<String, BTreeMap<String, Grant>>,
    leases: BTreeMap<String, Lease>,
    /// All that changed, by revision.
    changes: Vec<(u64, Vec<Change>)>,
}

struct Grant {
    owner: String,
    token: u64,
    lease: Option<String>,
}

struct Lease {
    ttl: Duration,
    /// None: it has ended.
    until: Option<Instant>,
}

impl Table {
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// What changed after that revision.
    pub fn changes_after(&self, revision: u64) -> &[(u64, Vec<Change>)] {
        &self.changes[self.changes.partition_point(|(at, _)| *at <= revision)..]
    }

    pub fn view(&self, node: NodeId) -> View {
        let names = self.names.iter().map(|(name, g)| (name.clone(), (g.owner.clone(), g.token.to_string())));
        let groups = self.groups.iter().filter(|(_, members)| !members.is_empty());
        let groups = groups.map(|(group, members)| (group.clone(), members.keys().cloned().collect()));
        View { node, names: names.collect(), groups: groups.collect(), leader: None }
    }

    /// Ends the leases whose time is over. To be called before everything else.
    pub fn pass(&mut self, now: Instant) {
        let over = self.leases.iter().filter(|(_, lease)| lease.until.is_some_and(|until| until <= now));
        for lease in over.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.end_lease(&lease, true);
        }
    }

    /// The call with its result; None: it is no client's.
    pub fn answer(&mut self, what: What, now: Instant) -> Option<What> {
        Some(match what {
            What::Register { name, owner, lease, .. } => {
                let result = Some(self.register(&name, &owner, lease.as_deref()));
                What::Register { name, owner, lease, result }
            }
            What::Renew { name, owner, lease, token, .. } => {
                let result = Some(match self.names.get(&name) {
                    _ if !self.lives(lease.as_deref()) => Registered::NoLease,
                    Some(grant) if grant.owner == owner && grant.token.to_string() == token => {
                        Registered::Held { token: token.clone() }
                    }
                    _ => Registered::Stale,
                });
                What::Renew { name, owner, lease, token, result }
            }
            What::Unregister { name, token, .. } => {
                let result = Some(self.unregister(&name, token.as_deref()));
                What::Unregister { name, token, result }
            }
            What::Whereis { name, .. } => {
                let grant = self.names.get(&name);
                let found = Found { owner: grant.map(|g| g.owner.clone()), token: grant.map(|g| g.token.to_string()) };
                What::Whereis { name, result: Some(found) }
            }
            What::Join { group, member, lease, .. } => {
                let result = Some(self.join(&group, &member, lease.as_deref()));
                What::Join { group, member, lease, result }
            }
            What::Leave { group, member, token, .. } => {
                let result = Some(self.leave(&group, &member, token.as_deref()));
                What::Leave { group, member, token, result }
            }
            What::Members { group, .. } => {
                let members = self.groups.get(&group).map(|members| members.keys().cloned().collect());
                let (members, revision) = (members.unwrap_or_default(), Some(self.revision));
                let result = Some(Membership { members, twice: Default::default(), revision });
                What::Members { group, result }
            }
            What::CreateLease { lease, ttl_ms, .. } => {
                let result = Some(self.create_lease(&lease, Duration::from_millis(ttl_ms), now));
                What::CreateLease { lease, ttl_ms, result }
            }
            What::KeepAlive { lease, seen, .. } => {
                let result = Some(self.keep_alive(&lease, now));
                What::KeepAlive { lease, seen, result }
            }
            What::Revoke { lease, .. } => {
                let result = Some(match self.leases.get(&lease).map(|lease| lease.until.is_some()) {
                    None => Unregistered::Absent,
                    Some(false) => Unregistered::Before,
                    Some(true) => {
                        self.end_lease(&lease, false);
                        Unregistered::Now
                    }
                });
                What::Revoke { lease, result }
            }
            What::GuardedWrite { .. }
            | What::Watched(_)
            | What::Fault(_)
            | What::Probe { .. }
            | What::View(_)
            | What::Conflicts { .. } => return None,
        })
    }

    fn lives(&self, lease: Option<&str>) -> bool {
        lease.is_none_or(|lease| self.leases.get(lease).is_some_and(|lease| lease.until.is_some()))
    }

    /// Something changes: at a new revision, which is returned.
    fn change(&mut self, changes: impl FnOnce(u64) -> Vec<Change>) -> u64 {
        self.revision += 1;
        let changes = changes(self.revision);
        self.changes.push((self.revision, changes));
        self.revision
    }

    fn register(&mut self, name: &str, owner: &str, lease: Option<&str>) -> Registered {
        if !self.lives(lease) {
            return Registered::NoLease;
        }
        match self.names.get(name) {
            Some(grant) if grant.owner == owner && grant.lease.as_deref() == lease => {
                Registered::Held { token: grant.token.to_string() }
            }
            Some(grant) => Registered::Taken { owner: grant.owner.clone(), token: grant.token.to_string() },
            None => {
                let lease = lease.map(str::to_owned);
                let token = self.change(|token| {
                    vec![change(
                        ChangeKind::Registered,
                        name,
                        &Grant { owner: owner.to_owned(), token, lease: lease.clone() },
                    )]
                });
                self.names.insert(name.to_owned(), Grant { owner: owner.to_owned(), token, lease });
                Registered::Granted { token: token.to_string() }
            }
        }
    }

    fn unregister(&mut self, name: &str, token: Option<&str>) -> Unregistered {
        match self.ends(self.names.get(name), token) {
            Unregistered::Now => {
                if let Some(grant) = self.names.remove(name) {
                    self.change(|_| vec![change(ChangeKind::Ended, name, &grant)]);
                }
                Unregistered::Now
            }
            other => other,
        }
    }

    fn join(&mut self, group: &str, member: &str, lease: Option<&str>) -> Joined {
        if !self.lives(lease) {
            return Joined { token: String::new(), new: false, no_lease: true, revision: Some(self.revision) };
        }
        let held = self.groups.get(group).and_then(|members| members.get(member)).map(|grant| grant.token);
        let token = held.unwrap_or_else(|| {
            let lease = lease.map(str::to_owned);
            let grant = |token| Grant { owner: member.to_owned(), token, lease };
            let token = self.change(|token| vec![change(ChangeKind::Joined, group, &grant.clone()(token))]);
            self.groups.entry(group.to_owned()).or_default().insert(member.to_owned(), grant(token));
            token
        });
        Joined { token: token.to_string(), new: held.is_none(), no_lease: false, revision: Some(self.revision) }
    }

    fn leave(&mut self, group: &str, member: &str, token: Option<&str>) -> Unregistered {
        let standing = self.groups.get(group).and_then(|members| members.get(member));
        match self.ends(standing, token) {
            Unregistered::Now => {
                if let Some(grant) = self.groups.get_mut(group).and_then(|members| members.remove(member)) {
                    self.change(|_| vec![change(ChangeKind::Left, group, &grant)]);
                }
                Unregistered::Now
            }
            other => other,
        }
    }

    /// What ending a grant comes to; `Now`: it is to be done.
    fn ends(&self, standing: Option<&Grant>, token: Option<&str>) -> Unregistered {
        match (token, standing.map(|grant| grant.token.to_string())) {
            (None, None) => Unregistered::Absent,
            (Some(token), current) if current.as_deref() != Some(token) => {
                // Tokens are revisions: what is not above the latest has been issued.
                let issued = token.parse::<u64>().is_ok_and(|token| (1..=self.revision).contains(&token));
                if issued { Unregistered::Before } else { Unregistered::Never }
            }
            _ => Unregistered::Now,
        }
    }

    fn create_lease(&mut self, id: &str, ttl: Duration, now: Instant) -> LeaseMade {
        if self.leases.contains_key(id) {
            return LeaseMade::Refused;
        }
        self.leases.insert(id.to_owned(), Lease { ttl, until: Some(now + ttl) });
        LeaseMade::Made
    }

    fn keep_alive(&mut self, id: &str, now: Instant) -> KeptAlive {
        match self.leases.get_mut(id) {
            None => KeptAlive::Unknown,
            Some(Lease { until: None, .. }) => KeptAlive::Ended,
            Some(lease) => {
                lease.until = Some(now + lease.ttl);
                KeptAlive::Alive { lost: Vec::new(), moved: false }
            }
        }
    }

    /// Everything that is bound to it ends in one revision.
    fn end_lease(&mut self, id: &str, expired: bool) {
        let Some(lease) = self.leases.get_mut(id) else { return };
        lease.until = None;
        let (name_kind, member_kind) = match expired {
            true => (ChangeKind::Expired, ChangeKind::LeftExpired),
            false => (ChangeKind::Ended, ChangeKind::Left),
        };
        let mut changes = Vec::new();
        let bound = |grant: &Grant| grant.lease.as_deref() == Some(id);
        self.names.retain(|name, grant| {
            let ends = bound(grant);
            changes.extend(ends.then(|| change(name_kind, name, grant)));
            !ends
        });
        for (group, members) in &mut self.groups {
            members.retain(|_, grant| {
                let ends = bound(grant);
                changes.extend(ends.then(|| change(member_kind, group, grant)));
                !ends
            });
        }
        if expired {
            let (kind, lease) = (ChangeKind::LeaseExpired, Some(id.to_owned()));
            changes.push(Change {
                kind,
                key: String::new(),
                owner: String::new(),
                token: String::new(),
                lease,
                current: None,
            });
        }
        if !changes.is_empty() {
            self.change(|_| changes);
        }
    }
}

fn change(kind: ChangeKind, key: &str, grant: &Grant) -> Change {
    let holder = (grant.owner.clone(), grant.token.to_string());
    let current = (kind == ChangeKind::Registered).then(|| holder.clone());
    Change { kind, key: key.to_owned(), owner: holder.0, token: holder.1, lease: grant.lease.clone(), current }
}
