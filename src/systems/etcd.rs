//! etcd, through its JSON gateway: a name is a key that is created only if it is not there, its token the revision that created it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use async_trait::async_trait;
use bytes::Bytes;
use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Place;
use super::process::Line;
use super::rival::{self, Api, Rival, Servers, addresses, left, made};
use crate::client::call::{Caller, CommandError};
use crate::model::ident::NodeId;
use crate::referee::client::{Abilities, Client, Completion, Promises, Running, System};
use crate::referee::history::{Found, Joined, Membership, Registered, Unregistered, View, What};

/// How long a member may take to answer what is not part of the workload.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Where members that have addresses of their own serve clients; peers one above.
const PORT: u16 = 2379;

/// The systems `etcd`, and `etcd-stale` with serializable reads.
pub struct Etcd {
    name: String,
    serializable: bool,
    place: Place,
}

impl Etcd {
    pub fn new(name: &str, serializable: bool, place: &Place) -> Self {
        Self { name: name.to_owned(), serializable, place: Place { dir: place.dir.join(name), ..place.clone() } }
    }

    fn servers(&self, nodes: &[NodeId]) -> anyhow::Result<(Servers, BTreeMap<NodeId, Member>)> {
        let mut servers = Servers::new(self.place.net.clone(), None)?;
        made(self.place.dir.clone())?;
        let addrs = addresses(&self.place, nodes, 2, PORT)?;
        let cluster = addrs.iter().map(|(node, at)| format!("n{node}=http://{}", at[1])).collect::<Vec<_>>().join(",");
        let mut members = BTreeMap::new();
        for (node, at) in addrs {
            let data = self.place.dir.join(format!("node-{node}"));
            let (client, peer) = (format!("http://{}", at[0]), format!("http://{}", at[1]));
            let pairs = [
                ("--name", format!("n{node}")),
                ("--data-dir", data.display().to_string()),
                ("--listen-client-urls", client.clone()),
                ("--advertise-client-urls", client.clone()),
                ("--listen-peer-urls", peer.clone()),
                ("--initial-advertise-peer-urls", peer),
                ("--initial-cluster", cluster.clone()),
                ("--initial-cluster-token", format!("quorate-{}", self.name)),
                ("--logger", "zap".to_owned()),
                ("--log-outputs", "stderr".to_owned()),
                ("--log-level", "warn".to_owned()),
            ];
            let args = pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
            let line = Line::new("etcd", args, self.place.dir.join(format!("node-{node}.log")));
            servers.add(node, line, data);
            members.insert(node, Member { caller: Arc::new(Caller::new(&client)?), id: OnceLock::new() });
        }
        Ok((servers, members))
    }
}

#[async_trait]
impl System for Etcd {
    fn name(&self) -> &str {
        &self.name
    }

    fn promises(&self) -> Promises {
        if self.serializable { Promises::CONSENSUS } else { Promises::LINEARIZABLE }
    }

    fn abilities(&self) -> Abilities {
        Abilities { groups: true, tokens: true, ..Abilities::NAMES }
    }

    fn missing(&self) -> Option<String> {
        rival::lacking(&["etcd"], "etcd-server")
    }

    async fn start(&self, nodes: usize, _seed: u64) -> anyhow::Result<Box<dyn Running>> {
        let nodes = (1..=nodes as NodeId).collect::<Vec<_>>();
        let (servers, members) = self.servers(&nodes)?;
        servers.start_all().await?;
        let api = EtcdApi { members, serializable: self.serializable, version: OnceLock::new() };
        Ok(Box::new(Rival { servers, api }.whole().await?))
    }
}

struct Member {
    caller: Arc<Caller>,
    /// As etcd numbers it; known once it has served.
    id: OnceLock<String>,
}

struct EtcdApi {
    members: BTreeMap<NodeId, Member>,
    serializable: bool,
    version: OnceLock<String>,
}

impl EtcdApi {
    async fn status(&self, node: NodeId) -> anyhow::Result<Status> {
        read(&self.members[&node].caller, "/v3/maintenance/status", &json!({}), ANSWER_MAX).await
    }
}

