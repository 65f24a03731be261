//! Erlang's own registries, `global` (names) and `pg` (groups), on real BEAM nodes: OTP does the work, and `registry_node.erl`
//! answers the door.
//!
//! An owner is a process there. A client first has one made at its node, then has it registered, and the referee keeps in mind whose
//! process is whose, so that one whose registration was never answered can be told when it shows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use async_trait::async_trait;
use rand::RngExt;
use serde::Deserialize;
use serde_json::json;

use super::Place;
use super::process::Line;
use super::rival::{self, Api, Rival, Servers, left, made};
use crate::client::call::{Caller, CommandError};
use crate::model::ident::NodeId;
use crate::referee::client::{Abilities, Client, Completion, Promises, Running, System};
use crate::referee::history::{Found, Joined, Membership, Registered, Unregistered, View, What};
use crate::wire::path::quote;

/// Compiled when the system starts.
const SOURCE: &str = include_str!("registry_node.erl");
const MODULE: &str = "registry_node";
/// OTP's own 60 s and 7 s would see nothing of a cut of seconds: a lost node is noticed after 0.75 to 1.25 of the one, and each
/// attempt to dial it takes the other.
const TICK_S: u32 = 1;
const SETUP_S: u32 = 1;
/// How often the variant that dials again does so.
const REDIAL_MS: u32 = 500;
/// Where nodes listen for each other, and for clients. Each has an address of its own, so that no port mapper is needed.
const PORTS: (u16, u16) = (9100, 9101);
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Which of OTP's registries is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registry {
    Global,
    Pg,
}

/// How OTP is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    pub registry: Registry,
    /// Whether OTP cuts healthy links so that partitions do not overlap: its own setting since OTP 25.
    pub prevent_overlap: bool,
    /// Whether somebody dials the nodes that were lost: OTP itself does not.
    pub redial: bool,
}

/// The systems `erlang-global`, its variants, and `erlang-pg`.
pub struct Erlang {
    name: String,
    setup: Setup,
    place: Place,
}

impl Erlang {
    pub fn new(name: &str, setup: Setup, place: &Place) -> Self {
        Self { name: name.to_owned(), setup, place: Place { dir: place.dir.join(name), ..place.clone() } }
    }

    fn addresses(&self, nodes: &[NodeId]) -> BTreeMap<NodeId, Ipv4Addr> {
        let mut chance = rand::rng();
        // Everything below 127 is this machine; two runs at once keep out of each other's way.
        let (a, b) = (chance.random_range(16..240), chance.random_range(1..255));
        let at = |node: NodeId| match &self.place.net {
            Some(net) => net.addr(node),
            None => Ipv4Addr::new(127, a, b, u8::try_from(node).unwrap_or(255)),
        };
        nodes.iter().map(|node| (*node, at(*node))).collect()
    }

    fn line(&self, node: NodeId, addrs: &BTreeMap<NodeId, Ipv4Addr>) -> Line {
        let addr = addrs[&node];
        let octets = addr.octets().map(|octet| octet.to_string()).join(",");
        let peers = addrs.iter().map(|(node, addr)| node_name(*node, *addr)).collect::<Vec<_>>().join(",");
        let redial = if self.setup.redial { REDIAL_MS } else { 0 };
        let text = format!(
            "-noshell -noinput +sbwt none -name {name} -setcookie quorate -start_epmd false -erl_epmd_port {dist} \
             -kernel inet_dist_use_interface {{{octets}}} -kernel net_ticktime {TICK_S} -kernel net_setuptime {SETUP_S} \
             -kernel prevent_overlapping_partitions {prevent} -pa {dir} -run {MODULE} start {addr} {http} {redial} {peers}",
            name = node_name(node, addr),
            dist = PORTS.0,
            http = PORTS.1,
            prevent = self.setup.prevent_overlap,
            dir = "%",
        );
        // The directory may have blanks in its name.
        let dir = self.place.dir.display().to_string();
        let args = text.split(' ').map(|word| if word == "%" { dir.clone() } else { word.to_owned() }).collect();
        let log = self.place.dir.join(format!("node-{node}.log"));
        Line { env: vec![("HOME", dir)], ..Line::new("erl", args, log) }
    }
}

