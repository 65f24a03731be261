//! The ends of leases, as calls of nobody's among the clients' calls: a lease may end from the moment on at which it is due or somebody
//! revokes it, and has ended once an answer says so.
//!
//! Every grant under a lease has an owner of its own, by which its end is told: the workload registers and joins under a lease with
//! an owner that it uses for no other.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::own::Calls;
use crate::referee::checker::Call;
use crate::referee::checker::groups::{GroupCall, GroupOp, GroupRet};
use crate::referee::checker::names::{NameCall, NameOp, NameRet};
use crate::referee::history::{Event, Kind, Process, What};
use crate::referee::leases::{self, Lease};

/// The processes from here on are nobody's: no run has so many clients.
const NOBODYS: u64 = 1_000_000_000;

/// What is bound to a lease.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Bound<'a> {
    lease: &'a str,
    /// A name, or else a group.
    is_name: bool,
    key: &'a str,
    owner: &'a str,
}

/// Adds an end for everything that was registered or joined under a lease.
pub(super) fn add(events: &[Event], calls: &mut Calls) {
    let leases = leases::of(events);
    let bound = events.iter().filter(|event| event.kind == Kind::Invoke).filter_map(bound).collect::<BTreeSet<_>>();
    for (nth, Bound { lease, is_name, key, owner }) in bound.into_iter().enumerate() {
        let Some(lease) = leases.get(lease) else { continue };
        let Some(end) = end_of(events, lease) else { continue };
        let process = NOBODYS + nth as u64;
        let owner: Arc<str> = Arc::from(owner);
        if is_name {
            let op = NameOp::LeaseEnds { owner };
            let result = end.complete.map(|_| NameRet::LeaseOver);
            let call = Call { process, op, invoke: end.invoke, complete: end.complete, result };
            calls.names.push(NameCall { name: key.to_owned(), call });
            calls.name_events.push(end.event);
        } else {
            let op = GroupOp::LeaseEnds { member: owner };
            let result = end.complete.map(|_| GroupRet::LeaseOver);
            let call = Call { process, op, invoke: end.invoke, complete: end.complete, result };
            calls.groups.push(GroupCall { group: key.to_owned(), call });
            calls.group_events.push(end.event);
        }
    }
}

fn bound(event: &Event) -> Option<Bound<'_>> {
    let Process::Client(_) = event.process else { return None };
    match &event.what {
        What::Register { name, owner, lease: Some(lease), .. } => {
            Some(Bound { lease, is_name: true, key: name, owner })
        }
        What::Join { group, member, lease: Some(lease), .. } => {
            Some(Bound { lease, is_name: false, key: group, owner: member })
        }
        _ => None,
    }
}

struct End {
    invoke: u64,
    complete: Option<u64>,
    /// The invocation of the call that tells of it: of the revocation, of the keep-alive that was told, or else of the lease's creation.
    event: usize,
}

/// None: it cannot have ended before the run did.
fn end_of(events: &[Event], lease: &Lease) -> Option<End> {
    let due = events.partition_point(|event| event.time < lease.due()) as u64;
    let revoked = lease.revoked.map_or(u64::MAX, |revoked| revoked.at as u64);
    let invoke = due.min(revoked);
    if invoke >= events.len() as u64 {
        return None;
    }
    let by_revocation = lease.revoked.and_then(|revoked| Some((revoked.acked?.0, revoked.at)));
    let by_keep_alive = lease.told_ended.map(|told| (told.at, told.invoked_at));
    // One that was told before the lease was due is another matter: it is not explained by this.
    let told = [by_revocation, by_keep_alive].into_iter().flatten().filter(|(at, _)| *at as u64 > invoke).min();
    Some(End {
        invoke,
        complete: told.map(|(at, _)| at as u64),
        event: told.map_or(lease.created_at, |(_, event)| event),
    })
}
