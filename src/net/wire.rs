//! The bare network: byte streams and datagrams between addresses.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

pub type ReadHalf = Box<dyn AsyncRead + Send + Unpin>;
pub type WriteHalf = Box<dyn AsyncWrite + Send + Unpin>;

/// A network that a node can be put on.
#[async_trait]
pub trait Wire: Send + Sync + 'static {
    /// Binds streams and datagrams to one address; port 0 picks one that is free for both.
    async fn bind(&self, at: SocketAddr) -> io::Result<Bound>;
    /// Opens a stream. `to` is HOST:PORT, resolved anew at each call.
    async fn connect(&self, to: &str) -> io::Result<(ReadHalf, WriteHalf)>;
    /// Finds the address of a HOST:PORT.
    async fn resolve(&self, to: &str) -> io::Result<SocketAddr>;
}

/// An address that a node listens on.
pub struct Bound {
    pub at: SocketAddr,
    pub streams: Box<dyn StreamListener>,
    pub datagrams: Arc<dyn DatagramSocket>,
}

/// A stream that somebody has opened to us, and from where.
pub struct Arrival {
    pub reader: ReadHalf,
    pub writer: WriteHalf,
    pub from: SocketAddr,
}

#[async_trait]
pub trait StreamListener: Send {
    async fn accept(&mut self) -> io::Result<Arrival>;
}

#[async_trait]
pub trait DatagramSocket: Send + Sync {
    async fn send_to(&self, payload: &[u8], to: SocketAddr) -> io::Result<()>;
    async fn recv(&self, buffer: &mut [u8]) -> io::Result<usize>;
}

/// The operating system's TCP and UDP.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealWire;

/// How often a port that is free for TCP may turn out to be taken for UDP before we give up.
const BIND_TRIES: usize = 16;

#[async_trait]
impl Wire for RealWire {
    async fn bind(&self, at: SocketAddr) -> io::Result<Bound> {
        let mut tries = 0;
        loop {
            let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            // A restarted node takes its port again although old connections still linger there.
            socket.set_reuseaddr(true)?;
            socket.bind(at)?;
            let listener = socket.listen(1024)?;
            let bound = listener.local_addr()?;
            match UdpSocket::bind(bound).await {
                Ok(udp) => {
                    let datagrams = Arc::new(RealDatagrams(udp));
                    return Ok(Bound { at: bound, streams: Box::new(RealListener(listener)), datagrams });
                }
                Err(e) if at.port() == 0 && e.kind() == io::ErrorKind::AddrInUse && tries < BIND_TRIES => tries += 1,
                Err(e) => return Err(e),
            }
        }
    }

    async fn connect(&self, to: &str) -> io::Result<(ReadHalf, WriteHalf)> {
        split(TcpStream::connect(to).await?)
    }

    async fn resolve(&self, to: &str) -> io::Result<SocketAddr> {
        let mut found = tokio::net::lookup_host(to).await?;
        found.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{to} has no address")))
    }
}

fn split(stream: TcpStream) -> io::Result<(ReadHalf, WriteHalf)> {
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    Ok((Box::new(reader), Box::new(writer)))
}

struct RealListener(TcpListener);

#[async_trait]
impl StreamListener for RealListener {
    async fn accept(&mut self) -> io::Result<Arrival> {
        let (stream, from) = self.0.accept().await?;
        let (reader, writer) = split(stream)?;
        Ok(Arrival { reader, writer, from })
    }
}

struct RealDatagrams(UdpSocket);

#[async_trait]
impl DatagramSocket for RealDatagrams {
    async fn send_to(&self, payload: &[u8], to: SocketAddr) -> io::Result<()> {
        self.0.send_to(payload, to).await.map(|_| ())
    }

    async fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv_from(buffer).await.map(|(len, _)| len)
    }
}