fn node_name(node: NodeId, addr: Ipv4Addr) -> String {
    format!("n{node}@{addr}")
}

/// Compiles the program that each node runs.
fn compile(dir: &Path) -> anyhow::Result<()> {
    let source = dir.join(format!("{MODULE}.erl"));
    fs::write(&source, SOURCE)?;
    let done = Command::new("erlc").arg("-o").arg(dir).arg(&source).output().context("cannot start erlc")?;
    if !done.status.success() {
        bail!("erlc: {}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}

#[async_trait]
impl System for Erlang {
    fn name(&self) -> &str {
        &self.name
    }

    /// The documentation of `global`: for any change of the name table all tables on other nodes are updated. That of `pg`:
    /// membership is eventually consistent, and joining is a local matter.
    fn promises(&self) -> Promises {
        Promises { available: self.setup.registry == Registry::Pg, converges: true, ..Promises::NONE }
    }

    /// What tells one registration from another is no number that rises, so it is no fencing token.
    fn abilities(&self) -> Abilities {
        match self.setup.registry {
            Registry::Global => Abilities::NAMES,
            Registry::Pg => Abilities::GROUPS,
        }
    }

    fn missing(&self) -> Option<String> {
        if self.place.net.is_none() && !cfg!(target_os = "linux") {
            return Some("its nodes need addresses of their own, which loopback has on Linux alone".to_owned());
        }
        rival::lacking(&["erl", "erlc"], "erlang-base")
    }

    async fn start(&self, nodes: usize, _seed: u64) -> anyhow::Result<Box<dyn Running>> {
        let nodes = (1..=nodes as NodeId).collect::<Vec<_>>();
        let dir = made(self.place.dir.clone())?;
        tokio::task::spawn_blocking(move || compile(&dir)).await??;
        let addrs = self.addresses(&nodes);
        let mut servers = Servers::new(self.place.net.clone(), None)?;
        let mut callers = BTreeMap::new();
        for (node, addr) in &addrs {
            servers.add(*node, self.line(*node, &addrs), self.place.dir.join(format!("node-{node}")));
            callers.insert(*node, Arc::new(Caller::new(&format!("http://{addr}:{}", PORTS.1))?));
        }
        servers.start_all().await?;
        let (whose, whole) = (Arc::default(), AtomicBool::new(false));
        let rival = Rival { servers, api: ErlangApi { callers, setup: self.setup, whose, whole } }.whole().await?;
        // From now on a node that comes back may find others cut off.
        rival.api.whole.store(true, Ordering::Relaxed);
        Ok(Box::new(rival))
    }
}

/// Which owner or member a process stands for.
type Whose = Arc<Mutex<HashMap<String, String>>>;

struct ErlangApi {
    callers: BTreeMap<NodeId, Arc<Caller>>,
    setup: Setup,
    whose: Whose,
    whole: AtomicBool,
}

#[derive(Debug, Deserialize)]
struct State {
    nodes: usize,
    version: String,
    ticktime: u32,
    killed: Vec<String>,
}

/// What a node says of a name or membership: the process, if there is one.
#[derive(Debug, Deserialize)]
struct Told {
    #[serde(default)]
    granted: bool,
    #[serde(default)]
    new: bool,
    holder: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ViewTold {
    names: BTreeMap<String, Option<String>>,
    groups: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct MembersTold {
    members: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct LeftTold {
    left: usize,
}

async fn ask<T: for<'de> Deserialize<'de>>(caller: &Caller, path: &str, timeout: Duration) -> Result<T, CommandError> {
    let garbled = |why: String| CommandError::Unknown(crate::client::call::Cause::Garbled(why));
    let (status, body) = caller.post(path, &json!({}), timeout).await?;
    if status != 200 {
        return Err(garbled(format!("{status}: {}", String::from_utf8_lossy(&body))));
    }
    serde_json::from_slice(&body).map_err(|why| garbled(why.to_string()))
}

fn owner_of(whose: &Whose, holder: &str) -> String {
    let whose = whose.lock().unwrap_or_else(PoisonError::into_inner);
    whose.get(holder).cloned().unwrap_or_else(|| holder.to_owned())
}

#[async_trait]
impl Api for ErlangApi {
    fn client(&self, node: NodeId) -> Box<dyn Client> {
        let (caller, registry) = (self.callers[&node].clone(), self.setup.registry);
        Box::new(ErlangClient { caller, registry, whose: self.whose.clone() })
    }

    async fn ready(&self, node: NodeId) -> anyhow::Result<()> {
        let state: State = ask(&self.callers[&node], "/state", ANSWER_MAX).await?;
        let others = self.callers.len() - 1;
        if state.nodes < others && !self.whole.load(Ordering::Relaxed) {
            bail!("it has found {} of {others} nodes", state.nodes);
        }
        Ok(())
    }

    async fn facts(&self) -> Vec<(&'static str, String)> {
        let (mut version, mut ticktime, mut killed) = ("unknown".to_owned(), 0, 0);
        for caller in self.callers.values() {
            if let Ok(state) = ask::<State>(caller, "/state", ANSWER_MAX).await {
                (version, ticktime) = (state.version, state.ticktime);
                killed += state.killed.len();
            }
        }
        let dials =
            if self.setup.redial { format!("every {REDIAL_MS} ms") } else { "nobody, as OTP itself".to_owned() };
        let settings = format!("net_ticktime {ticktime} s (OTP's own: 60 s), net_setuptime {SETUP_S} s (7 s)");
        let mut facts = vec![
            ("program", format!("Erlang/OTP {version}, {settings}")),
            ("prevent_overlapping_partitions", self.setup.prevent_overlap.to_string()),
            ("who dials nodes that were lost", dials),
        ];
        if self.setup.registry == Registry::Global {
            facts.push(("processes killed by a conflict", killed.to_string()));
        }
        facts
    }

    fn has_leader(&self) -> bool {
        false
    }

    async fn leader(&self, _up: &[NodeId]) -> Option<NodeId> {
        None
    }

    async fn view(&self, node: NodeId, deadline: Instant) -> anyhow::Result<View> {
        let told: ViewTold = ask(&self.callers[&node], "/view", left(deadline)).await?;
        let owner = |holder: &String| owner_of(&self.whose, holder);
        let names = told.names.into_iter().filter_map(|(name, holder)| {
            let holder = holder?;
            Some((name, (owner(&holder), holder)))
        });
        let groups = told.groups.into_iter().map(|(group, members)| (group, members.iter().map(owner).collect()));
        Ok(View { node, names: names.collect(), groups: groups.collect(), leader: None })
    }
}

struct ErlangClient {
    caller: Arc<Caller>,
    registry: Registry,
    whose: Whose,
}

#[async_trait]
impl Client for ErlangClient {
    async fn call(&mut self, what: &What, deadline: Instant) -> Completion {
        let done = match self.registry {
            Registry::Global => self.name(what, deadline).await,
            Registry::Pg => self.group(what, deadline).await,
        };
        match done {
            Ok(Some(what)) => Completion::Ok(what),
            Ok(None) => Completion::Fail("no call of this system's".to_owned()),
            Err(CommandError::NotApplied(cause)) => Completion::Fail(cause.to_string()),
            Err(CommandError::Unknown(cause)) if what.is_read() => Completion::Fail(cause.to_string()),
            Err(CommandError::Unknown(cause)) => Completion::Info(cause.to_string()),
        }
    }
}

impl ErlangClient {
    async fn ask<T: for<'de> Deserialize<'de>>(&self, path: &str, deadline: Instant) -> Result<T, CommandError> {
        ask(&self.caller, path, left(deadline)).await
    }

    /// A process at this node that stands for an owner or member.
    async fn holder(&self, owner: &str, deadline: Instant) -> Result<String, CommandError> {
        // Alone it owns nothing, so that nothing is unknown when this fails.
        let none = |error| match error {
            CommandError::NotApplied(cause) | CommandError::Unknown(cause) => CommandError::NotApplied(cause),
        };
        let told: Told = self.ask("/holder", deadline).await.map_err(none)?;
        let holder = told.holder.unwrap_or_default();
        self.whose.lock().unwrap_or_else(PoisonError::into_inner).insert(holder.clone(), owner.to_owned());
        Ok(holder)
    }

    async fn name(&self, what: &What, deadline: Instant) -> Result<Option<What>, CommandError> {
        let mut what = what.clone();
        match &mut what {
            What::Register { name, owner, result, .. } => {
                let holder = self.holder(owner, deadline).await?;
                let path = format!("/register?name={}&holder={}", quote(name), quote(&holder));
                let told: Told = loop {
                    let told: Told = self.ask(&path, deadline).await?;
                    // Refused, and gone before it could be asked who had it: as if the call had not been made.
                    if told.holder.is_some() {
                        break told;
                    }
                };
                let token = told.holder.unwrap_or_default();
                let granted = told.granted.then(|| Registered::Granted { token: token.clone() });
                let taken = || Registered::Taken { owner: owner_of(&self.whose, &token), token: token.clone() };
                *result = Some(granted.unwrap_or_else(taken));
            }
            What::Unregister { name, token, result } => {
                // `global` ends whatever stands there: a grant of one's own can only be looked for first.
                if let Some(token) = token {
                    let told: Told = self.ask(&format!("/whereis?name={}", quote(name)), deadline).await?;
                    if told.holder.as_ref() != Some(token) {
                        *result = Some(Unregistered::Before);
                        return Ok(Some(what));
                    }
                }
                let told: Told = self.ask(&format!("/unregister?name={}", quote(name)), deadline).await?;
                *result = Some(ended(&told));
            }
            What::Whereis { name, result } => {
                let told: Told = self.ask(&format!("/whereis?name={}", quote(name)), deadline).await?;
                let owner = told.holder.as_deref().map(|holder| owner_of(&self.whose, holder));
                *result = Some(Found { owner, token: told.holder });
            }
            _ => return Ok(None),
        }
        Ok(Some(what))
    }

    async fn members(&self, group: &str, deadline: Instant) -> Result<Vec<String>, CommandError> {
        let told: MembersTold = self.ask(&format!("/members?group={}", quote(group)), deadline).await?;
        Ok(told.members)
    }

    async fn group(&self, what: &What, deadline: Instant) -> Result<Option<What>, CommandError> {
        let mut what = what.clone();
        match &mut what {
            What::Join { group, member, result, .. } => {
                let holder = self.holder(member, deadline).await?;
                let (group, member) = (quote(group), quote(member));
                let path = format!("/join?group={group}&member={member}&holder={}", quote(&holder));
                let told: Told = self.ask(&path, deadline).await?;
                *result = Some(Joined {
                    token: told.holder.unwrap_or_default(),
                    new: told.new,
                    no_lease: false,
                    revision: None,
                });
            }
            What::Leave { group, member, result, .. } => {
                // Every process of that member that this node knows of, wherever it lives.
                let mut holders = self.members(group, deadline).await?;
                holders.retain(|holder| owner_of(&self.whose, holder) == *member);
                let path = format!("/leave?group={}&holders={}", quote(group), quote(&holders.join(",")));
                let told: LeftTold = self.ask(&path, deadline).await?;
                *result = Some(if told.left == 0 { Unregistered::Absent } else { Unregistered::Now });
            }
            What::Members { group, result } => {
                let holders = self.members(group, deadline).await?;
                let members = holders.iter().map(|holder| owner_of(&self.whose, holder)).collect::<BTreeSet<_>>();
                *result = Some(Membership { members, twice: BTreeSet::new(), revision: None });
            }
            _ => return Ok(None),
        }
        Ok(Some(what))
    }
}

fn ended(told: &Told) -> Unregistered {
    if told.holder.is_some() { Unregistered::Now } else { Unregistered::Absent }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whether_partitions_may_overlap_is_said_to_otp() {
        let place = Place::new("quorate".into(), "a place".into());
        for prevent_overlap in [true, false] {
            let setup = Setup { registry: Registry::Global, prevent_overlap, redial: false };
            let erlang = Erlang::new("erlang-global", setup, &place);
            let args = erlang.line(2, &erlang.addresses(&[1, 2, 3])).args;
            let at = args.iter().position(|arg| arg == "prevent_overlapping_partitions").unwrap();
            assert_eq!(args[at + 1], prevent_overlap.to_string());
            assert!(args.contains(&"a place/erlang-global".to_owned()), "{args:?}");
        }
    }
}