#[async_trait]
impl Api for EtcdApi {
    fn client(&self, node: NodeId) -> Box<dyn Client> {
        Box::new(EtcdClient { caller: self.members[&node].caller.clone(), serializable: self.serializable })
    }

    async fn ready(&self, node: NodeId) -> anyhow::Result<()> {
        let status = self.status(node).await?;
        let _ = self.members[&node].id.set(status.header.member_id);
        let _ = self.version.set(status.version);
        if status.leader.is_empty() {
            bail!("there is no leader");
        }
        // A linearizable read is answered by a member that knows the leader and has caught up.
        read::<Range>(&self.members[&node].caller, "/v3/kv/range", &range("ready", false), ANSWER_MAX).await.map(drop)
    }

    async fn facts(&self) -> Vec<(&'static str, String)> {
        let version = self.version.get().map_or("unknown", String::as_str);
        let reads = if self.serializable { "serializable: what the member has" } else { "linearizable" };
        vec![("program", format!("etcd {version}, its usual settings, fsync on")), ("reads", reads.to_owned())]
    }

    fn has_leader(&self) -> bool {
        true
    }

    /// Whom most of all members follow.
    async fn leader(&self, up: &[NodeId]) -> Option<NodeId> {
        let mut votes = BTreeMap::<String, usize>::new();
        for node in up {
            if let Ok(status) = self.status(*node).await {
                *votes.entry(status.leader).or_default() += 1;
            }
        }
        let (leader, _) = votes.into_iter().find(|(_, votes)| votes * 2 > self.members.len())?;
        self.members.iter().find(|(_, member)| member.id.get() == Some(&leader)).map(|(node, _)| *node)
    }

    async fn view(&self, node: NodeId, deadline: Instant) -> anyhow::Result<View> {
        let caller = &self.members[&node].caller;
        let all = |prefix| json!({"requestRange": prefixed(prefix, true)});
        let body = json!({"success": [all("n/"), all("g/")]});
        let mut told: Txn = read(caller, "/v3/kv/txn", &body, left(deadline)).await?;
        let mut view = View { node, names: BTreeMap::new(), groups: BTreeMap::new(), leader: None };
        for kv in told.responses.drain(..).filter_map(|response| response.range).flat_map(|range| range.kvs) {
            let (key, value) = (text(&kv.key)?, text(&kv.value)?);
            if let Some(name) = key.strip_prefix("n/") {
                view.names.insert(name.to_owned(), (value, kv.mod_revision));
            } else if let Some((group, member)) = key.strip_prefix("g/").and_then(|rest| rest.split_once('/')) {
                view.groups.entry(group.to_owned()).or_default().insert(member.to_owned());
            }
        }
        Ok(view)
    }
}

/// What the gateway tells. Numbers of 64 bits are strings in it, and what is zero or false is left out.
#[derive(Debug, Default, Deserialize)]
struct HeaderTold {
    #[serde(default)]
    revision: String,
    #[serde(default)]
    member_id: String,
}

#[derive(Debug, Deserialize)]
struct Status {
    header: HeaderTold,
    version: String,
    #[serde(default)]
    leader: String,
}

#[derive(Debug, Deserialize)]
struct Kv {
    key: String,
    #[serde(default)]
    value: String,
    mod_revision: String,
}

#[derive(Debug, Deserialize)]
struct Range {
    header: HeaderTold,
    #[serde(default)]
    kvs: Vec<Kv>,
}

#[derive(Debug, Deserialize)]
struct Deleted {
    #[serde(default)]
    deleted: String,
}

#[derive(Debug, Deserialize)]
struct Txn {
    header: HeaderTold,
    #[serde(default)]
    succeeded: bool,
    #[serde(default)]
    responses: Vec<Response>,
}

#[derive(Debug, Deserialize)]
struct Response {
    #[serde(rename = "response_range")]
    range: Option<Range>,
}

impl Txn {
    /// The entry that stood in its way.
    fn current(&self) -> Option<&Kv> {
        self.responses.iter().find_map(|response| response.range.as_ref()?.kvs.first())
    }
}

fn base64(text: &str) -> String {
    BASE64.encode(text.as_bytes())
}

