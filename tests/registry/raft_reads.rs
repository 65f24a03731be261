//! Which round answers a read: the whole of what makes many reads at the price of one linearizable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate::raft::reads::Rounds;
use quorate::registry::Reason;
use tokio::sync::watch;

/// Rounds that take until they are let end, each finding what was written when it began; how many began, what is written, and
/// how many may end.
fn rounds() -> (Rounds<u64>, watch::Receiver<u64>, Arc<AtomicU64>, watch::Sender<u64>) {
    let (began, begun) = watch::channel(0);
    let (let_end, may_end) = watch::channel(0);
    let written = Arc::new(AtomicU64::new(0));
    let at = written.clone();
    let rounds = Rounds::new(move || {
        let (found, mut may_end) = (at.load(Ordering::SeqCst), may_end.clone());
        began.send_modify(|rounds| *rounds += 1);
        let round = *began.borrow();
        async move {
            may_end.wait_for(|ended| *ended >= round).await.expect("the test lasts longer");
            // The first one fails, as it does when its leader is deposed.
            if round == 1 { Err(Reason::NoLeader) } else { Ok(found) }
        }
    });
    (rounds, begun, written, let_end)
}

/// etcd answered a retried read with an index that it had asked for before the retry: what was acknowledged in between was missing.
#[tokio::test]
async fn a_read_that_is_tried_again_begins_a_new_round() {
    let (rounds, begun, written, let_end) = rounds();
    let_end.send_replace(u64::MAX);
    assert_eq!(rounds.join().await, Err(Reason::NoLeader));
    written.store(7, Ordering::SeqCst);
    assert_eq!(rounds.join().await, Ok(7));
    written.store(8, Ordering::SeqCst);
    assert_eq!(rounds.join().await, Ok(8), "nor does a round that went well serve anybody later");
    assert_eq!(*begun.borrow(), 3);
}

#[tokio::test]
async fn a_read_does_not_join_a_round_that_began_before_it() {
    let (rounds, mut begun, written, let_end) = rounds();
    let (first, later) = tokio::join!(rounds.join(), async {
        begun.wait_for(|rounds| *rounds == 1).await.unwrap();
        // Acknowledged while the first round is under way.
        written.store(7, Ordering::SeqCst);
        let (later, ()) = tokio::join!(rounds.join(), async {
            tokio::task::yield_now().await;
            let_end.send_replace(2);
        });
        later
    });
    assert_eq!((first, later), (Err(Reason::NoLeader), Ok(7)));
    assert_eq!(*begun.borrow(), 2);
}
