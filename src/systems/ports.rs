//! Free ports of the loopback interface.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;

use rand::RngExt;

/// Below what Linux and macOS give to outgoing connections. Among those, a client that dials a killed node's port could be given
/// that very port as its own and be connected to itself, and the node could not come back to it.
const RANGE: Range<u16> = 12_000..32_000;
const TRIES: usize = 200;

/// A port that nobody uses, held until it is dropped.
pub struct Reserved {
    addr: SocketAddr,
    _tcp: TcpListener,
    _udp: UdpSocket,
}

impl Reserved {
    /// A port that is free for TCP and for UDP.
    pub fn new() -> io::Result<Self> {
        let mut chance = rand::rng();
        let mut last = None;
        for _ in 0..TRIES {
            let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, chance.random_range(RANGE)));
            match (TcpListener::bind(addr), UdpSocket::bind(addr)) {
                (Ok(tcp), Ok(udp)) => return Ok(Self { addr, _tcp: tcp, _udp: udp }),
                (Err(e), _) | (_, Err(e)) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
    }

    /// Frees the port for who is to use it.
    pub fn release(self) -> SocketAddr {
        self.addr
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}