fn text(base64: &str) -> anyhow::Result<String> {
    Ok(String::from_utf8(BASE64.decode(base64.as_bytes())?)?)
}

fn range(key: &str, serializable: bool) -> Value {
    json!({"key": base64(key), "serializable": serializable})
}

/// Of all keys that begin so; `prefix` ends in '/'.
fn prefixed(prefix: &str, serializable: bool) -> Value {
    let end = format!("{}0", prefix.trim_end_matches('/'));
    json!({"key": base64(prefix), "range_end": base64(&end), "serializable": serializable})
}

/// Puts the key if it is not there; else tells what is.
fn create(key: &str, value: &str) -> Value {
    json!({
        "compare": [{"target": "CREATE", "key": base64(key), "create_revision": "0"}],
        "success": [{"requestPut": {"key": base64(key), "value": base64(value)}}],
        "failure": [{"requestRange": range(key, false)}],
    })
}

/// Deletes the key if it is still that one.
fn delete(key: &str, revision: &str) -> Value {
    json!({
        "compare": [{"target": "MOD", "key": base64(key), "mod_revision": revision}],
        "success": [{"requestDeleteRange": {"key": base64(key)}}],
        "failure": [{"requestRange": range(key, false)}],
    })
}

struct EtcdClient {
    caller: Arc<Caller>,
    serializable: bool,
}

#[async_trait]
impl Client for EtcdClient {
    async fn call(&mut self, what: &What, deadline: Instant) -> Completion {
        let done = match what {
            What::Whereis { .. } | What::Members { .. } => self.ask(what, deadline).await,
            _ => self.change(what, deadline).await,
        };
        match done {
            Ok(Some(what)) => Completion::Ok(what),
            Ok(None) => Completion::Fail("no call of this system's".to_owned()),
            Err(Lack::NotDone(why)) => Completion::Fail(why),
            Err(Lack::Unknown(why)) if what.is_read() => Completion::Fail(why),
            Err(Lack::Unknown(why)) => Completion::Info(why),
        }
    }
}

/// Why there is no result.
enum Lack {
    /// Nothing can have been done.
    NotDone(String),
    Unknown(String),
}

impl EtcdClient {
    async fn post<T: for<'de> Deserialize<'de>>(&self, path: &str, body: &Value, deadline: Instant) -> Result<T, Lack> {
        let (status, told) = self.caller.post(path, body, left(deadline)).await.map_err(|error| match error {
            CommandError::NotApplied(cause) => Lack::NotDone(cause.to_string()),
            CommandError::Unknown(cause) => Lack::Unknown(cause.to_string()),
        })?;
        parsed(status, &told).map_err(|why| Lack::Unknown(format!("{why:#}")))
    }

    async fn ask(&self, what: &What, deadline: Instant) -> Result<Option<What>, Lack> {
        Ok(match what {
            What::Whereis { name, .. } => {
                let asked = range(&format!("n/{name}"), self.serializable);
                let told: Range = self.post("/v3/kv/range", &asked, deadline).await?;
                let kv = told.kvs.first();
                let owner = kv.map(|kv| text(&kv.value)).transpose().map_err(|why| Lack::Unknown(why.to_string()))?;
                let found = Found { owner, token: kv.map(|kv| kv.mod_revision.clone()) };
                Some(What::Whereis { name: name.clone(), result: Some(found) })
            }
            What::Members { group, .. } => {
                let prefix = format!("g/{group}/");
                let told: Range = self.post("/v3/kv/range", &prefixed(&prefix, self.serializable), deadline).await?;
                let member = |kv: &Kv| Some(text(&kv.key).ok()?.strip_prefix(&prefix)?.to_owned());
                let members = told.kvs.iter().map(member).collect::<Option<BTreeSet<_>>>();
                let members = members.ok_or_else(|| Lack::Unknown("a key that nobody wrote".to_owned()))?;
                let result =
                    Some(Membership { members, twice: BTreeSet::new(), revision: told.header.revision.parse().ok() });
                Some(What::Members { group: group.clone(), result })
            }
            _ => None,
        })
    }

