//! One session of one client with one server: requests in order, and what is known when there is no answer.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{anyhow, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use super::jute::{self, Answer, Request};

/// A server ends the session of a client that it has not heard of for so long. It may grant less.
const SESSION_MS: i32 = 10_000;

/// Why there is no answer.
#[derive(Debug)]
pub enum Lack {
    /// Nothing was sent.
    Unsent(anyhow::Error),
    /// Some of it may have been.
    Unknown(anyhow::Error),
}

/// A server, as one client sees it. A session that broke is not mended: the next call begins another.
pub struct Session {
    server: SocketAddr,
    stream: Option<TcpStream>,
    number: i32,
}

impl Session {
    pub fn new(server: SocketAddr) -> Self {
        Self { server, stream: None, number: 0 }
    }

    pub async fn ask(&mut self, request: Request, deadline: Instant) -> Result<Answer, Lack> {
        let mut answers = self.ask_all(&[request], deadline).await?;
        answers.pop().ok_or_else(|| Lack::Unknown(anyhow!("no answer")))
    }

    /// Sends all, then reads all answers; the server takes them in this order.
    pub async fn ask_all(&mut self, requests: &[Request], deadline: Instant) -> Result<Vec<Answer>, Lack> {
        let late = || anyhow!("the deadline came first");
        let opened = timeout_at(deadline.into(), self.open()).await.unwrap_or_else(|_| Err(late()));
        let mut stream = opened.map_err(Lack::Unsent)?;
        let first = self.number;
        self.number = self.number.wrapping_add(requests.len() as i32) & i32::MAX;
        let asked = async {
            let frames = requests.iter().enumerate().flat_map(|(at, request)| jute::asked(first + at as i32, request));
            stream.write_all(&frames.collect::<Vec<_>>()).await?;
            let mut answers = Vec::new();
            for (at, request) in requests.iter().enumerate() {
                let body = read_frame(&mut stream).await?;
                answers.push(jute::answered(first + at as i32, request, &body)?);
            }
            anyhow::Ok(answers)
        };
        let answers = timeout_at(deadline.into(), asked).await.unwrap_or_else(|_| Err(late()));
        let answers = answers.map_err(Lack::Unknown)?;
        // Kept only when nothing is left to be read from it.
        self.stream = Some(stream);
        Ok(answers)
    }

    /// The session that there is, if it lives, or another.
    async fn open(&mut self) -> anyhow::Result<TcpStream> {
        if let Some(stream) = self.stream.take()
            && stream.try_read(&mut [0]).is_err_and(|why| why.kind() == std::io::ErrorKind::WouldBlock)
        {
            return Ok(stream);
        }
        let mut stream = TcpStream::connect(self.server).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&jute::hello(SESSION_MS)).await?;
        jute::welcomed(&read_frame(&mut stream).await?)?;
        Ok(stream)
    }
}

async fn read_frame(stream: &mut TcpStream) -> anyhow::Result<Vec<u8>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let mut body = vec![0; jute::frame_len(head)?];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

/// What a server says of itself to the four letters.
pub async fn four_letters(server: SocketAddr, word: &str, deadline: Instant) -> anyhow::Result<String> {
    let said = async {
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(word.as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    };
    match timeout_at(deadline.into(), said).await {
        Ok(said) => said,
        Err(_) => bail!("it does not answer"),
    }
}
