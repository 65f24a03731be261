//! A lease that keeps itself alive, before servers that say what they are told to.

use std::sync::Arc;
use std::time::Duration;

use quorate::client::client::Client;
use quorate::client::lease::{Lease, Loss, Lost};
use quorate::model::command::{Action, Condition};
use quorate::model::conflict::{ConflictRecord, Contender};
use quorate::model::entry::{Entry, Holder};
use quorate::model::ident::{ApToken, Meta, Mode, Revision, Token};
use quorate::model::lease::KeptAlive;
use quorate::model::outcome::{Ended, Outcome, Refusal};
use quorate::model::time::UnixMillis;
use quorate::registry::{CommandFailure, KeepAlive, Provenance, Reason, Reply};
use tokio::time::{sleep, timeout};

use crate::http::support::{Asked, Scripted, Server, state};

const SOON: Duration = Duration::from_secs(30);
const TTL: Duration = Duration::from_secs(3);

fn reply<T>(mode: Mode, value: T) -> Reply<T> {
    let revision = Revision::parse(mode, "7").unwrap();
    Reply { value, revision, provenance: Provenance::default() }
}

fn token(number: u64) -> Token {
    Token::Ap(ApToken { hlc: number, node: 1, run: 1, number })
}

fn entry(owner: &str) -> Entry {
    Entry {
        holder: Holder::Owner("billing".parse().unwrap(), owner.parse().unwrap()),
        meta: Meta::empty(),
        lease: None,
        token: token(5),
        revision: Revision::Ap("5".into()),
        node: 1,
        since: UnixMillis(1_600_000_000_000),
        hidden: false,
    }
}

fn kept(lost: Vec<ConflictRecord>, moved: bool) -> Result<KeptAlive, Refusal> {
    Ok(KeptAlive { expires_in_ms: TTL.as_millis() as u64, lost, moved })
}

async fn server(registry: &Arc<Scripted>) -> Server {
    let other = Scripted::new(if registry.mode == Mode::Cp { Mode::Ap } else { Mode::Cp });
    Server::start(match registry.mode {
        Mode::Cp => state(registry.clone(), other),
        Mode::Ap => state(other, registry.clone()),
    })
    .await
}

fn says(registry: &Scripted, result: Result<KeptAlive, Refusal>) {
    *registry.kept.lock().unwrap() = Ok(reply(registry.mode, vec![result]));
}

fn does(registry: &Scripted, outcome: Outcome) {
    *registry.outcome.lock().unwrap() = Ok(reply(registry.mode, outcome));
}

async fn lease(registry: &Arc<Scripted>, servers: &[&Server]) -> Lease {
    does(registry, Outcome::LeaseCreated { lease: "l1".parse().unwrap(), ttl_ms: TTL.as_millis() as u64 });
    let urls = servers.iter().map(|server| server.url());
    let client = Client::builder().endpoints(urls).mode(registry.mode).build().unwrap();
    client.lease(TTL).await.unwrap()
}

