//! A lease that keeps itself alive, and says in time when it cannot.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::belief::Belief;
pub use super::belief::Lost;
use super::client::Client;
use super::error::Error;
use super::groups::Join;
use super::moment::Moment;
use super::names::Register;
use super::word::{Granted, granted};
use crate::model::command::{Action, Condition};
use crate::model::conflict::ConflictRecord;
use crate::model::entry::{Entry, Holder};
use crate::model::ident::{LeaseId, Mode, RecordId, Revision};
use crate::model::outcome::{Ended, Refusal};

/// So many losses wait for their owner at most. Those beyond are told again by the registry once there is room.
const LOSSES_LEN_MAX: usize = 1_000;
/// The pause after a keep-alive that failed, as a share of the time-to-live, within these bounds.
const RETRY_SHARE: u32 = 20;
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// A sleeping machine's timers stand still: so long after it wakes up, at most, an overdue lease is told as lost.
const NAP_MAX: Duration = Duration::from_secs(10);

/// A lease that keeps itself alive until it is [closed](Lease::close) or dropped.
///
/// It is counted upon no longer than nine tenths of what the registry promised, from when the keep-alive was *sent*: so it is told as
/// [lost](Lease::lost) before anybody else can be given what is bound to it, as long as this machine's clock runs no more
/// than a tenth slower than the server's and its tasks are not kept from running. [`Lease::is_held`] is right at once in any
/// case, also after the machine has slept: ask it before each step that must not be taken by two.
///
/// Dropped, it is kept alive no longer and ends by itself.
#[derive(Debug)]
pub struct Lease {
    shared: Arc<Shared>,
    keeper: JoinHandle<()>,
}

/// A name that was lost although the lease lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It was taken over, or lost a conflict after a partition.
    Record(ConflictRecord),
    /// `ap`: the lease has moved to another node, which had given the name away; who holds it there.
    Taken { was: Holder, current: Entry },
}

#[derive(Debug)]
struct Shared {
    client: Client,
    id: LeaseId,
    ttl: Duration,
    belief: Mutex<Belief>,
    lost: watch::Sender<Option<Lost>>,
    bound: Mutex<Bound>,
    news: Notify,
}

/// What is known to be bound to the lease, and what was lost of it.
#[derive(Debug, Default)]
struct Bound {
    /// What was registered through this lease, to be asserted again when it moves.
    actions: Vec<(Holder, Action)>,
    losses: VecDeque<Loss>,
    /// Records that were told, until the registry has heard that they were.
    told: BTreeSet<RecordId>,
    seen: Vec<RecordId>,
}

impl Client {
    /// Makes a lease that keeps itself alive, for names and memberships that are to end with this process.
    pub async fn lease(&self, ttl: Duration) -> Result<Lease, Error> {
        // In `cp` by an id of our own, so that an answer that was lost costs nothing; in `ap` by the registry's, which says where it was
        // made, so that a node that has not heard of it knows that.
        let id = match self.mode() {
            Mode::Cp => Some(chosen()),
            Mode::Ap => None,
        };
        let sent = Moment::now();
        let made = self.create_lease(id.as_ref(), ttl).await?;
        // If an earlier try of the same call had made it, the one that was answered has kept it alive.
        let belief = Belief::new(sent, made.ttl);
        let shared = Arc::new(Shared {
            client: self.clone(),
            id: made.lease,
            ttl: made.ttl,
            belief: Mutex::new(belief),
            lost: watch::Sender::new(None),
            bound: Mutex::default(),
            news: Notify::new(),
        });
        let keeper = tokio::spawn(keep(shared.clone()));
        Ok(Lease { shared, keeper })
    }
}

/// Never used before: 128 random bits.
fn chosen() -> LeaseId {
    let id = format!("{:032x}", rand::random::<u128>());
    id.parse().expect("hexadecimal digits make an id")
}

impl Lease {
    pub fn id(&self) -> &LeaseId {
        &self.shared.id
    }

