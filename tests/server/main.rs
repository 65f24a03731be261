//! The server from outside: its API on real sockets, its processes.

mod http;