    async fn change(&self, what: &What, deadline: Instant) -> Result<Option<What>, Lack> {
        let mut what = what.clone();
        match &mut what {
            What::Register { name, owner, result, .. } => {
                let told: Txn = self.post("/v3/kv/txn", &create(&format!("n/{name}"), owner), deadline).await?;
                *result = Some(registered(&told, owner).ok_or_else(odd)?);
            }
            What::Unregister { name, token, result } => {
                *result = Some(self.end(&format!("n/{name}"), token.as_deref(), deadline).await?);
            }
            What::Join { group, member, result, .. } => {
                let key = format!("g/{group}/{member}");
                let told: Txn = self.post("/v3/kv/txn", &create(&key, member), deadline).await?;
                *result = Some(joined(&told).ok_or_else(odd)?);
            }
            What::Leave { group, member, token, result } => {
                *result = Some(self.end(&format!("g/{group}/{member}"), token.as_deref(), deadline).await?);
            }
            _ => return Ok(None),
        }
        Ok(Some(what))
    }

    async fn end(&self, key: &str, token: Option<&str>, deadline: Instant) -> Result<Unregistered, Lack> {
        let Some(token) = token else {
            let told: Deleted = self.post("/v3/kv/deleterange", &json!({"key": base64(key)}), deadline).await?;
            return Ok(if told.deleted == "1" { Unregistered::Now } else { Unregistered::Absent });
        };
        let told: Txn = self.post("/v3/kv/txn", &delete(key, token), deadline).await?;
        Ok(if told.succeeded { Unregistered::Now } else { Unregistered::Before })
    }
}

/// It may have done anything.
fn odd() -> Lack {
    Lack::Unknown("an answer that does not fit the call".to_owned())
}

fn registered(told: &Txn, owner: &str) -> Option<Registered> {
    if told.succeeded {
        return Some(Registered::Granted { token: told.header.revision.clone() });
    }
    let (holder, token) = told.current().map(|kv| (text(&kv.value), kv.mod_revision.clone()))?;
    let holder = holder.ok()?;
    Some(match holder == owner {
        true => Registered::Held { token },
        false => Registered::Taken { owner: holder, token },
    })
}

fn joined(told: &Txn) -> Option<Joined> {
    let revision = told.header.revision.parse().ok();
    let token = match told.succeeded {
        true => told.header.revision.clone(),
        false => told.current()?.mod_revision.clone(),
    };
    Some(Joined { token, new: told.succeeded, no_lease: false, revision })
}

async fn read<T: for<'de> Deserialize<'de>>(
    caller: &Caller,
    path: &str,
    body: &Value,
    timeout: Duration,
) -> anyhow::Result<T> {
    let (status, told) = caller.post(path, body, timeout).await?;
    parsed(status, &told)
}

fn parsed<T: for<'de> Deserialize<'de>>(status: u16, told: &Bytes) -> anyhow::Result<T> {
    if status != 200 {
        bail!("{status}: {}", String::from_utf8_lossy(told).trim());
    }
    serde_json::from_slice(told).context("the answer cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_the_next_one_begins() {
        let asked = prefixed("g/a/", true);
        assert_eq!(
            (text(asked["key"].as_str().unwrap()).unwrap(), asked["range_end"].as_str().unwrap()),
            ("g/a/".to_owned(), base64("g/a0").as_str())
        );
        assert!("g/a/z" < "g/a0" && "g/a0" < "g/b/");
    }

    #[test]
    fn what_is_zero_is_left_out_of_an_answer() {
        let refused = r#"{"header":{"revision":"9"},"responses":[{"response_range":{"header":{"revision":"9"},
            "kvs":[{"key":"bi9h","create_revision":"2","mod_revision":"2","version":"1","value":"bzE="}],"count":"1"}}]}"#;
        let told: Txn = parsed(200, &Bytes::from_static(refused.as_bytes())).unwrap();
        let taken = Registered::Taken { owner: "o1".to_owned(), token: "2".to_owned() };
        assert_eq!(registered(&told, "o2"), Some(taken));
        let nothing: Deleted = parsed(200, &Bytes::from_static(br#"{"header":{"revision":"3"}}"#)).unwrap();
        assert_eq!(nothing.deleted, "");
        assert!(parsed::<Deleted>(503, &Bytes::new()).is_err());
    }
}
