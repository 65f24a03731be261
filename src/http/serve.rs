//! Connections: taken from a listener until the server is told to stop, then finished.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::door::Api;
use super::patience::Patient;
use crate::wire::status::Code;
use crate::wire::write::{self, Problem};

/// How many connections are held at once unless told otherwise.
pub const MAX_CONNECTIONS_DEFAULT: usize = 16_384;
/// The longest head of a request: its first line and its headers. A name is 1.5 KiB at most when quoted, a cursor 8 KiB.
const HEAD_LEN_MAX: usize = 32 * 1024;
/// How long calls in flight may go on after the server was told to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after the process has run out of descriptors, until connections have ended.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Callers that are being told that there is no room. More are hung up on without a word.
const TURNED_AWAY_MAX: usize = 256;
const TURN_AWAY_PATIENCE: Duration = Duration::from_secs(1);

/// On what terms connections are held.
#[derive(Clone)]
pub struct Terms {
    /// With it, callers have to speak TLS. What is stored there later counts from the next connection on.
    pub tls: Option<Arc<ArcSwap<ServerConfig>>>,
    /// Callers beyond so many are told 429 and hung up on before they have said anything.
    pub max_connections: usize,
    /// How long a TLS handshake may take.
    pub handshake_patience: Duration,
    /// How long a request's head may take to arrive, and how long a kept connection may be idle: a client that sends a byte now
    /// and then holds a connection no longer than that.
    pub head_patience: Duration,
    /// How long a caller may leave an answer, or 64 KiB of a longer one, untaken.
    pub answer_patience: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            tls: None,
            max_connections: MAX_CONNECTIONS_DEFAULT,
            handshake_patience: Duration::from_secs(10),
            head_patience: Duration::from_secs(30),
            answer_patience: Duration::from_secs(30),
        }
    }
}

/// As [`serve_by`], on the usual terms and without TLS.
pub async fn serve(listener: TcpListener, api: Api, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    serve_by(Terms::default(), listener, api, shutdown).await
}

/// Serves the API on a listener until `shutdown` comes. Then no connection is taken any more, streams end, calls in flight are
/// answered (five seconds at most), and all connections are closed.
pub async fn serve_by(
    terms: Terms,
    listener: TcpListener,
    api: Api,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut shutdown = pin!(shutdown);
    let terms = Arc::new(terms);
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut turned_away = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            Some(_) = turned_away.join_next(), if !turned_away.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < terms.max_connections => {
                    connections.spawn(connection(stream, api.clone(), terms.clone(), stopping.clone()));
                }
                // A word in the clear would mean nothing to a caller who waits for a handshake.
                Ok((stream, _)) if terms.tls.is_none() && turned_away.len() < TURNED_AWAY_MAX => {
                    turned_away.spawn(timeout(TURN_AWAY_PATIENCE, turn_away(stream)));
                }
                Ok(_) => {}
                Err(error) if ends_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    api.end_streams();
    // Nobody listens any more only if there are no connections.
    let _ = stop.send(true);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(STOP_TIMEOUT, ended).await.is_err() {
        tracing::warn!("calls were still in flight when the server stopped");
    }
    Ok(())
}

async fn connection(stream: TcpStream, api: Api, terms: Arc<Terms>, mut stopping: watch::Receiver<bool>) {
    // Answers are written whole: waiting to fill a segment would only delay them.
    let _ = stream.set_nodelay(true);
    let stream = Patient::new(stream, terms.answer_patience);
    let Some(tls) = &terms.tls else { return speak(stream, api, &terms, stopping).await };
    let acceptor = TlsAcceptor::from(tls.load_full());
    let handshake = timeout(terms.handshake_patience, acceptor.accept(stream));
    let done = tokio::select! {
        done = handshake => done,
        _ = stopping.wait_for(|stop| *stop) => return,
    };
    // One that failed is the caller's doing, and it has been told by an alert.
    if let Ok(Ok(stream)) = done {
        speak(stream, api, &terms, stopping).await;
    }
}

/// Answers requests until one side closes the connection.
async fn speak<S>(stream: S, api: Api, terms: &Terms, mut stopping: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(|request| {
        let api = api.clone();
        async move { Ok::<_, Infallible>(api.answer(request).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(terms.head_patience).max_buf_size(HEAD_LEN_MAX);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    // An error here is the caller's: it hung up, or did not speak HTTP. It has been answered as far as it can be.
    tokio::select! {
        _ = &mut connection => return,
        _ = stopping.wait_for(|stop| *stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

/// Says that there is no room. What the caller has sent is read away until it closes: a connection that is closed with bytes
/// unread is reset, and the answer might be lost with it.
async fn turn_away(mut stream: TcpStream) {
    let body = write::problem(&Problem {
        code: Code::Overloaded,
        status: Code::Overloaded.row().status,
        detail: Some("this node holds as many connections as it may; nothing was begun"),
        outcome: None,
        retryable: true,
        current: None,
        leader: None,
        leader_http: None,
        applied: None,
        oldest: None,
    });
    let head = format!(
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let answer = [head.into_bytes(), body].concat();
    if stream.write_all(&answer).await.is_ok() && stream.shutdown().await.is_ok() {
        let mut ignored = [0; 4096];
        while matches!(stream.read(&mut ignored).await, Ok(1..)) {}
    }
}

fn ends_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