    pub fn ttl(&self) -> Duration {
        self.shared.ttl
    }

    /// Whether what is bound to it is surely still its owner's. Once it was not, it never is again.
    pub fn is_held(&self) -> bool {
        self.shared.lost_by_now().is_none()
    }

    /// How long it may be counted upon from now if no keep-alive comes through any more.
    pub fn remaining(&self) -> Duration {
        self.shared.belief().remaining(Moment::now())
    }

    /// Waits until the lease is lost, or may be: stop whatever depends on it.
    pub async fn lost(&self) -> Lost {
        let mut lost = self.shared.lost.subscribe();
        // The sender lives as long as this lease.
        lost.wait_for(Option::is_some).await.ok().and_then(|lost| *lost).unwrap_or(Lost::Closed)
    }

    /// Waits for the next name that was lost although the lease lives. Each is told at least once.
    pub async fn next_loss(&self) -> Loss {
        loop {
            let news = self.shared.news.notified();
            if let Some(loss) = self.shared.take_loss() {
                return loss;
            }
            news.await;
        }
    }

    /// Sends a registration bound to this lease. It is asserted again if the lease moves to another node.
    pub async fn register(&self, register: Register<'_>) -> Result<Granted, Error> {
        self.bind(register.lease(self.id()).action()?).await.map_err(|(error, _)| error)
    }

    /// Sends a joining bound to this lease. It is asserted again if the lease moves to another node.
    pub async fn join(&self, join: Join<'_>) -> Result<Granted, Error> {
        self.bind(join.lease(self.id()).action()?).await.map_err(|(error, _)| error)
    }

    /// Ends what was registered or joined through this lease, and nobody else's.
    pub async fn release(&self, granted: &Granted) -> Result<Ended, Error> {
        self.shared.forget(&granted.entry.holder);
        let token = granted.entry.token;
        match &granted.entry.holder {
            Holder::Owner(name, _) => self.shared.client.unregister(name, token).await,
            Holder::Member(group, member) => self.shared.client.leave(group, member, token).await,
        }
    }

    /// Revokes it: whatever is bound to it ends at once.
    pub async fn close(self) -> Result<Ended, Error> {
        self.shared.lose(Lost::Closed);
        self.keeper.abort();
        self.shared.client.revoke_lease(self.id()).await
    }

