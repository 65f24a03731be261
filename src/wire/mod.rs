//! What crosses the public API, as pure functions from and to bytes: used by the server, by the client, and by both for the
//! same thing.
//!
//! [`status`] is the one table of codes, HTTP statuses and certainty. [`body`] holds the shapes of the JSON bodies of names and
//! groups, [`mod@write`] turns what the model returns into them and [`read`] turns them back. What is apart stands in a file with
//! its shapes, its writing and its reading: [`lease`], [`batch`], [`event`] (what a watch says), [`cluster`] (nodes, conflicts,
//! faults). [`sse`] takes a stream of server-sent events apart, [`path`] quotes names in paths, [`header`] names headers.

pub mod batch;
pub mod body;
pub mod cluster;
pub mod event;
pub mod header;
pub mod lease;
pub mod message;
pub mod path;
pub mod read;
pub mod sse;
pub mod status;
pub mod write;
