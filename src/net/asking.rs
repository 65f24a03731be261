//! Many requests over one connection, each with an id and somebody who waits for its answer.
//!
//! What is known of a request without an answer is its [`Silence`]: one that never reached the connection can be withdrawn for certain;
//! of one that did, only the other side's own word tells.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout_at};

use super::link::{Link, LinkReader, LinkWriter};
use crate::model::ident::NodeId;

/// Requests or answers sent in one write.
const BATCH_LEN_MAX: usize = 256;
/// Answers that wait for one connection.
const ANSWERS_LEN_MAX: usize = 1_024;
/// Requests of one connection that are being answered at once. More wait in the connection.
const ANSWERING_MAX: usize = 16 * 1_024;
/// How often it is looked for requests whose answers are late.
const LATE_PERIOD: Duration = Duration::from_millis(200);

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// The request has not left this node, and will not.
    NotSent,
    /// Too many are waiting; the request has not left this node, and will not.
    Overloaded,
    /// It may have arrived.
    Lost,
}

/// What becomes of a connection over which an answer has not come in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lateness {
    /// It is closed if nothing else has come over it for long, either.
    Doubted,
    /// It is closed: what is still held on this side of it must not arrive some day.
    Fatal,
}

/// Where requests to one peer are put in. Clones share it.
#[derive(Clone)]
pub struct Line {
    queue: mpsc::Sender<Arc<Request>>,
    suspect: Arc<Suspect>,
}

/// The other end of a [`Line`], for whoever has the connection.
pub struct Requests {
    queue: mpsc::Receiver<Arc<Request>>,
    first: Option<Arc<Request>>,
    suspect: Arc<Suspect>,
}

/// A connection that seems to be dead.
#[derive(Default)]
struct Suspect {
    notify: Notify,
    /// Something came since the last doubt.
    heard: AtomicBool,
}

const QUEUED: u8 = 0;
const SENT: u8 = 1;
const WITHDRAWN: u8 = 2;

struct Request {
    payload: Bytes,
    deadline: Instant,
    state: AtomicU8,
    answer: Mutex<Option<oneshot::Sender<Result<Bytes, Silence>>>>,
}

impl Request {
    fn settle(&self, result: Result<Bytes, Silence>) {
        if let Some(answer) = self.answer.lock().expect("no panic while held").take() {
            let _ = answer.send(result);
        }
    }

