//! Connections: taken from a listener until the server is told to stop, then finished.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::door::Api;
use super::patience::Patient;

/// How long a request's head may take to arrive, and how long a kept connection may be idle: a client that sends a byte now and
/// then holds a connection no longer than that.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long calls in flight may go on after the server was told to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may wait for its reader to take anything of it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause after the process has run out of descriptors, until connections have ended.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the API on a listener until `shutdown` comes. Then no connection is taken any more, streams end, calls in flight are
/// answered (five seconds at most), and all connections are closed.
pub async fn serve(listener: TcpListener, api: Api, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let mut shutdown = pin!(shutdown);
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, api.clone(), stopping.clone()));
                }
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

async fn connection(stream: TcpStream, api: Api, mut stopping: watch::Receiver<bool>) {
    // Answers are written whole: waiting to fill a segment would only delay them.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let api = api.clone();
        async move { Ok::<_, Infallible>(api.answer(request).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let mut connection = pin!(server.serve_connection(TokioIo::new(Patient::new(stream, WRITE_TIMEOUT)), service));
    // An error here is the caller's: it hung up, or did not speak HTTP. It has been answered as far as it can be.
    tokio::select! {
        _ = &mut connection => return,
        _ = stopping.wait_for(|stop| *stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

fn ends_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
