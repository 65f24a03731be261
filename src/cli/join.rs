//! A new node's way into a cluster: what it has to know before it starts, and how it then becomes a member.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::sleep;

use super::connect::{Misused, Papers};
use crate::client::call::Cause;
use crate::client::client::{Builder, Client};
use crate::client::error::Error;
use crate::model::ident::NodeId;
use crate::node::config::{JoinArgs, Joining};
use crate::node::node::Node;
use crate::wire::cluster::ClusterBody;

/// How long one call may take.
const CALL_MAX: Duration = Duration::from_secs(5);
/// How long after a failure the next call is made.
const PAUSE: Duration = Duration::from_millis(300);

/// By which servers a node enters its cluster.
pub struct Entrance {
    urls: Vec<String>,
    /// A client that shows what is to be shown, of no server yet.
    builder: Builder,
    client: Client,
    votes: bool,
}

impl Entrance {
    /// The servers that were named, if any were.
    pub fn of(args: &JoinArgs) -> Result<Option<Self>, Misused> {
        if args.urls.is_empty() {
            return Ok(None);
        }
        let papers = Papers {
            credential: args.credential.as_deref(),
            roots: args.tls_roots.as_deref(),
            cert: args.tls_cert.as_deref(),
            key: args.tls_key.as_deref(),
        };
        let builder = papers.shown_by(Client::builder().timeout(CALL_MAX))?;
        let urls = args.urls.clone();
        let client = builder.clone().endpoints(&urls).build().map_err(|why| Misused(format!("--join: {why}")))?;
        Ok(Some(Self { urls, builder, client, votes: !args.learner }))
    }

    /// Asks a node of the cluster which cluster it is, and who is in it. The new node must be none of them, unless it has been added under
    /// the address that it will have.
    pub async fn learn(&self, id: NodeId, own: &str) -> anyhow::Result<Joining> {
        // Where nobody is, whoever starts the node wants to know that at once.
        let cluster = self.client.asking_once().cluster().await.with_context(|| {
            format!("cannot join by {}: give the URL of a node of the cluster that serves", self.urls.join(","))
        })?;
        if let Some(known) = cluster.nodes.iter().find(|node| node.id == id)
            && own != known.peer
        {
            bail!("node {id} is at {} already: give this node an --id that was never used", known.peer);
        }
        let members = cluster.nodes.into_iter().map(|node| (node.id, node.peer)).collect();
        Ok(Joining { cluster: cluster.cluster, members })
    }

    /// Has a node that runs be added to its cluster, and promoted once it has caught up, if it is to vote. An error: it never will be.
    pub async fn enter(&self, node: &Node) -> anyhow::Result<()> {
        let (id, peer) = (node.id(), node.peer_addr());
        // Those that were given may end before this node is in.
        let client = match self.client.cluster().await {
            Ok(cluster) => self.with_others(id, &cluster),
            Err(_) => self.client.clone(),
        };
        repeat(async || client.add_node(id, peer).await.map(|_| ())).await?;
        if self.votes {
            repeat(async || client.promote_node(id).await.map(|_| ())).await?;
        }
        println!("node {id} has entered the cluster as a {}", if self.votes { "voter" } else { "learner" });
        node.entered().await;
        Ok(())
    }

    /// A client of the servers that were given, and then of all others that it can approach.
    fn with_others(&self, id: NodeId, cluster: &ClusterBody) -> Client {
        let can_be_approached = |url: &&String| self.builder.clone().endpoints([*url]).build().is_ok();
        let others = cluster.nodes.iter().filter(|node| node.id != id).filter_map(|node| node.http.as_ref());
        let others = others.filter(|url| !self.urls.contains(url)).filter(can_be_approached);
        let all = self.builder.clone().endpoints(&self.urls).endpoints(others);
        all.build().unwrap_or_else(|_| self.client.clone())
    }
}

/// Makes a call until it is answered. An error: the answer is no, and will be.
async fn repeat(call: impl AsyncFn() -> Result<(), Error>) -> anyhow::Result<()> {
    let mut told = None;
    loop {
        let error = match call().await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if let Error::NotApplied(Cause::Rejected { code, detail }) = &error
            && !code.is_passing()
        {
            bail!("this node is not let into the cluster: {detail} ({})", code.row().text);
        }
        // Every call may be made again without harm.
        let why = error.to_string();
        if told.as_ref() != Some(&why) {
            tracing::info!("not in the cluster yet: {why}");
            told = Some(why);
        }
        sleep(PAUSE).await;
    }
}

/// Where a node that was meant to join stands, for its operator.
pub fn not_in_yet(id: NodeId) -> String {
    format!("node {id} has not entered its cluster yet: start it with --join URL of a node that serves")
}
