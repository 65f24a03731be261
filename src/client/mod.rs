//! Calls to servers of this API: each single one, or a client that finds a server that can answer.
//!
//! [`call`] sends one request and tells what is known of its answer; it repeats nothing ([`calls`] does so for keep-alives, batches
//! and streams). Below it, [`access`] says what servers are shown and which are believed, [`endpoint`] where one is; [`request`]
//! puts a command or query into HTTP, [`connection`] carries one request over one connection and knows whether anything of it was
//! sent, [`stream`] reads an answer that goes on, [`judge`] tells from an answer what it proves.
//!
//! [`client`] is the [`Client`](client::Client) of a whole cluster: [`failover`] decides where a call goes next and whether it may; what
//! it offers stands in [`names`], [`groups`], [`leases`], [`messages`], [`nodes`] (changes of the cluster) and [`backup`], by the words
//! of [`word`] and with the [`error`]s that tell a refusal from what was not applied and from what is unknown.
//!
//! On that stand what goes on by itself: a [`Lease`](lease::Lease) that keeps itself alive and counts by [`belief`] (pure) on the clock
//! of [`moment`], a [`Watch`](watch::Watch) that resumes and an [`Inbox`](inbox::Inbox), which both [`follow`] a stream from one server to
//! the next, an [`Election`](election::Election) and a [`Group`](group::Group).

pub mod access;
pub mod backup;
pub mod belief;
pub mod call;
mod calls;
#[expect(clippy::module_inception, reason = "the client of the client room")]
pub mod client;
mod connection;
pub mod election;
pub mod endpoint;
pub mod error;
mod failover;
mod follow;
pub mod group;
pub mod groups;
pub mod inbox;
mod judge;
pub mod lease;
pub mod leases;
pub mod messages;
pub mod moment;
pub mod names;
pub mod nodes;
mod request;
pub mod stream;
pub mod watch;
pub mod word;
