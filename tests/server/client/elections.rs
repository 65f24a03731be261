//! Elections and groups against real nodes.

use std::time::Duration;

use quorate::client::client::Client;
use quorate::client::election::{Election, LostName};
use quorate::client::group::Group;
use quorate::client::lease::{Loss, Lost};
use quorate::model::ident::Mode;
use quorate::model::outcome::{Ended, Refusal};
use quorate::model::query::Page;
use tokio::time::timeout;

use crate::nodes::Nodes;

const SOON: Duration = Duration::from_secs(30);
const TTL: Duration = Duration::from_secs(20);

fn client(nodes: &Nodes, mode: Mode) -> Client {
    let urls = nodes.ports.iter().map(|(http, _)| format!("http://127.0.0.1:{http}"));
    Client::builder().endpoints(urls).mode(mode).timeout(Duration::from_secs(10)).build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_holds_a_name_at_a_time_and_the_next_has_it_at_once() {
    let nodes = Nodes::start(1, &[]);
    for mode in Mode::ALL {
        let client = client(&nodes, mode);
        let election = |owner: &str| Election::new(&client, "leader", owner).unwrap().ttl(TTL);
        let first = election("a").campaign().await.unwrap();
        let taken = election("b").try_now().await.unwrap_err();
        assert!(matches!(taken.refusal(), Some(Refusal::NameTaken { current }) if current.token == first.token()));
        // Of the lease of the one that tried nothing is left.
        assert_eq!(client.leases(Page::default()).await.unwrap().items.len(), 1);
        let next = tokio::spawn({
            let election = election("b");
            async move { election.campaign().await }
        });
        assert!(first.is_held() && first.remaining() > Duration::ZERO);
        let token = first.token();
        assert_eq!(first.resign().await, Ok(Ended::Now));
        // Well before the lease would have ended by itself.
        let next = timeout(SOON, next).await.unwrap().unwrap().unwrap();
        assert!(next.token() > token);
        next.resign().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_robbed_of_a_name_is_told() {
    let nodes = Nodes::start(1, &[]);
    let client = client(&nodes, Mode::Cp);
    let held = Election::new(&client, "leader", "a").unwrap().ttl(Duration::from_secs(3)).campaign().await.unwrap();
    client.register("leader", "thief").takeover().send().await.unwrap();
    let lost = timeout(SOON, held.lost()).await.unwrap();
    let LostName::Taken(loss) = lost else { panic!("{lost:?}") };
    assert!(matches!(*loss, Loss::Record(record) if record.winner.owner.as_str() == "thief"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_lives_while_it_is_kept_and_ends_all_that_is_bound_to_it() {
    let nodes = Nodes::start(2, &[]);
    for mode in Mode::ALL {
        let client = client(&nodes, mode);
        let lease = client.lease(Duration::from_secs(3)).await.unwrap();
        lease.register(client.register("bound", "a")).await.unwrap();
        let granted = lease.join(client.join("group", "a")).await.unwrap();
        // Longer than it would live by itself.
        assert!(timeout(Duration::from_secs(4), lease.lost()).await.is_err());
        assert!(lease.is_held());
        assert_eq!(client.whereis("bound").await.unwrap().unwrap().lease.as_ref(), Some(lease.id()));
        let status = client.lease_status(lease.id(), Page::default()).await.unwrap().unwrap();
        assert_eq!(status.entries.len(), 2);
        assert_eq!(lease.release(&granted).await, Ok(Ended::Now));
        let id = lease.id().clone();
        lease.close().await.unwrap();
        assert_eq!(client.whereis("bound").await, Ok(None));
        assert_eq!(client.lease_status(&id, Page::default()).await, Ok(None));
        // Revoked by somebody else, it is told as ended.
        let lease = client.lease(Duration::from_secs(3)).await.unwrap();
        client.revoke_lease(lease.id()).await.unwrap();
        let lost = timeout(SOON, lease.lost()).await.unwrap();
        assert!(matches!(lost, Lost::Ended | Lost::Unrenewed), "{lost}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_in_its_group_as_long_as_it_stays() {
    let nodes = Nodes::start(1, &[]);
    for mode in Mode::ALL {
        let client = client(&nodes, mode);
        let group = Group::new(&client, "room").unwrap();
        let member = group.join("alice", r#"{"typing":true}"#, TTL).await.unwrap();
        let members = group.members().await.unwrap();
        assert_eq!(members, [member.entry().clone()]);
        assert_eq!(members[0].meta.as_str(), r#"{"typing":true}"#);
        member.leave().await.unwrap();
        assert_eq!(group.members().await, Ok(Vec::new()));
    }
}
