//! How calls are carried out over several nodes: batches, how many nodes are to have a write, what a read waits for.

use std::time::{Duration, Instant};

use quorate::gossip::Flaws;
use quorate::model::command::{Action, Condition};
use quorate::model::event::Filter;
use quorate::model::ident::Revision;
use quorate::model::outcome::{Ended, Outcome, Refusal};
use quorate::model::query::{Answer, Query};
use quorate::registry::{
    CommandCall, Consistency, Position, QueryCall, QueryFailure, Reason, Registry, Reply, Told, Watch,
};

use super::nodes::{Cluster, granted, register, soon, unregister, whereis};

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

#[tokio::test(flavor = "multi_thread")]
async fn a9_a_grant_of_another_home_is_ended_and_changed_here_and_now() {
    let cluster = Cluster::start(2, Flaws::default()).await;
    let theirs = granted(cluster.register(1, "x", "o").await);
    cluster.wait("node 2 sees it", |cluster| async { cluster.owner(2, "x").await.is_some() }).await;
    cluster.cut(&[&[1], &[2]]);
    // Nothing is passed on: the other node does not even answer.
    let changed = cluster.execute(
        2,
        Action::Register {
            name: "x".parse().unwrap(),
            owner: "o".parse().unwrap(),
            meta: "{\"at\":2}".parse().unwrap(),
            lease: None,
            condition: Condition::Token(theirs.token),
        },
        1,
    );
    let Outcome::Held { entry } = changed.await.value else { panic!("the same owner holds it") };
    assert_eq!(
        (entry.meta.as_str(), entry.token),
        ("{\"at\":2}", theirs.token),
        "a reply shows the caller's own write"
    );
    let ended = cluster.execute(2, unregister("x", Some(theirs.token)), 1).await;
    assert_eq!(ended.value, Outcome::Ended(Ended::Now));
    assert_eq!(cluster.owner(2, "x").await, None);
    cluster.heal();
    cluster.wait("it has ended everywhere", |cluster| cluster.all_say("x", None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a11_a_revision_that_cannot_come_is_refused_with_the_one_reached() {
    let cluster = Cluster::start(2, Flaws::default()).await;
    cluster.cut(&[&[1], &[2]]);
    let ahead = cluster.execute(1, register("x", "o"), 1).await.revision;
    let call = |revision: Revision, patience| QueryCall {
        min_revision: Some(revision),
        ..QueryCall::new(Instant::now() + patience, Consistency::Local)
    };
    let registry = &cluster.nodes[&2].gossip.registry;
    let behind = registry.query(whereis("x"), &call(ahead.clone(), Duration::from_millis(100))).await;
    let Err(QueryFailure(Reason::Behind { applied })) = behind else { panic!("{behind:?}") };
    assert_ne!(applied, ahead);
    let reached = registry.query(whereis("x"), &call(applied, Duration::from_secs(20))).await.unwrap();
    assert_eq!(reached.value, Answer::Refused(Refusal::NotFound), "what it has reached, it has");
    cluster.heal();
    let come = registry.query(whereis("x"), &call(ahead, Duration::from_secs(20))).await.unwrap();
    assert!(matches!(come.value, Answer::Entry(_)), "after the heal it comes: {come:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a8_a_watch_and_a_read_of_several_nodes_agree_on_how_far_they_are() {
    let cluster = Cluster::start(3, Flaws::default()).await;
    let watch = Watch { filter: Filter::default(), from: Position::Now, initial: true };
    cluster.execute(1, register("x", "o"), 3).await;
    let mut reader = cluster.nodes[&2].gossip.registry.watch(watch, soon()).await.unwrap();
    let position = loop {
        let message = reader.next().await.unwrap();
        if message.told == Told::Synced {
            break message.position.unwrap();
        }
    };
    // A watch's position is a revision like any other: a read elsewhere can wait for it.
    let call = QueryCall { min_revision: Some(position), ..QueryCall::new(soon(), Consistency::Quorum(2)) };
    let query = Query::Whereis { name: "x".parse().unwrap(), token: None };
    let read = cluster.nodes[&3].gossip.registry.query(query, &call).await.unwrap();
    assert!(matches!(read.value, Answer::Entry(_)), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_was_never_told_is_known_from_one_that_has_not_come_here() {
    let cluster = Cluster::start(2, Flaws::default()).await;
    let entry = granted(cluster.register(1, "x", "o").await);
    let told = cluster.execute(1, register("y", "o"), 1).await.revision;
    let registry = &cluster.nodes[&2].gossip.registry;
    for revision in [entry.revision, told, Revision::Ap("1.2.3.4".into())] {
        assert!(registry.may_have_told(&revision), "{revision}");
    }
    // The last one is of the other mode.
    for text in ["abc", "a.b.c", "1109"] {
        assert!(!registry.may_have_told(&Revision::Ap(text.into())), "{text}");
    }
}
