//! One network namespace per node, joined by a bridge: links that the kernel cuts, with nothing of ours in the way.
//!
//! This process moves into a namespace of its own first ([`own_network`]); bridge and links are made there, so that the machine's own
//! interfaces and packet filter are never touched. Nothing has a name outside of this process: all of it goes when the process
//! and the nodes that it started have gone, however they end. The referee's clients sit on the bridge and reach every node, cut
//! off or not.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::spaces::Space;
use crate::model::ident::NodeId;
use crate::referee::client::Reach;
use crate::referee::schedule::Harm;
use crate::referee::situation::Links;

pub use super::spaces::own_network;

/// The network that the nodes share. It exists nowhere else, so it cannot collide with another.
const NET: [u8; 3] = [10, 75, 0];
/// The referee's own address on the bridge.
const REFEREE: u8 = 254;
/// How long a link may take to carry a sign of life and its echo.
const PROBE_WAIT: Duration = Duration::from_millis(400);
/// A datagram may be lost by a busy machine; one of so many will come through.
const DATAGRAMS: u32 = 4;

/// The namespaces, one a node.
pub struct Network {
    spaces: BTreeMap<NodeId, Space>,
}

/// Why there can be no namespaces here, with what would mend it; None if there can.
pub fn missing() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("network namespaces are Linux's; --net loopback works here".to_owned());
    }
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces take root: run it by sudo, or choose --net loopback".to_owned());
    }
    for (tool, package) in [("ip", "iproute2"), ("nft", "nftables")] {
        if !super::installed(tool) {
            return Some(format!("the program {tool} is not installed: apt-get install {package}"));
        }
    }
    None
}

/// Why the kernel cannot do this to links; None if it can, or if it is not about links.
pub fn cannot(harm: &Harm) -> Option<String> {
    match harm {
        Harm::Delay { .. } => Some("between namespaces links are not delayed; choose --net loopback".to_owned()),
        _ => None,
    }
}

impl Network {
    /// Makes namespaces for the nodes 1, 2, …, `nodes`, with all links whole. To be called after [`own_network`].
    pub fn new(nodes: usize) -> anyhow::Result<Self> {
        let last = u8::try_from(nodes).ok().filter(|last| *last < REFEREE).context("too many nodes for one network")?;
        let mut here = vec![
            "link set lo up".to_owned(),
            "link add br0 type bridge".to_owned(),
            format!("addr add {}/24 dev br0", address(REFEREE)),
            "link set br0 up".to_owned(),
        ];
        ip(None, &here).context("cannot make a bridge")?;
        here.clear();
        let mut spaces = BTreeMap::new();
        for number in 1..=last {
            let space = Space::new().context("cannot make a network namespace")?;
            let there = [
                "link set lo up".to_owned(),
                format!("link add eth0 type veth peer name node{number} netns {}", std::process::id()),
                format!("addr add {}/24 dev eth0", address(number)),
                "link set eth0 up".to_owned(),
            ];
            ip(Some(&space), &there).with_context(|| format!("cannot make the link of node {number}"))?;
            here.extend([format!("link set node{number} master br0"), format!("link set node{number} up")]);
            spaces.insert(NodeId::from(number), space);
        }
        ip(None, &here).context("cannot join the links to the bridge")?;
        Ok(Self { spaces })
    }

    /// Where a node is reached, by the other nodes and by the referee.
    pub fn addr(&self, node: NodeId) -> Ipv4Addr {
        debug_assert!(self.spaces.contains_key(&node), "there is no node {node}");
        address(u8::try_from(node).unwrap_or(REFEREE))
    }

    /// Has a child begin in the node's namespace.
    pub fn enter(&self, node: NodeId, command: &mut Command) {
        if let Some(space) = self.spaces.get(&node) {
            space.enter(command);
        }
    }

    /// A connection as a program of the node's own would make it, through what is in force.
    pub async fn dial(&self, from: NodeId, to: SocketAddr) -> io::Result<TcpStream> {
        let space = self.spaces.get(&from).cloned().ok_or(io::ErrorKind::NotFound)?;
        let socket = tokio::task::spawn_blocking(move || space.within(TcpSocket::new_v4));
        socket.await.map_err(io::Error::other)??.connect(to).await
    }

    /// Puts exactly this in force, but for delays. The kernel drops at the receiver: what the sender has sent before is dropped, too.
    pub async fn set(&self, links: &Links) -> anyhow::Result<()> {
        let mut tasks = JoinSet::new();
        for (node, space) in &self.spaces {
            let (node, space, rules) = (*node, space.clone(), rules(*node, links));
            tasks.spawn_blocking(move || {
                let mut nft = Command::new("nft");
                nft.args(["-f", "-"]);
                space.enter(&mut nft);
                feed(nft, &rules).with_context(|| format!("the links of node {node}"))
            });
        }
        tasks.join_all().await.into_iter().collect()
    }

