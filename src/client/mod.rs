//! Calls to a server of this API. [`call`] sends one request and tells what is known of its answer; it repeats nothing.
//! [`request`] puts a command or query into HTTP, [`connection`] carries one request over one connection and knows whether
//! anything of it was sent, [`judge`] tells from an answer what it proves. [`nodes`] are changes of the cluster.

pub mod call;
mod connection;
mod judge;
pub mod nodes;
mod request;
