//! One HTTP/1.1 connection, driven by the call that uses it: no task of its own, so that a call knows at once what became of it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::call::Cause;

/// A connection that was idle for longer is not used again: the server closes its side after 30 s, and might do so just then.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// The longest answer that is read: a full page with the longest metas is about 20 MiB.
const ANSWER_LEN_MAX: usize = 64 << 20;

/// An answer, read whole.
#[derive(Debug)]
pub struct Answered {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// No answer.
#[derive(Debug)]
pub enum Broken {
    /// Not a byte of the request has left.
    Unsent(Cause),
    /// Some of it may have.
    Sent(Cause),
}

impl Broken {
    pub fn cause(self) -> Cause {
        match self {
            Broken::Unsent(cause) | Broken::Sent(cause) => cause,
        }
    }
}

/// One connection to a server.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: http1::Connection<TokioIo<TcpStream>, Full<Bytes>>,
    used: Instant,
}

impl Connection {
    /// Connects to `HOST:PORT`.
    pub async fn open(host: &str) -> Result<Self, Cause> {
        let stream = TcpStream::connect(host).await.map_err(|error| Cause::Unreachable(error.to_string()))?;
        // Requests are written whole: waiting to fill a segment would only delay them.
        let _ = stream.set_nodelay(true);
        let (sender, driver) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| Cause::Unreachable(error.to_string()))?;
        Ok(Self { sender, driver, used: Instant::now() })
    }

    /// Whether a request can be sent: the other side has not hung up, as far as this one has heard.
    pub async fn is_ready(&mut self) -> bool {
        if self.used.elapsed() > IDLE_MAX {
            return false;
        }
        poll_fn(|cx| {
            // Reads too, and so finds the end of a stream that was closed while nobody looked.
            if Pin::new(&mut self.driver).poll(cx).is_ready() {
                return Poll::Ready(false);
            }
            self.sender.poll_ready(cx).map(|ready| ready.is_ok())
        })
        .await
    }

    /// Sends one request and reads its answer. A request that was given up before a byte of it was written comes back.
    pub async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Answered, (Option<Request<Full<Bytes>>>, Cause)> {
        let sending = self.sender.try_send_request(request);
        let mut call = pin!(async {
            let response = sending.await.map_err(|mut error| {
                let unsent = error.take_message();
                (unsent, Cause::Lost(described(error.error())))
            })?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_LEN_MAX)
                .collect()
                .await
                .map_err(|error| (None, Cause::Lost(format!("in the middle of the answer: {error}"))))?;
            Ok(Answered { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() })
        });
        let driver = &mut self.driver;
        let mut ended = false;
        let answered = poll_fn(|cx| {
            ended = ended || Pin::new(&mut *driver).poll(cx).is_ready();
            match call.as_mut().poll(cx) {
                Poll::Pending if ended => Poll::Ready(Err((None, Cause::Lost("it was closed".to_owned())))),
                other => other,
            }
        })
        .await;
        self.used = Instant::now();
        answered
    }
}

fn described(error: &hyper::Error) -> String {
    use std::error::Error;
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
