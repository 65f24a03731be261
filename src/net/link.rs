//! One connection to a peer, in frames, with the faults in force.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::expelled::Expelled;
use super::fault::{Direction, Fate, FaultTable};
use super::frame::{self, FRAME_LEN_MAX};
use super::wire::{ReadHalf, WriteHalf};
use crate::model::ident::NodeId;

/// Bytes that a cut or slow link holds for its peer. Beyond, the connection breaks, as a full socket's would in the end.
const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A connection whose handshake is done.
pub struct Link {
    pub peer: NodeId,
    /// The peer process's life: another number after a restart.
    pub peer_run: u64,
    pub reader: LinkReader,
    pub writer: LinkWriter,
}

/// Receives frames. Cancelling [`recv`](Self::recv) loses nothing.
pub struct LinkReader {
    peer: NodeId,
    reader: ReadHalf,
    buffer: BytesMut,
    faults: FaultTable,
    expelled: Expelled,
    /// Read already, but not yet arrived as far as the faults are concerned.
    held: Option<(Bytes, Instant)>,
}

impl LinkReader {
    pub(super) fn new(peer: NodeId, reader: ReadHalf, faults: FaultTable, expelled: Expelled) -> Self {
        Self { peer, reader, buffer: BytesMut::with_capacity(64 * 1024), faults, expelled, held: None }
    }

    /// What has been read already, beyond the handshake, comes first.
    pub(super) fn with_buffer(self, buffer: BytesMut) -> Self {
        Self { buffer, ..self }
    }

    /// The next frame's payload. `UnexpectedEof` when the peer has closed; after any error the link is of no more use.
    pub async fn recv(&mut self) -> io::Result<Bytes> {
        if self.held.is_none() {
            let payload = frame::read(&mut self.reader, &mut self.buffer, FRAME_LEN_MAX).await?;
            self.expelled.check(self.peer)?;
            let now = Instant::now();
            let due = match self.faults.fate(self.peer, Direction::Incoming) {
                Fate::Pass => return Ok(payload),
                Fate::Cut => now,
                Fate::Late(by) | Fate::Lost(by) => now + by,
            };
            self.held = Some((payload, due));
        }
        let due = self.held.as_ref().expect("just filled").1;
        tokio::time::sleep_until(due).await;
        self.faults.mended(self.peer, &[Direction::Incoming]).await;
        Ok(self.held.take().expect("just filled").0)
    }
}

/// Sends frames, each or each batch in one write.
pub struct LinkWriter {
    peer: NodeId,
    faults: FaultTable,
    expelled: Expelled,
    /// None while a task drains `held` into it, and after a write was cut short.
    writer: Option<WriteHalf>,
    held: Arc<Mutex<Held>>,
    out: BytesMut,
}

/// What a faulty link keeps for its peer, in order.
#[derive(Default)]
struct Held {
    frames: VecDeque<(Bytes, Instant)>,
    bytes: usize,
    draining: bool,
    /// Handed back when everything is out.
    writer: Option<WriteHalf>,
    broken: bool,
}

impl LinkWriter {
    pub(super) fn new(peer: NodeId, writer: WriteHalf, faults: FaultTable, expelled: Expelled) -> Self {
        Self { peer, faults, expelled, writer: Some(writer), held: Arc::default(), out: BytesMut::new() }
    }

    /// Hands one frame to the kernel. On an error, or if this is cancelled, the peer has not got the whole frame and the
    /// link is of no more use.
    pub async fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        self.out.clear();
        frame::encode(payload, &mut self.out);
        self.flush().await
    }

    /// Hands many frames to the kernel in one write. On an error, or if this is cancelled, some may have arrived.
    pub async fn send_all(&mut self, payloads: &[Bytes]) -> io::Result<()> {
        self.out.clear();
        for payload in payloads {
            frame::encode(payload, &mut self.out);
        }
        self.flush().await
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.expelled.check(self.peer)?;
        self.take_back();
        let fate = self.faults.fate(self.peer, Direction::Outgoing);
        match (fate, self.writer.take()) {
            (Fate::Pass, Some(mut writer)) => {
                // Not put back unless all is out: half a frame must not be followed by another.
                writer.write_all(&self.out).await?;
                // TLS keeps what the kernel did not take at once.
                writer.flush().await?;
                self.writer = Some(writer);
                Ok(())
            }
            (Fate::Pass | Fate::Cut, writer) => self.hold(writer, Instant::now()),
            (Fate::Late(by) | Fate::Lost(by), writer) => self.hold(writer, Instant::now() + by),
        }
    }

    fn take_back(&mut self) {
        if self.writer.is_none() {
            let mut held = self.held.lock().expect("no panic while held");
            if !held.draining {
                self.writer = held.writer.take();
            }
        }
    }

    /// Keeps what is in `out`, and has a task send it when it is due and the link is whole.
    fn hold(&mut self, writer: Option<WriteHalf>, due: Instant) -> io::Result<()> {
        let mut held = self.held.lock().expect("no panic while held");
        if held.broken || (writer.is_none() && !held.draining) || held.bytes + self.out.len() > HELD_BYTES_MAX {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        held.bytes += self.out.len();
        held.frames.push_back((self.out.split().freeze(), due));
        if let Some(writer) = writer {
            held.draining = true;
            tokio::spawn(drain(self.held.clone(), writer, self.peer, self.faults.clone()));
        }
        Ok(())
    }
}

async fn drain(held: Arc<Mutex<Held>>, mut writer: WriteHalf, peer: NodeId, faults: FaultTable) {
    loop {
        let next = {
            let mut held = held.lock().expect("no panic while held");
            match held.frames.pop_front() {
                Some(next) => next,
                None => {
                    held.draining = false;
                    held.writer = Some(writer);
                    return;
                }
            }
        };
        let (frame, due) = next;
        tokio::time::sleep_until(due).await;
        tokio::select! {
            () = faults.mended(peer, &[Direction::Outgoing]) => {}
            // The link was dropped: its connection is closed by dropping the writer here.
            () = dropped(&held) => return,
        }
        if writer.write_all(&frame).await.is_err() || writer.flush().await.is_err() {
            held.lock().expect("no panic while held").broken = true;
            return;
        }
        held.lock().expect("no panic while held").bytes -= frame.len();
    }
}

/// Returns when the [`LinkWriter`] is gone.
async fn dropped(held: &Arc<Mutex<Held>>) {
    while Arc::strong_count(held) > 1 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
