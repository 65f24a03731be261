//! The server as its users meet it: real processes, real sockets, a real disk.

mod backup;
mod cli;
mod durability;
mod growing;
mod http;
mod nodes;
mod refusals;
