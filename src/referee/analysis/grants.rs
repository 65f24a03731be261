//! Acknowledged grants of names and groups, and what may have ended each.

use std::collections::BTreeMap;

use super::faults::Span;
use super::ops::{Op, Outcome};
use crate::model::ident::NodeId;
use crate::referee::history::{Joined, Registered, Unregistered, What};
use crate::referee::leases::Leases;

/// A grant that a client was told of. Of a group: a membership, and the owner is the member.
#[derive(Clone, Debug)]
pub struct Grant<'a> {
    /// The name or group.
    pub key: &'a str,
    pub owner: &'a str,
    pub token: &'a str,
    pub node: Option<NodeId>,
    /// Where in the story the call is that was answered with it.
    pub op: usize,
    pub invoked: u64,
    pub acked: u64,
    /// The call created it. False: the call found that the caller held it already, from a call that was never answered.
    pub fresh: bool,
    /// Bound to it.
    pub lease: Option<&'a str>,
    /// The earliest moment at which it may have ended with its lease, within the run.
    pub lease_ends: Option<u64>,
}

/// A call that ended a grant, or may have.
#[derive(Clone, Debug)]
pub struct Ending<'a> {
    pub key: &'a str,
    /// Of a group: whose membership.
    pub owner: Option<&'a str>,
    /// None: whatever stood there.
    pub token: Option<&'a str>,
    /// It ended all grants of that owner that its node knew, whichever token it came with.
    pub all_of_owner: bool,
    /// The answer was that the grant of that token had ended before: this call ended nothing, and least of all a later grant.
    pub came_late: bool,
    pub node: Option<NodeId>,
    pub op: usize,
    pub invoked: u64,
    /// None: never answered, so it may have had its effect at any later time.
    pub acked: Option<u64>,
}

impl Ending<'_> {
    fn may_end(&self, grant: &Grant) -> bool {
        // An ending that was answered before the grant was asked for cannot be about it.
        self.owner.is_none_or(|owner| owner == grant.owner)
            && ((self.all_of_owner && !self.came_late) || self.token.is_none_or(|token| token == grant.token))
            && self.acked.is_none_or(|acked| acked >= grant.invoked)
    }
}

/// A register or join that was never answered: it may have granted something that nobody was told of.
#[derive(Clone, Debug)]
pub struct Silent<'a> {
    pub key: &'a str,
    pub owner: &'a str,
    pub op: usize,
    pub invoked: u64,
    /// The earliest moment at which it may have ended with its lease, within the run.
    pub lease_ends: Option<u64>,
}

/// All of it, by name or group.
#[derive(Clone, Debug, Default)]
pub struct Grants<'a> {
    granted: BTreeMap<&'a str, Vec<Grant<'a>>>,
    endings: BTreeMap<&'a str, Vec<Ending<'a>>>,
    silent: BTreeMap<&'a str, Vec<Silent<'a>>>,
}

impl<'a> Grants<'a> {
    /// By acknowledgement.
    pub fn of(&self, key: &str) -> &[Grant<'a>] {
        self.granted.get(key).map_or(&[], Vec::as_slice)
    }

