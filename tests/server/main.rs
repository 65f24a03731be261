//! The server as its users meet it: real processes, real sockets, a real disk.

mod cli;
mod durability;
mod http;
mod nodes;
mod refusals;
mod watches;
