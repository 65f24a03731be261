//! A reader of server-sent events, by hand: a socket, chunks, and the decoder of the client.

use std::net::SocketAddr;
use std::time::Duration;

use quorate::wire::sse::{Decoder, SentEvent};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// A stream that has begun.
pub struct Stream {
    socket: TcpStream,
    pub head: String,
    /// What has come and is not taken apart into chunks yet.
    pending: Vec<u8>,
    pub decoder: Decoder,
    /// Everything that came, chunks joined.
    pub text: String,
    over: bool,
}

impl Stream {
    /// Opens a stream and reads its head.
    pub async fn open(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut socket = TcpStream::connect(addr).await.unwrap();
        let mut head = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        socket.write_all((head + "\r\n").as_bytes()).await.unwrap();
        let mut pending = Vec::new();
        let end = loop {
            if let Some(end) = pending.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            assert!(timeout(PATIENCE, socket.read_buf(&mut pending)).await.unwrap().unwrap() > 0, "closed at once");
        };
        let head = String::from_utf8(pending[..end].to_vec()).unwrap().to_ascii_lowercase();
        pending.drain(..end + 4);
        Self { socket, head, pending, decoder: Decoder::new(1 << 20), text: String::new(), over: false }
    }

    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// The next event; none at the end of the stream.
    pub async fn next(&mut self) -> Option<SentEvent> {
        loop {
            if let Some(event) = self.decoder.next_event().unwrap() {
                return Some(event);
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Reads one more chunk; false at the end.
    pub async fn more(&mut self) -> bool {
        loop {
            if let Some(chunk) = self.chunk() {
                self.over = chunk.is_empty();
                self.text += std::str::from_utf8(&chunk).unwrap();
                self.decoder.push(&chunk);
                return !self.over;
            }
            if self.over || timeout(PATIENCE, self.socket.read_buf(&mut self.pending)).await.unwrap().unwrap_or(0) == 0
            {
                self.over = true;
                return false;
            }
        }
    }

    fn chunk(&mut self) -> Option<Vec<u8>> {
        let end = self.pending.windows(2).position(|two| two == b"\r\n")?;
        let len = usize::from_str_radix(std::str::from_utf8(&self.pending[..end]).unwrap(), 16).unwrap();
        if self.pending.len() < end + 2 + len + 2 {
            return None;
        }
        let chunk = self.pending[end + 2..end + 2 + len].to_vec();
        self.pending.drain(..end + 2 + len + 2);
        Some(chunk)
    }
}
