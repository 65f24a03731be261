//! Streams: answers that do not end by themselves. So many at once, and all of them end when the server stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

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

    /// A seat for one more stream, kept until it is dropped. None: all are taken.
    pub fn enter(self: &Arc<Self>) -> Option<StreamSeat> {
        let taken = self.seats.fetch_add(1, Ordering::Relaxed) + 1;
        let seat = StreamSeat { streams: self.clone(), stop: self.stop.subscribe() };
        // A refused one gives its seat back like any other.
        (taken <= self.max).then_some(seat)
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

impl Drop for StreamSeat {
    fn drop(&mut self) {
        self.streams.seats.fetch_sub(1, Ordering::Relaxed);
    }
}