    pub fn all(&self) -> impl Iterator<Item = &Grant<'a>> {
        self.granted.values().flatten()
    }

    pub fn all_silent(&self) -> impl Iterator<Item = &Silent<'a>> {
        self.silent.values().flatten()
    }

    pub fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.granted.keys().copied()
    }

    pub fn endings(&self, key: &str) -> &[Ending<'a>] {
        self.endings.get(key).map_or(&[], Vec::as_slice)
    }

    pub fn silent(&self, key: &str) -> &[Silent<'a>] {
        self.silent.get(key).map_or(&[], Vec::as_slice)
    }

    /// The earliest moment at which a client or its lease may have ended it; None: no client ever asked for that, and its lease, if it
    /// has one, outlasted the run.
    pub fn may_end_at(&self, grant: &Grant) -> Option<u64> {
        self.given_up_at(grant).into_iter().chain(grant.lease_ends).min()
    }

    /// The earliest moment at which a client may have ended it, other than by letting its lease run out.
    pub fn given_up_at(&self, grant: &Grant) -> Option<u64> {
        self.endings_of(grant).map(|end| end.invoked.max(grant.invoked)).min()
    }

    /// The calls that ended it, or may have.
    pub fn endings_of<'s>(&'s self, grant: &'s Grant<'a>) -> impl Iterator<Item = &'s Ending<'a>> {
        self.endings(grant.key).iter().filter(move |end| end.may_end(grant))
    }

    /// The acknowledged calls that ended exactly this grant, by its token.
    pub fn ended_by<'s>(&'s self, grant: &'s Grant<'a>) -> impl Iterator<Item = &'s Ending<'a>> {
        self.endings_of(grant).filter(|end| end.acked.is_some() && end.token == Some(grant.token))
    }

    /// While its owner was sure to hold it, as far as the clients know; it may be empty.
    pub fn surely_held(&self, grant: &Grant, run_end: u64) -> Span {
        Span { from: grant.acked, to: self.may_end_at(grant).unwrap_or(run_end).min(run_end) }
    }

    fn grant(&mut self, grant: Grant<'a>) {
        let of = self.granted.entry(grant.key).or_default();
        match of.iter_mut().find(|known| known.token == grant.token && known.owner == grant.owner) {
            Some(known) if known.acked <= grant.acked => {}
            Some(known) => *known = grant,
            None => of.push(grant),
        }
    }

    fn end(&mut self, mut ending: Ending<'a>, result: Option<&Unregistered>) {
        ending.came_late = ending.token.is_some() && result == Some(&Unregistered::Before);
        match result {
            // Nothing stood there, so nothing was ended.
            Some(Unregistered::Absent | Unregistered::Never) => {}
            Some(Unregistered::Now | Unregistered::Before) | None => {
                self.endings.entry(ending.key).or_default().push(ending);
            }
        }
    }

    /// What is known of each lease ends what was bound to it: from when it may, and for sure once an answer said so.
    fn end_with_leases(mut self, ops: &[Op<'a>], leases: &Leases, run_end: u64) -> Self {
        let ends = |lease: Option<&str>| {
            let lease = lease.and_then(|lease| leases.get(lease))?;
            Some(lease.may_end()).filter(|end| *end < run_end)
        };
        for silent in self.silent.values_mut().flatten() {
            silent.lease_ends = ends(lease_of(ops, silent.op));
        }
        let mut ended = Vec::new();
        for grant in self.granted.values_mut().flatten() {
            grant.lease_ends = ends(grant.lease);
            let Some(lease) = grant.lease.and_then(|lease| leases.get(lease)) else { continue };
            let revoked = lease.revoked.and_then(|revoked| Some((revoked.at, revoked.invoked, revoked.acked?.1)));
            let told = lease.told_ended.map(|told| (told.invoked_at, lease.may_end().min(told.time), told.time));
            ended.extend(revoked.into_iter().chain(told).filter_map(|(at, invoked, acked)| {
                let op = ops.iter().position(|op| op.index == at as u64)?;
                let (owner, token) = (Some(grant.owner), Some(grant.token));
                let (key, node, acked) = (grant.key, ops[op].node, Some(acked));
                Some(Ending { key, owner, token, all_of_owner: false, came_late: false, node, op, invoked, acked })
            }));
        }
        for ending in ended {
            self.endings.entry(ending.key).or_default().push(ending);
        }
        self
    }

    fn sort(mut self) -> Self {
        self.granted.values_mut().for_each(|of| of.sort_by_key(|grant| grant.acked));
        self
    }
}