    /// Sends a command that binds something to this lease. With a refusal, how far the server was that refused.
    pub(super) async fn bind(&self, action: Action) -> Result<Granted, (Error, Option<Revision>)> {
        let result = self.shared.client.execute(&action).await;
        let revision = result.as_ref().ok().map(|reply| reply.revision.clone());
        let granted = granted(result).map_err(|error| (error, revision))?;
        self.shared.remember(&granted.entry.holder, action);
        Ok(granted)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Shared {
    fn belief(&self) -> MutexGuard<'_, Belief> {
        self.belief.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bound(&self) -> MutexGuard<'_, Bound> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost_by_now(&self) -> Option<Lost> {
        let lost = self.belief().lost(Moment::now());
        if lost.is_some() {
            self.lost.send_if_modified(|told| std::mem::replace(told, lost) != lost);
        }
        lost
    }

    fn lose(&self, why: Lost) {
        self.belief().lose(why);
        self.lost_by_now();
    }

    fn remember(&self, holder: &Holder, action: Action) {
        // A registration without its condition: it is to say again what stands, not to do it again.
        let action = match action {
            Action::Register { name, owner, meta, lease, condition: _ } => {
                Action::Register { name, owner, meta, lease, condition: Condition::Free }
            }
            other => other,
        };
        let mut bound = self.bound();
        bound.actions.retain(|(known, _)| known != holder);
        bound.actions.push((holder.clone(), action));
    }

    fn forget(&self, holder: &Holder) {
        self.bound().actions.retain(|(known, _)| known != holder);
    }

    fn take_loss(&self) -> Option<Loss> {
        let mut bound = self.bound();
        let loss = bound.losses.pop_front()?;
        if let Loss::Record(record) = &loss {
            bound.seen.push(record.id.clone());
        }
        Some(loss)
    }

    /// Takes in what a keep-alive told of lost names.
    fn hear(&self, lost: Vec<ConflictRecord>, acknowledged: &[RecordId]) {
        let mut bound = self.bound();
        bound.seen.retain(|id| !acknowledged.contains(id));
        for id in acknowledged {
            bound.told.remove(id);
        }
        for record in lost {
            if bound.losses.len() >= LOSSES_LEN_MAX
                || acknowledged.contains(&record.id)
                || !bound.told.insert(record.id.clone())
            {
                continue;
            }
            let holder = Holder::Owner(record.name.clone(), record.loser.owner.clone());
            bound.actions.retain(|(known, _)| *known != holder);
            bound.losses.push_back(Loss::Record(record));
        }
        drop(bound);
        self.news.notify_waiters();
    }

    /// Takes in who holds a name that was to be asserted again. False: there is no room for it now.
    fn hear_taken(&self, was: Holder, current: Entry) -> bool {
        let mut bound = self.bound();
        if bound.losses.len() >= LOSSES_LEN_MAX {
            return false;
        }
        bound.actions.retain(|(known, _)| *known != was);
        bound.losses.push_back(Loss::Taken { was, current });
        drop(bound);
        self.news.notify_waiters();
        true
    }
}

/// Keeps the lease alive until it is lost.
async fn keep(shared: Arc<Shared>) {
    let mut next = shared.belief().next_keep_alive(rand::random());
    let mut moved = false;
    loop {
        if !wait(&shared, next).await {
            return;
        }
        let (sent, left) = (Moment::now(), shared.belief().remaining(Moment::now()));
        let timeout = shared.client.options().timeout.min(left);
        let seen = shared.bound().seen.clone();
        match shared.client.within(timeout).keep_alive(&shared.id, &seen).await {
            Ok(kept) => {
                shared.belief().kept_alive(sent, Duration::from_millis(kept.expires_in_ms));
                shared.hear(kept.lost, &seen);
                next = shared.belief().next_keep_alive(rand::random());
                moved |= kept.moved;
                if moved {
                    moved = !assert_again(&shared).await;
                }
            }
            Err(error) => {
                if ended(&shared, &error) {
                    shared.lose(Lost::Ended);
                    return;
                }
                tracing::debug!(lease = %shared.id, %error, "a lease was not kept alive");
                let pause =
                    (shared.ttl / RETRY_SHARE).clamp(RETRY_MIN, RETRY_MAX).mul_f64(rand::random_range(0.5..1.0));
                next = Moment::now().plus(pause);
            }
        }
    }
}

/// Whether the registry has said that there is nothing left to be kept alive.
fn ended(shared: &Shared, error: &Error) -> bool {
    match error.refusal() {
        // In `ap` another node may know more, or this one later.
        Some(Refusal::LeaseUnknown) => shared.client.mode() == Mode::Cp,
        Some(_) => true,
        None => false,
    }
}

/// Waits until then; false if the lease was lost before.
async fn wait(shared: &Shared, until: Moment) -> bool {
    loop {
        if shared.lost_by_now().is_some() {
            return false;
        }
        let now = Moment::now();
        let left = until.since(now);
        if left.is_zero() {
            return true;
        }
        let remaining = shared.belief().remaining(now);
        sleep(left.min(remaining).min(NAP_MAX)).await;
    }
}

/// Another node keeps the lease from now on and may not know what is bound to it. Whether everything was said again.
async fn assert_again(shared: &Shared) -> bool {
    let actions = shared.bound().actions.clone();
    let mut whole = true;
    for (holder, action) in actions {
        match granted(shared.client.execute(&action).await) {
            Ok(_) => {}
            Err(error) => match error.refusal() {
                Some(Refusal::NameTaken { current }) => {
                    whole &= shared.hear_taken(holder, current.clone());
                }
                Some(_) | None => whole = false,
            },
        }
    }
    whole
}
