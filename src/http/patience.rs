//! A connection whose caller has to go on reading: memory is not held for ever for one that does not.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// So much has to be taken within the patience, or all that there is: a byte now and then would hold a long answer as well.
const PORTION: usize = 64 * 1024;

/// Writes end with `TimedOut` when what is to be written is not taken in time. While the caller keeps up, this costs a comparison.
pub struct Patient<S> {
    stream: S,
    patience: Duration,
    /// Runs while the caller does not keep up.
    waiting: Option<Waiting>,
}

struct Waiting {
    deadline: Pin<Box<Sleep>>,
    taken: usize,
}

impl<S> Patient<S> {
    pub fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, waiting: None }
    }

    fn watch(&mut self, written: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match (&written, &mut self.waiting) {
            (Poll::Ready(_), None) => return written,
            (Poll::Ready(Ok(taken)), Some(waiting)) => {
                waiting.taken += taken;
                if waiting.taken >= PORTION {
                    waiting.taken = 0;
                    waiting.deadline.as_mut().reset(Instant::now() + self.patience);
                    return written;
                }
            }
            (Poll::Ready(Err(_)), Some(_)) => return written,
            (Poll::Pending, _) => {}
        }
        let patience = self.patience;
        let waiting = self.waiting.get_or_insert_with(|| Waiting { deadline: Box::pin(sleep(patience)), taken: 0 });
        match waiting.deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => written,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.watch(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// All that there was has been handed to the kernel: the caller has caught up.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            self.waiting = None;
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    /// Whether a long answer is taken to its end by a reader that takes so many bytes at once, and then pauses.
    async fn is_taken(take: usize) -> bool {
        let patience = Duration::from_millis(1_500);
        let (ours, mut theirs) = duplex(8 * 1024);
        let mut ours = Patient::new(ours, patience);
        let reading = tokio::spawn(async move {
            let mut taken = vec![0; take];
            loop {
                sleep(patience / 10).await;
                if take > 0 && theirs.read_exact(&mut taken).await.is_err() {
                    return;
                }
            }
        });
        let began = Instant::now();
        let written = ours.write_all(&[7; 4 * PORTION]).await;
        // Also what is taken takes longer as a whole than the patience.
        assert!(began.elapsed() >= patience);
        reading.abort();
        written.is_ok()
    }

    #[tokio::test]
    async fn a_reader_that_stops_or_dawdles_is_given_up_and_one_that_keeps_up_is_not() {
        let taken = tokio::join!(is_taken(0), is_taken(1), is_taken(PORTION / 4));
        assert_eq!(taken, (false, false, true));
    }
}
