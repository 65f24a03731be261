//! The server as its users meet it: real processes, real sockets, a real disk.

mod backup;
mod certificates;
mod cli;
mod cli_streams;
mod client;
mod deploy;
mod durability;
mod entrance;
mod examples;
mod growing;
mod hidden;
mod http;
mod lease_nodes;
mod lock;
mod locks;
mod messages;
mod nodes;
mod refusals;
mod watches;