/// Waits until the registry has been asked that.
async fn asked(registry: &Scripted, wanted: impl Fn(&Asked) -> bool) {
    let found = async {
        loop {
            if registry.asked.lock().unwrap().as_ref().is_some_and(&wanted) {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, found).await.expect("it was not asked");
}

#[tokio::test]
async fn a_lease_that_is_not_kept_alive_is_told_as_lost_and_stays_so() {
    let registry = Scripted::new(Mode::Cp);
    let server = server(&registry).await;
    *registry.kept.lock().unwrap() = Err(CommandFailure::Unknown(Reason::Timeout));
    let lease = lease(&registry, &[&server]).await;
    assert!(lease.is_held() && lease.remaining() <= TTL);
    assert_eq!(timeout(SOON, lease.lost()).await, Ok(Lost::Unrenewed));
    assert!(!lease.is_held() && lease.remaining().is_zero());
    says(&registry, kept(Vec::new(), false));
    sleep(Duration::from_millis(50)).await;
    assert!(!lease.is_held());
}

#[tokio::test]
async fn what_the_registry_has_ended_is_lost_at_once() {
    let registry = Scripted::new(Mode::Cp);
    let server = server(&registry).await;
    for refusal in [Refusal::LeaseExpired, Refusal::LeaseUnknown, Refusal::LeaseForeign] {
        says(&registry, Err(refusal));
        let lease = lease(&registry, &[&server]).await;
        assert_eq!(timeout(SOON, lease.lost()).await, Ok(Lost::Ended));
    }
}

#[tokio::test]
async fn a_server_that_has_not_heard_of_an_ap_lease_does_not_end_it() {
    let (knows_not, knows) = (Scripted::new(Mode::Ap), Scripted::new(Mode::Ap));
    let servers = [server(&knows_not).await, server(&knows).await];
    says(&knows_not, Err(Refusal::LeaseUnknown));
    says(&knows, kept(Vec::new(), false));
    let lease = lease(&knows_not, &[&servers[0], &servers[1]]).await;
    asked(&knows, |asked| matches!(asked, Asked::KeepAlive(keep) if keep.leases[0] == *lease.id())).await;
    assert!(lease.is_held());
    // Nobody knows it: that is no proof of its end either, until there is no time left.
    says(&knows, Err(Refusal::LeaseUnknown));
    assert_eq!(timeout(SOON, lease.lost()).await, Ok(Lost::Unrenewed));
}

#[tokio::test]
async fn what_is_bound_to_a_lease_that_moves_is_asserted_again() {
    let registry = Scripted::new(Mode::Ap);
    let server = server(&registry).await;
    says(&registry, kept(Vec::new(), false));
    let lease = lease(&registry, &[&server]).await;
    let client = Client::builder().endpoints([server.url()]).mode(Mode::Ap).build().unwrap();
    does(&registry, Outcome::Granted { entry: entry("a"), hides: None });
    lease.register(client.register("billing", "a").takeover()).await.unwrap();
    *registry.asked.lock().unwrap() = None;
    says(&registry, kept(Vec::new(), true));
    // Somebody else has got the name at the other node, and that is told; the takeover is not done again.
    does(&registry, Outcome::Refused(Refusal::NameTaken { current: entry("b") }));
    let loss = timeout(SOON, lease.next_loss()).await.unwrap();
    assert_eq!(loss, Loss::Taken { was: entry("a").holder, current: entry("b") });
    let again = registry.asked.lock().unwrap().clone();
    let Some(Asked::Command(Action::Register { owner, condition, lease: bound, .. })) = again else {
        // The next keep-alive may have come since; what it was asked before is told by the loss.
        return;
    };
    assert_eq!((owner.as_str(), condition, bound.as_ref()), ("a", Condition::Free, Some(lease.id())));
}

#[tokio::test]
async fn a_lost_name_is_told_until_it_was_heard() {
    let registry = Scripted::new(Mode::Ap);
    let server = server(&registry).await;
    let contender = |owner: &str| Contender { owner: owner.parse().unwrap(), token: token(5), node: 1 };
    let record = ConflictRecord {
        id: "c1".parse().unwrap(),
        name: "billing".parse().unwrap(),
        loser: contender("a"),
        winner: contender("b"),
        at: UnixMillis(1_600_000_000_000),
        acknowledged: false,
    };
    says(&registry, kept(vec![record.clone()], false));
    let lease = lease(&registry, &[&server]).await;
    let seen = |seen: &[&str]| {
        let seen = seen.iter().map(|id| id.parse().unwrap()).collect::<Vec<_>>();
        move |asked: &Asked| matches!(asked, Asked::KeepAlive(keep) if keep.seen == seen)
    };
    // Nobody has asked for it yet, so it is not said to have been seen.
    asked(&registry, seen(&[])).await;
    assert_eq!(timeout(SOON, lease.next_loss()).await, Ok(Loss::Record(record)));
    asked(&registry, seen(&["c1"])).await;
    // Once the registry knows, it is not told again.
    says(&registry, kept(Vec::new(), false));
    asked(&registry, seen(&[])).await;
    assert!(timeout(Duration::from_millis(100), lease.next_loss()).await.is_err());
    assert!(lease.is_held());
}

#[tokio::test]
async fn a_closed_lease_is_revoked() {
    let registry = Scripted::new(Mode::Cp);
    let server = server(&registry).await;
    says(&registry, kept(Vec::new(), false));
    let lease = lease(&registry, &[&server]).await;
    let id = lease.id().clone();
    does(&registry, Outcome::Ended(Ended::Now));
    assert_eq!(lease.close().await, Ok(Ended::Now));
    let last = registry.asked.lock().unwrap().clone();
    assert_eq!(last, Some(Asked::Command(Action::RevokeLease { lease: id, by: None })));
}

#[tokio::test]
async fn many_leases_are_kept_alive_in_one_call() {
    let registry = Scripted::new(Mode::Cp);
    let server = server(&registry).await;
    let client = Client::builder().endpoints([server.url()]).build().unwrap();
    let leases = ["l1", "l2"].map(|id| id.parse().unwrap());
    let results = vec![kept(Vec::new(), false), Err(Refusal::LeaseExpired)];
    *registry.kept.lock().unwrap() = Ok(reply(Mode::Cp, results.clone()));
    assert_eq!(client.keep_alive_each(&leases, &[]).await, Ok(results));
    let wanted = KeepAlive { leases: leases.to_vec(), seen: Vec::new(), by: None };
    assert_eq!(*registry.asked.lock().unwrap(), Some(Asked::KeepAlive(wanted)));
}
