//! Messages between real links: who gets them, who does not, and what is said of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use quorate::messages::{Address, Delivery, Inbox, Messages};
use quorate::model::command::{Action, Condition};
use quorate::model::ident::{Meta, Mode, NodeId, Token};
use quorate::model::outcome::Outcome;
use quorate::net::fault::{Direction, FaultTable, LinkFault};
use quorate::net::links::{Identity, Links};
use quorate::net::wire::RealWire;
use quorate::post::PostOffice;
use quorate::registry::{CommandCall, CommandFailure, Reason, Registry};
use tokio::time::timeout;

use super::reference::Reference;

const SOON: Duration = Duration::from_secs(20);
const BRIEFLY: Duration = Duration::from_millis(150);

struct Node {
    registry: Arc<Reference>,
    links: Links,
    post: PostOffice,
}

impl Node {
    async fn send(&self, to: &Address, text: &str) -> Option<u64> {
        let deadline = Instant::now() + SOON;
        self.post.send(Mode::Cp, to.clone(), text.into(), deadline).await.unwrap().value
    }

    /// Sends until so many inboxes have it: the lines come about by themselves. Every attempt is told apart.
    async fn send_until(&self, to: &Address, receivers: u64) -> String {
        let end = Instant::now() + SOON;
        for attempt in 0.. {
            let text = format!("{attempt}");
            if self.send(to, &text).await == Some(receivers) {
                return text;
            }
            assert!(Instant::now() < end, "never {receivers} receivers");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        unreachable!()
    }

    async fn execute(&self, action: Action) -> Token {
        let call = CommandCall { deadline: Instant::now() + SOON, forward: true, acks: 1 };
        match self.registry.execute(action, &call).await.unwrap().value {
            Outcome::Granted { entry, .. } | Outcome::Held { entry } => entry.token,
            Outcome::Ended(_) => Token::Cp(0),
            other => panic!("{other:?}"),
        }
    }
}

/// Three nodes; all look at the first one's table unless `apart`.
async fn nodes(apart: bool) -> Vec<Node> {
    let registries = [(); 3].map(|()| Arc::new(Reference::default()));
    let mut all = Vec::new();
    for node in 1..=3u64 {
        let me = Identity { cluster: "test".into(), node, run: node * 100, policy: "oldest".into() };
        let at = "127.0.0.1:0".parse().unwrap();
        all.push(Links::bind(Arc::new(RealWire), me, at, FaultTable::new(node)).await.unwrap());
    }
    let members = (1..).zip(all.iter().map(|links| links.local_addr().to_string())).collect::<BTreeMap<NodeId, _>>();
    let start = |(at, links): (usize, Links)| {
        let registry = if apart { registries[at].clone() } else { registries[0].clone() };
        let members = members.clone();
        let post = PostOffice::start(registry.clone(), registry.clone(), links.clone(), move || members.clone());
        Node { registry, links, post }
    };
    all.into_iter().enumerate().map(start).collect()
}

fn register(name: &str, owner: &str) -> Action {
    Action::Register {
        name: name.parse().unwrap(),
        owner: owner.parse().unwrap(),
        meta: Meta::empty(),
        lease: None,
        condition: Condition::Takeover,
    }
}

fn join(group: &str, member: &str) -> Action {
    let (group, member) = (group.parse().unwrap(), member.parse().unwrap());
    Action::Join { group, member, meta: Meta::empty(), lease: None }
}

/// Reads up to the message with this text; what came before it.
async fn read_to(inbox: &mut Inbox, text: &str) -> Vec<String> {
    let mut before = Vec::new();
    loop {
        match timeout(SOON, inbox.next()).await.expect("a message") {
            Delivery::Letter(letter) if &*letter.text == text => return before,
            Delivery::Letter(letter) => before.push(letter.text.to_string()),
            Delivery::Gap(lost) => panic!("{lost} lost"),
        }
    }
}

async fn is_silent(inbox: &mut Inbox) -> bool {
    timeout(BRIEFLY, inbox.next()).await.is_err()
}

#[tokio::test]
async fn a_message_reaches_every_inbox_of_the_owner_on_any_node_once() {
    let nodes = nodes(false).await;
    let name = Address::Name("n".parse().unwrap());
    assert_eq!(nodes[0].send(&name, "1").await, None, "nobody holds the name");
    nodes[0].execute(register("n", "a")).await;
    assert_eq!(nodes[0].send(&name, "1").await, Some(0), "nobody reads");
    let mut here = nodes[0].post.open(Mode::Cp, "a");
    let mut there = [nodes[1].post.open(Mode::Cp, "a"), nodes[2].post.open(Mode::Cp, "a")];
    let mut stranger = nodes[1].post.open(Mode::Cp, "b");
    let last = nodes[0].send_until(&name, 3).await;
    read_to(&mut here, &last).await;
    for inbox in &mut there {
        read_to(inbox, &last).await;
        assert!(is_silent(inbox).await, "it came twice");
    }
    assert!(is_silent(&mut here).await && is_silent(&mut stranger).await);
}

#[tokio::test]
async fn a_group_of_more_than_a_page_gets_it_whole() {
    let nodes = nodes(false).await;
    for at in 0..1_200 {
        nodes[0].execute(join("g", &format!("m{at:04}"))).await;
    }
    let mut first = nodes[1].post.open(Mode::Cp, "m0000");
    let mut last = nodes[2].post.open(Mode::Cp, "m1199");
    let group = Address::Group("g".parse().unwrap());
    let text = nodes[0].send_until(&group, 2).await;
    read_to(&mut first, &text).await;
    read_to(&mut last, &text).await;
    assert_eq!(nodes[0].send(&Address::Group("none".parse().unwrap()), "1").await, Some(0));
}

/// Protocol A12: a node that knows more than the sender does not deliver to whoever has given the name up.
#[tokio::test]
async fn a_message_to_a_grant_that_has_ended_is_dropped_where_that_is_known() {
    let nodes = nodes(true).await;
    let name = Address::Name("n".parse().unwrap());
    for node in &nodes {
        node.execute(register("n", "a")).await;
    }
    let mut inbox = nodes[1].post.open(Mode::Cp, "a");
    let text = nodes[0].send_until(&name, 1).await;
    read_to(&mut inbox, &text).await;
    // The first node has not heard of the takeover yet.
    nodes[1].execute(register("n", "b")).await;
    assert_eq!(nodes[0].send(&name, "late").await, Some(0));
    assert!(is_silent(&mut inbox).await);
}

#[tokio::test]
async fn what_was_sent_into_a_cut_does_not_arrive_after_the_heal() {
    let nodes = nodes(false).await;
    let name = Address::Name("n".parse().unwrap());
    nodes[0].execute(register("n", "a")).await;
    let mut inbox = nodes[1].post.open(Mode::Cp, "a");
    let text = nodes[0].send_until(&name, 1).await;
    read_to(&mut inbox, &text).await;
    let cut = LinkFault { drop: true, ..LinkFault::default() };
    nodes[0].links.faults().set([((2, Direction::Outgoing), cut)]);
    let began = Instant::now();
    assert_eq!(nodes[0].send(&name, "stale").await, Some(0));
    assert!(began.elapsed() < SOON / 2, "a cut peer held the sender up");
    // Only once the connection is given up is the message lost for good.
    tokio::time::sleep(Duration::from_secs(1)).await;
    nodes[0].links.faults().set([]);
    let text = nodes[0].send_until(&name, 1).await;
    let before = read_to(&mut inbox, &text).await;
    assert!(!before.contains(&"stale".to_owned()), "{before:?}");
}

#[tokio::test]
async fn a_sender_that_cannot_find_out_who_it_is_for_sends_nothing() {
    let nodes = nodes(true).await;
    let name = Address::Name("n".parse().unwrap());
    nodes[0].execute(register("n", "a")).await;
    let mut inbox = nodes[0].post.open(Mode::Cp, "a");
    nodes[0].registry.cut_off.store(true, Ordering::Relaxed);
    let sent = nodes[0].post.send(Mode::Cp, name, "1".into(), Instant::now() + SOON).await;
    assert_eq!(sent, Err(CommandFailure::NotApplied(Reason::NoQuorum)));
    assert!(is_silent(&mut inbox).await);
}