    /// Which peers a node reaches over TCP and UDP both ways, and who hears it. Asked by sockets of the referee's own in the nodes'
    /// namespaces: it tells of the links, whether or not the nodes themselves run.
    pub async fn reached(&self, node: NodeId, deadline: Instant) -> anyhow::Result<Reach> {
        let end = tokio::time::Instant::from_std(deadline.min(Instant::now() + PROBE_WAIT));
        let space = self.spaces.get(&node).ok_or_else(|| anyhow!("there is no node {node}"))?;
        let own = self.addr(node);
        let mut tasks = JoinSet::new();
        for (peer, there) in self.spaces.iter().filter(|(peer, _)| **peer != node) {
            let (peer, addr) = (*peer, self.addr(*peer));
            let theirs = ends(there, addr).await?;
            let ours = ends(space, own).await?;
            tasks.spawn(async move { (peer, try_link(ours, theirs, end).await) });
        }
        let mut reach = Reach { heard_by: Some(BTreeSet::new()), ..Reach::default() };
        for (peer, tried) in tasks.join_all().await {
            let tried = tried?;
            match (tried.tcp, tried.udp) {
                (true, true) => drop(reach.fully.insert(peer)),
                (true, false) | (false, true) => drop(reach.partly.insert(peer)),
                (false, false) => {}
            }
            if tried.heard {
                reach.heard_by.get_or_insert_default().insert(peer);
            }
        }
        Ok(reach)
    }
}

struct Ends {
    addr: Ipv4Addr,
    udp: UdpSocket,
    listener: TcpListener,
    caller: TcpSocket,
}

async fn ends(space: &Space, addr: Ipv4Addr) -> anyhow::Result<Ends> {
    let space = space.clone();
    let made = tokio::task::spawn_blocking(move || {
        space.within(move || {
            let udp = std::net::UdpSocket::bind((addr, 0))?;
            let listener = std::net::TcpListener::bind((addr, 0))?;
            udp.set_nonblocking(true)?;
            listener.set_nonblocking(true)?;
            Ok((udp, listener, TcpSocket::new_v4()?))
        })
    });
    let (udp, listener, caller) = made.await?.context("cannot make sockets to probe with")?;
    Ok(Ends { addr, udp: UdpSocket::from_std(udp)?, listener: TcpListener::from_std(listener)?, caller })
}

struct Tried {
    tcp: bool,
    udp: bool,
    /// A datagram arrived, whether or not its echo did.
    heard: bool,
}

async fn try_link(ours: Ends, theirs: Ends, end: tokio::time::Instant) -> io::Result<Tried> {
    let (udp, tcp) = (theirs.udp.local_addr()?, theirs.listener.local_addr()?);
    debug_assert_eq!(udp.ip(), theirs.addr);
    let own: SocketAddr = (ours.addr, 0).into();
    let dial = async {
        ours.caller.bind(own).ok()?;
        timeout_at(end, ours.caller.connect(tcp)).await.ok()?.ok()
    };
    let (heard, heard_now) = tokio::sync::watch::channel(false);
    let echo = async {
        let mut datagram = [0; 8];
        while let Ok(Ok((_, from))) = timeout_at(end, theirs.udp.recv_from(&mut datagram)).await {
            heard.send_replace(true);
            let _ = theirs.udp.send_to(&datagram, from).await;
        }
    };
    let ping = async {
        let mut datagram = [0; 8];
        for left in (1..=DATAGRAMS).rev() {
            // A link that refuses (no route, say) is as good as one that loses.
            let _ = ours.udp.send_to(b"quorate?", udp).await;
            let now = tokio::time::Instant::now();
            let wait = now + end.saturating_duration_since(now) / left;
            if matches!(timeout_at(wait, ours.udp.recv_from(&mut datagram)).await, Ok(Ok(_))) {
                return true;
            }
        }
        false
    };
    let udp = async {
        tokio::select! {
            came = ping => came,
            () = echo => false,
        }
    };
    let (dialled, udp) = tokio::join!(dial, udp);
    let heard = *heard_now.borrow();
    Ok(Tried { tcp: dialled.is_some(), udp, heard })
}

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(NET[0], NET[1], NET[2], last)
}

/// What the packet filter of one node is told.
fn rules(node: NodeId, links: &Links) -> String {
    let host = |node: NodeId| address(u8::try_from(node).unwrap_or(REFEREE));
    let cut = links.cut.iter().filter(|(_, to)| *to == node);
    let mut rules = cut.map(|(from, _)| format!("ip saddr {} drop\n", host(*from))).collect::<String>();
    for ((from, _), percent) in links.loss.iter().filter(|((_, to), _)| *to == node) {
        rules += &format!("ip saddr {} numgen random mod 100 < {percent} drop\n", host(*from));
    }
    format!(
        "flush ruleset\ntable ip quorate {{\nchain input {{\ntype filter hook input priority filter; policy accept;\n{rules}}}\n}}\n"
    )
}

/// Has `ip` carry the lines out, in a namespace or in this process's.
fn ip(space: Option<&Space>, lines: &[String]) -> anyhow::Result<()> {
    let mut ip = Command::new("ip");
    ip.args(["-batch", "-"]);
    if let Some(space) = space {
        space.enter(&mut ip);
    }
    feed(ip, &(lines.join("\n") + "\n"))
}

/// Runs a program on the input; what it says is the error when it does not succeed.
fn feed(mut command: Command, input: &str) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    // Closed at once, so that it sees the end. One that ends before it has read all says why below.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let done = child.wait_with_output()?;
    if !done.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receiver_drops_what_a_cut_link_carries_and_no_other() {
        let (cut, loss) = ([(1, 2), (3, 2), (2, 1)].into(), [((1, 3), 20)].into());
        let links = Links { cut, loss, ..Links::default() };
        let drops = |node| rules(node, &links).lines().filter(|line| line.ends_with("drop")).count();
        assert_eq!([1, 2, 3, 4].map(drops), [1, 2, 1, 0]);
        assert!(rules(2, &links).contains("ip saddr 10.75.0.3 drop"));
        assert!(rules(3, &links).contains("ip saddr 10.75.0.1 numgen random mod 100 < 20 drop"));
    }
}
