//! The server as its users meet it: real processes, real sockets, a real disk.

mod backup;
mod certificates;
mod cli;
mod client;
mod deploy;
mod durability;
mod growing;
mod http;
mod locks;
mod nodes;
mod refusals;
mod watches;