/// Without consensus, grants of one owner stand side by side, and any of their tokens ends all (A7).
pub fn names<'a>(ops: &[Op<'a>], linearizable: bool, leases: &Leases, run_end: u64) -> Grants<'a> {
    let mut grants = Grants::default();
    for (at, op) in ops.iter().enumerate().filter(|(_, op)| op.possible()) {
        match op.what {
            What::Register { name, owner, result, .. } => match (result, op.ended, op.outcome) {
                (Some(Registered::Granted { token }), Some(acked), Outcome::Ok) => {
                    grants.grant(grant(op, at, name, owner, token, acked, true));
                }
                (Some(Registered::Held { token }), Some(acked), Outcome::Ok) => {
                    grants.grant(grant(op, at, name, owner, token, acked, false));
                }
                (Some(Registered::Taken { .. } | Registered::Stale | Registered::NoLease), _, Outcome::Ok) => {}
                _ => grants.silent.entry(name).or_default().push(Silent {
                    key: name,
                    owner,
                    op: at,
                    invoked: op.invoked,
                    lease_ends: None,
                }),
            },
            What::Unregister { name, token, result } => {
                grants.end(ending(op, at, name, None, token.as_deref()), result.as_ref());
            }
            _ => {}
        }
    }
    if !linearizable {
        for (key, endings) in &mut grants.endings {
            let granted = grants.granted.get(key).map_or(&[][..], Vec::as_slice);
            for end in endings.iter_mut().filter(|end| end.token.is_some()) {
                end.owner = granted.iter().find(|grant| Some(grant.token) == end.token).map(|grant| grant.owner);
                end.all_of_owner = end.owner.is_some();
            }
        }
    }
    grants.end_with_leases(ops, leases, run_end).sort()
}

/// Without consensus, grants of one member stand side by side, and leaving with the token of any ends all (A7).
pub fn groups<'a>(ops: &[Op<'a>], linearizable: bool, leases: &Leases, run_end: u64) -> Grants<'a> {
    let mut grants = Grants::default();
    for (at, op) in ops.iter().enumerate().filter(|(_, op)| op.possible()) {
        match op.what {
            What::Join { group, member, result, .. } => match (result, op.ended, op.outcome) {
                (Some(Joined { no_lease: true, .. }), _, Outcome::Ok) => {}
                (Some(Joined { token, new, .. }), Some(acked), Outcome::Ok) => {
                    grants.grant(grant(op, at, group, member, token, acked, *new));
                }
                _ => {
                    grants.silent.entry(group).or_default().push(Silent {
                        key: group,
                        owner: member,
                        op: at,
                        invoked: op.invoked,
                        lease_ends: None,
                    });
                }
            },
            What::Leave { group, member, token, result } => {
                let ending = ending(op, at, group, Some(member), token.as_deref());
                grants.end(Ending { all_of_owner: !linearizable, ..ending }, result.as_ref());
            }
            _ => {}
        }
    }
    grants.end_with_leases(ops, leases, run_end).sort()
}

pub fn lease_of<'a>(ops: &[Op<'a>], op: usize) -> Option<&'a str> {
    match ops[op].what {
        What::Register { lease, .. } | What::Join { lease, .. } => lease.as_deref(),
        _ => None,
    }
}

fn grant<'a>(
    op: &Op<'a>,
    at: usize,
    key: &'a str,
    owner: &'a str,
    token: &'a str,
    acked: u64,
    fresh: bool,
) -> Grant<'a> {
    let lease = match op.what {
        What::Register { lease, .. } | What::Join { lease, .. } => lease.as_deref(),
        _ => None,
    };
    Grant { key, owner, token, node: op.node, op: at, invoked: op.invoked, acked, fresh, lease, lease_ends: None }
}

fn ending<'a>(op: &Op<'a>, at: usize, key: &'a str, owner: Option<&'a str>, token: Option<&'a str>) -> Ending<'a> {
    let (invoked, acked) = (op.invoked, op.acked());
    Ending { key, owner, token, all_of_owner: false, came_late: false, node: op.node, op: at, invoked, acked }
}