    /// Takes the request out of `QUEUED`, into one of the other states. False: it has left it before.
    fn leave_queue(&self, to: u8) -> bool {
        self.state.compare_exchange(QUEUED, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn not_sent(&self) {
        if self.leave_queue(WITHDRAWN) {
            self.settle(Err(Silence::NotSent));
        }
    }
}

/// A line, on which so many requests may wait for the connection. More are refused as overload.
pub fn line(queue_len_max: usize) -> (Line, Requests) {
    let (sender, queue) = mpsc::channel(queue_len_max);
    let suspect = Arc::<Suspect>::default();
    (Line { queue: sender, suspect: suspect.clone() }, Requests { queue, first: None, suspect })
}

impl Line {
    /// Asks; an answer by the deadline, or what is known without one. The request is on its way once this was first polled, and is not
    /// withdrawn when it is dropped.
    pub async fn ask(&self, payload: Bytes, deadline: Instant) -> Result<Bytes, Silence> {
        let (answer, answered) = oneshot::channel();
        let state = AtomicU8::new(QUEUED);
        let request = Arc::new(Request { payload, deadline, state, answer: Mutex::new(Some(answer)) });
        if self.queue.try_send(request.clone()).is_err() {
            return Err(Silence::Overloaded);
        }
        match timeout_at(deadline, answered).await {
            Ok(Ok(result)) => result,
            // It was dropped with the connection's end of the line, or it is late.
            Ok(Err(_)) | Err(_) if request.leave_queue(WITHDRAWN) => Err(Silence::NotSent),
            Ok(Err(_)) => Err(Silence::Lost),
            Err(_) => {
                // If nothing at all has come for so long, the connection is as good as dead; what is still held on this side of
                // it must not arrive some day.
                if !self.suspect.heard.swap(false, Ordering::AcqRel) {
                    self.suspect.notify.notify_one();
                }
                Err(Silence::Lost)
            }
        }
    }
}

impl Requests {
    /// Waits until there is something to send. False: there never will be.
    pub async fn wait(&mut self) -> bool {
        while self.first.is_none() {
            let Some(request) = self.queue.recv().await else { return false };
            self.first = Some(request).filter(|request| request.state.load(Ordering::Acquire) == QUEUED);
        }
        true
    }

    /// There is no connection: what waits for one is not sent.
    pub fn give_up(&mut self) {
        if let Some(first) = self.first.take() {
            first.not_sent();
        }
        while let Ok(request) = self.queue.try_recv() {
            request.not_sent();
        }
    }

    /// Sends what is asked over a connection, and settles what is answered, until it breaks, is doubted, or nobody can ask any more.
    /// `heard`: an answer came.
    pub async fn carry(&mut self, link: Link, lateness: Lateness, heard: impl Fn() + Send + 'static) {
        let in_flight = InFlight::default();
        let Link { reader, mut writer, .. } = link;
        let mut reading = JoinSet::new();
        reading.spawn(read_answers(reader, heard, in_flight.clone(), self.suspect.clone()));
        let mut batch = self.first.take().into_iter().collect::<Vec<_>>();
        let mut look = interval(LATE_PERIOD);
        let mut next_id = 0;
        while send(&mut writer, &mut batch, &mut next_id, &in_flight).await.is_ok() {
            tokio::select! {
                count = self.queue.recv_many(&mut batch, BATCH_LEN_MAX) => if count == 0 { break },
                _ = reading.join_next() => break,
                () = self.suspect.notify.notified() => break,
                _ = look.tick(), if lateness == Lateness::Fatal => if some_are_late(&in_flight) { break },
            }
        }
        reading.shutdown().await;
        batch.iter().for_each(|request| request.not_sent());
        let lost = std::mem::take(&mut *in_flight.lock().expect("no panic while held"));
        lost.into_values().for_each(|request| request.settle(Err(Silence::Lost)));
    }
}

type InFlight = Arc<Mutex<HashMap<u64, Arc<Request>>>>;

fn some_are_late(in_flight: &InFlight) -> bool {
    let now = Instant::now();
    in_flight.lock().expect("no panic while held").values().any(|request| request.deadline < now)
}

async fn send(
    writer: &mut LinkWriter,
    batch: &mut Vec<Arc<Request>>,
    next_id: &mut u64,
    in_flight: &InFlight,
) -> std::io::Result<()> {
    // From here on these may arrive, whatever becomes of the write.
    batch.retain(|request| request.leave_queue(SENT));
    let mut payloads = Vec::with_capacity(batch.len());
    {
        let mut in_flight = in_flight.lock().expect("no panic while held");
        for request in batch.drain(..) {
            *next_id += 1;
            payloads.push(with_id(*next_id, &request.payload));
            in_flight.insert(*next_id, request);
        }
    }
    if payloads.is_empty() { Ok(()) } else { writer.send_all(&payloads).await }
}

async fn read_answers(mut reader: LinkReader, heard: impl Fn(), in_flight: InFlight, suspect: Arc<Suspect>) {
    while let Ok(bytes) = reader.recv().await {
        heard();
        suspect.heard.store(true, Ordering::Release);
        let Some((id, answer)) = take_id(bytes) else { return };
        if let Some(request) = in_flight.lock().expect("no panic while held").remove(&id) {
            request.settle(Ok(answer));
        }
    }
}

/// A request or an answer goes over the wire behind its id, eight bytes.
fn with_id(id: u64, payload: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(8 + payload.len());
    bytes.put_u64_le(id);
    bytes.extend_from_slice(payload);
    bytes.freeze()
}

fn take_id(bytes: Bytes) -> Option<(u64, Bytes)> {
    let id = bytes.first_chunk::<8>()?;
    Some((u64::from_le_bytes(*id), bytes.slice(8..)))
}

/// Serves what peers ask of this node. `answer` is called in the order in which the requests of one connection come; what it returns is
/// awaited for all at once. None: that is no request, and the connection is closed.
pub async fn serve<F, A>(mut links: mpsc::Receiver<Link>, answer: F)
where
    F: Fn(NodeId, &[u8]) -> Option<A> + Clone + Send + Sync + 'static,
    A: Future<Output = Bytes> + Send + 'static,
{
    let mut open = JoinSet::new();
    while let Some(link) = links.recv().await {
        open.spawn(serve_link(link, answer.clone()));
        while open.try_join_next().is_some() {}
    }
}

async fn serve_link<F, A>(link: Link, answer: F)
where
    F: Fn(NodeId, &[u8]) -> Option<A>,
    A: Future<Output = Bytes> + Send + 'static,
{
    let Link { peer, mut reader, mut writer, .. } = link;
    let (answers, mut answered) = mpsc::channel::<Bytes>(ANSWERS_LEN_MAX);
    let writing = async move {
        let mut batch = Vec::new();
        while answered.recv_many(&mut batch, BATCH_LEN_MAX).await > 0 {
            if writer.send_all(&batch).await.is_err() {
                return;
            }
            batch.clear();
        }
    };
    let room = Arc::new(Semaphore::new(ANSWERING_MAX));
    let reading = async move {
        while let (Ok(place), Ok(bytes)) = (room.clone().acquire_owned().await, reader.recv().await) {
            let request = take_id(bytes).and_then(|(id, bytes)| Some((id, answer(peer, &bytes)?)));
            let Some((id, answering)) = request else {
                return tracing::warn!(peer, "a request cannot be read");
            };
            let answers = answers.clone();
            tokio::spawn(async move {
                let told = answering.await;
                let _ = answers.send(with_id(id, &told)).await;
                drop(place);
            });
        }
    };
    tokio::select! {
        () = writing => {}
        () = reading => {}
    }
}
