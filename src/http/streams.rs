//! Streams: answers that do not end by themselves. So many at once, and all of them end when the server stops.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream::{self, Stream, StreamExt};
use tokio::sync::watch;
use tokio::time::timeout;

use super::reply::Rejection;
use crate::wire::status::Code;

/// How often something is sent, so that both sides find out that the other one is gone.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Said first: how long a browser waits before it connects again, in milliseconds.
const PREAMBLE: &[u8] = b"retry: 1000\n\n";
/// A comment, which readers pass over.
const COMMENT: &[u8] = b":\n\n";

/// The streams of one server.
#[derive(Debug)]
pub struct Streams {
    seats: AtomicUsize,
    max: usize,
    stop: watch::Sender<bool>,
}

impl Streams {
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { seats: AtomicUsize::new(0), max, stop: watch::Sender::new(false) })
    }

    /// A seat for one more stream, kept until it is dropped. Refused as overload if all are taken.
    pub fn enter(self: &Arc<Self>) -> Result<StreamSeat, Rejection> {
        let taken = self.seats.fetch_add(1, Ordering::Relaxed) + 1;
        let seat = StreamSeat { streams: self.clone(), stop: self.stop.subscribe() };
        // A refused one gives its seat back like any other.
        if taken > self.max {
            let detail = "there are as many streams as this server allows".into();
            return Err(Rejection { code: Code::Overloaded, detail });
        }
        Ok(seat)
    }

    /// Ends all streams, and every later one at once: the server stops.
    pub fn end(&self) {
        self.stop.send_replace(true);
    }
}

/// The seat of one stream.
#[derive(Debug)]
pub struct StreamSeat {
    streams: Arc<Streams>,
    stop: watch::Receiver<bool>,
}

impl StreamSeat {
    /// Comes when the stream has to end. May be cancelled.
    pub async fn ended(&mut self) {
        // The sender lives as long as this seat, which shares it.
        let _ = self.stop.wait_for(|stop| *stop).await;
    }
}

/// The body of a stream of server-sent events: those of `events` until there are no more, or the server stops.
///
/// An event is made only when the connection has room for it: nothing is kept for a slow reader here.
pub fn body(seat: StreamSeat, events: impl Stream<Item = Vec<u8>> + Send + 'static) -> Body {
    let under_way: (StreamSeat, Pin<Box<dyn Stream<Item = Vec<u8>> + Send>>) = (seat, Box::pin(events));
    let pieces = stream::unfold(under_way, |(mut seat, mut events)| async move {
        let piece = tokio::select! {
            biased;
            () = seat.ended() => return None,
            event = timeout(HEARTBEAT, events.next()) => match event {
                Ok(event) => Bytes::from(event?),
                Err(_) => Bytes::from_static(COMMENT),
            },
        };
        Some((piece, (seat, events)))
    });
    let pieces = stream::once(async { Bytes::from_static(PREAMBLE) }).chain(pieces);
    Body::from_stream(pieces.map(Ok::<_, Infallible>))
}

impl Drop for StreamSeat {
    fn drop(&mut self) {
        self.streams.seats.fetch_sub(1, Ordering::Relaxed);
    }
}
