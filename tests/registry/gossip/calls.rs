//! How calls are carried out over several nodes: batches, and how many nodes are to have a write before its answer.

use quorate::gossip::Flaws;
use quorate::model::command::{Action, Condition};
use quorate::model::outcome::{Ended, Outcome, Refusal};
use quorate::registry::{CommandCall, Registry, Reply};

use super::nodes::{Cluster, granted, register, soon, unregister};

async fn batch(cluster: &Cluster, node: u64, actions: Vec<Action>, acks: usize) -> Reply<Vec<Outcome>> {
    let call = CommandCall { deadline: soon(), forward: true, acks };
    cluster.nodes[&node].gossip.registry.batch(actions, &call).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_carried_out_in_order_and_counts_the_nodes_that_have_all_of_it() {
    let cluster = Cluster::start(3, Flaws::default()).await;
    // Of another run than the batch's own, which the count has to look at too.
    granted(cluster.register(2, "held", "h").await);
    cluster.wait("node 1 sees it", |cluster| async { cluster.owner(1, "held").await.is_some() }).await;
    let takeover = Action::Register {
        name: "x".parse().unwrap(),
        owner: "second".parse().unwrap(),
        meta: "{}".parse().unwrap(),
        lease: None,
        condition: Condition::Takeover,
    };
    let actions = vec![
        register("x", "first"),
        register("x", "second"),
        takeover,
        unregister("nobody", None),
        unregister("x", None),
        register("y", "z"),
        register("held", "h"),
    ];
    let reply = batch(&cluster, 1, actions, 3).await;
    let [first, taken, second, absent, ended, last, held] = &reply.value[..] else { panic!("{reply:?}") };
    assert!(matches!(first, Outcome::Granted { .. }), "{first:?}");
    assert!(matches!(taken, Outcome::Refused(Refusal::NameTaken { .. })), "one that is refused stops none: {taken:?}");
    assert!(matches!(second, Outcome::Granted { .. }), "{second:?}");
    assert_eq!(*absent, Outcome::Refused(Refusal::NotFound));
    assert_eq!(*ended, Outcome::Ended(Ended::Now));
    assert!(matches!(last, Outcome::Granted { .. }), "{last:?}");
    assert!(matches!(held, Outcome::Held { .. }), "{held:?}");
    assert_eq!(reply.provenance.acks, Some((3, 3)));
    // Whoever is told three has it on three.
    assert!(cluster.all_say("y", Some("z")).await && cluster.all_say("x", None).await);

    let refused = batch(&cluster, 1, vec![unregister("nobody", None)], 3).await;
    assert_eq!(refused.provenance.acks, Some((1, 3)), "nothing was done, so nothing was confirmed");
    let alone = batch(&cluster, 1, Vec::new(), 1).await;
    assert_eq!((alone.value.len(), alone.provenance.acks), (0, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a8_fewer_nodes_than_asked_for_is_the_same_outcome_with_the_count() {
    let cluster = Cluster::start(3, Flaws::default()).await;
    cluster.cut(&[&[1, 2], &[3]]);
    cluster.wait("node 3 is given up", |cluster| async { cluster.all_down(1, &[3]) }).await;
    let reply = cluster.execute(1, register("x", "o"), 3).await;
    assert!(matches!(reply.value, Outcome::Granted { .. }), "{reply:?}");
    assert_eq!(reply.provenance.acks, Some((2, 3)));
    let reply = batch(&cluster, 3, vec![register("y", "o")], 2).await;
    assert_eq!(reply.provenance.acks, Some((1, 2)));
    assert!(matches!(reply.value[..], [Outcome::Granted { .. }]));
}
