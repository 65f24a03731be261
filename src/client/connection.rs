//! One HTTP/1.1 connection, driven by the call that uses it: no task of its own, so that a call knows at once what became of it.

use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::call::{Cause, CommandError};
use super::endpoint::Endpoint;

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

/// What is known of a command that got no answer.
impl From<Broken> for CommandError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Unsent(cause) => CommandError::NotApplied(cause),
            Broken::Sent(cause) => CommandError::Unknown(cause),
        }
    }
}

/// TCP, with or without TLS on it.
trait Stream: AsyncRead + AsyncWrite + Debug + Send + Sync {}

impl<T: AsyncRead + AsyncWrite + Debug + Send + Sync> Stream for T {}

type Driver = http1::Connection<TokioIo<Pin<Box<dyn Stream>>>, Full<Bytes>>;

/// One connection to a server.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: Driver,
    used: Instant,
}

impl Connection {
    /// Connects to a server.
    pub async fn open(to: &Endpoint) -> Result<Self, Cause> {
        let unreachable = |error: &dyn std::fmt::Display| Cause::Unreachable(error.to_string());
        let stream = TcpStream::connect(&to.host).await.map_err(|error| unreachable(&error))?;
        // Requests are written whole: waiting to fill a segment would only delay them.
        let _ = stream.set_nodelay(true);
        let stream: Pin<Box<dyn Stream>> = match &to.tls {
            None => Box::pin(stream),
            Some(tls) => {
                let secured = tls.connector.connect(tls.name.clone(), stream).await;
                Box::pin(secured.map_err(|error| unreachable(&error))?)
            }
        };
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
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

/// The body of an answer that goes on, read piece by piece over the connection that carries it.
#[derive(Debug)]
pub struct Streamed {
    body: Incoming,
    driver: Driver,
    /// Dropped, it would tell the driver that no request will follow, and the connection would be closed in good order too early.
    _sender: SendRequest<Full<Bytes>>,
    ended: bool,
}

/// How an answer that may go on began.
#[derive(Debug)]
pub enum Begun {
    /// 200, and what follows.
    Stream(Box<Streamed>),
    /// Any other answer, read whole.
    Answer(Answered),
}

impl Connection {
    /// Sends one request whose answer goes on. No byte of it is kept beyond what [`Streamed::next`] gives out.
    pub async fn begin(mut self, request: Request<Full<Bytes>>) -> Result<Begun, Cause> {
        let sending = self.sender.try_send_request(request);
        let driver = &mut self.driver;
        let mut ended = false;
        let head =
            drive(driver, &mut ended, async { sending.await.map_err(|error| Cause::Lost(described(error.error()))) })
                .await?;
        let (head, body) = head.into_parts();
        if head.status.as_u16() == 200 {
            let streamed = Streamed { body, driver: self.driver, _sender: self.sender, ended };
            return Ok(Begun::Stream(Box::new(streamed)));
        }
        let body = drive(driver, &mut ended, async {
            let body = Limited::new(body, ANSWER_LEN_MAX).collect().await;
            body.map_err(|error| Cause::Lost(format!("in the middle of the answer: {error}")))
        })
        .await?;
        Ok(Begun::Answer(Answered { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() }))
    }
}

/// Waits for something that only the connection's progress can bring.
async fn drive<T>(
    driver: &mut Driver,
    ended: &mut bool,
    wanted: impl Future<Output = Result<T, Cause>>,
) -> Result<T, Cause> {
    let mut wanted = pin!(wanted);
    poll_fn(|cx| {
        *ended = *ended || Pin::new(&mut *driver).poll(cx).is_ready();
        match wanted.as_mut().poll(cx) {
            Poll::Pending if *ended => Poll::Ready(Err(Cause::Lost("it was closed".to_owned()))),
            other => other,
        }
    })
    .await
}

impl Streamed {
    /// The next piece; none at the end. May be cancelled without loss.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Cause> {
        let Self { body, driver, ended, .. } = self;
        loop {
            let frame = drive(driver, ended, async { Ok(body.frame().await) }).await?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(Cause::Lost(described(&error))),
                // Trailers say nothing here.
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }
}

fn described(error: &hyper::Error) -> String {
    use std::error::Error;
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
