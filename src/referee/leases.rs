//! What a history says of each lease: when it surely lived, and what may have ended it.

use std::collections::{BTreeMap, HashMap};

use super::history::{Event, KeptAlive, Kind, LeaseMade, Process, Unregistered, What};

/// Nodes count in whole milliseconds, and may so end a lease that much before its time.
const ROUNDING_NS: u64 = 1_000_000;

/// All leases of a history, by id.
pub type Leases<'a> = BTreeMap<&'a str, Lease>;

/// One lease. Times are nanoseconds since the run began; places are indexes among the events.
#[derive(Clone, Debug, Default)]
pub struct Lease {
    pub ttl_ns: u64,
    /// Where its creation was invoked.
    pub created_at: usize,
    /// Its creation, and each keep-alive after it, that was answered: it lived.
    pub proofs: Vec<Proof>,
    /// Keep-alives that were not: each may have prolonged it. When the client sent them, and gave up waiting (none: never).
    pub doubtful: Vec<(u64, Option<u64>)>,
    /// The first revocation that may have ended it.
    pub revoked: Option<Revocation>,
    /// The first answer that said that it has ended, to a keep-alive.
    pub told_ended: Option<ToldEnded>,
}

/// It lived at some moment between the two, and from then on at least for its time-to-live counted from the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    pub sent: u64,
    pub acked: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation {
    pub at: usize,
    pub invoked: u64,
    /// Where, and when, it was answered that the lease has ended.
    pub acked: Option<(usize, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToldEnded {
    /// Where the keep-alive was invoked.
    pub invoked_at: usize,
    pub sent: u64,
    /// Where, and when, it was answered.
    pub at: usize,
    pub time: u64,
}

impl Lease {
    /// The earliest moment at which it may have run out, whatever else became of it: its time-to-live after the sending of what last
    /// proved that it lived.
    pub fn due(&self) -> u64 {
        let last = self.proofs.iter().map(|proof| proof.sent).max().unwrap_or(0);
        (last + self.ttl_ns).saturating_sub(ROUNDING_NS)
    }

    /// The earliest moment at which it may have ended.
    pub fn may_end(&self) -> u64 {
        self.revoked.map_or(self.due(), |revoked| revoked.invoked.min(self.due()))
    }

    /// The latest moment at which a keep-alive may have prolonged it, by what the client saw.
    pub fn last_touched(&self) -> u64 {
        let proven = self.proofs.iter().map(|proof| proof.acked);
        let doubtful = self.doubtful.iter().map(|(sent, gave_up)| gave_up.unwrap_or(*sent));
        proven.chain(doubtful).max().unwrap_or(0)
    }

    /// The stretches in which its client could be certain that it lived, by the answers that it had by then. Sorted, apart.
    pub fn certain(&self) -> Vec<(u64, u64)> {
        let end = self.revoked.map_or(u64::MAX, |revoked| revoked.invoked);
        let mut stretches: Vec<(u64, u64)> = Vec::new();
        for proof in &self.proofs {
            let (from, to) = (proof.acked, (proof.sent + self.ttl_ns).min(end));
            match stretches.last_mut() {
                _ if from >= to => {}
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => stretches.push((from, to)),
            }
        }
        stretches
    }
}

/// Reads them off the clients' calls.
pub fn of(events: &[Event]) -> Leases<'_> {
    let mut leases = Leases::new();
    let mut open: HashMap<u64, usize> = HashMap::new();
    for (at, event) in events.iter().enumerate() {
        let Process::Client(process) = event.process else { continue };
        if event.kind == Kind::Invoke {
            open.insert(process, at);
            begun(&mut leases, at, event);
        } else if let Some(invoked_at) = open.remove(&process) {
            answered(&mut leases, events, invoked_at, at);
        }
    }
    leases
}

fn begun<'a>(leases: &mut Leases<'a>, at: usize, event: &'a Event) {
    match &event.what {
        What::CreateLease { lease, ttl_ms, .. } => {
            let new = Lease { ttl_ns: ttl_ms * 1_000_000, created_at: at, ..Lease::default() };
            leases.entry(lease).or_insert(new);
        }
        What::Revoke { lease, .. } => {
            let lease = leases.entry(lease).or_default();
            lease.revoked.get_or_insert(Revocation { at, invoked: event.time, acked: None });
        }
        // Doubtful until it is answered.
        What::KeepAlive { lease, .. } => leases.entry(lease).or_default().doubtful.push((event.time, None)),
        _ => {}
    }
}

fn answered<'a>(leases: &mut Leases<'a>, events: &'a [Event], invoked_at: usize, at: usize) {
    let (asked, answer) = (&events[invoked_at], &events[at]);
    let settled = answer.kind != Kind::Info;
    match &answer.what {
        What::CreateLease { lease, result, .. } if answer.kind == Kind::Ok => {
            if let (Some(LeaseMade::Made), Some(lease)) = (result, leases.get_mut(lease.as_str())) {
                lease.proofs.push(Proof { sent: asked.time, acked: answer.time });
            }
        }
        What::KeepAlive { lease, result, .. } => {
            let Some(lease) = leases.get_mut(lease.as_str()) else { return };
            if settled {
                lease.doubtful.retain(|(sent, _)| *sent != asked.time);
            } else if let Some(doubt) = lease.doubtful.iter_mut().find(|(sent, _)| *sent == asked.time) {
                doubt.1 = Some(answer.time);
            }
            match result {
                Some(KeptAlive::Alive { .. }) => {
                    lease.proofs.push(Proof { sent: asked.time, acked: answer.time });
                }
                Some(KeptAlive::Ended) => {
                    let told = ToldEnded { invoked_at, sent: asked.time, at, time: answer.time };
                    lease.told_ended.get_or_insert(told);
                }
                Some(KeptAlive::Unknown) | None => {}
            }
        }
        What::Revoke { lease, result } => {
            let Some(lease) = leases.get_mut(lease.as_str()) else { return };
            match (answer.kind, result) {
                (Kind::Ok, Some(Unregistered::Now | Unregistered::Before)) => {
                    if let Some(revoked) = &mut lease.revoked {
                        revoked.acked.get_or_insert((at, answer.time));
                    }
                }
                // Surely without effect; another one may have had it.
                (Kind::Fail, _) | (Kind::Ok, _) if lease.revoked.is_some_and(|r| r.at == invoked_at) => {
                    lease.revoked = None;
                }
                _ => {}
            }
        }
        _ => {}
    }
}
