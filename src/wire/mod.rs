//! What crosses the public API, as pure functions from and to bytes: used by the server, by the client, and by both for the
//! same thing.
//!
//! [`status`] is the one table of codes, HTTP statuses and certainty; [`body`] and [`cluster`] hold the shapes of the JSON
//! bodies; [`mod@write`] turns what the model returns into them and [`read`] turns them back; [`path`] quotes names in paths.

pub mod body;
pub mod cluster;
pub mod header;
pub mod path;
pub mod read;
pub mod status;
pub mod write;
