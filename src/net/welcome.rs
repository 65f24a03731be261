//! What becomes of a connection that somebody opens to this node: a handshake, and then a link for whoever takes those of its purpose;
//! or a refusal in one line, which both operators see.

use std::io::{self, Cursor};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::fault::Direction;
use super::frame::{self, HELLO_LEN_MAX, Hello, Welcome};
use super::link::Link;
use super::links::{Shared, send_whole};
use super::mutual::distrust;
use super::wire::{Arrival, ReadHalf, StreamListener, WriteHalf};

/// How long a stranger may take to say who it is.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);
/// Handshakes of peers, or of strangers, under way at once; more connections are closed. A node of a large cluster that has just
/// started has about a hundred.
const HANDSHAKES_MAX: usize = 512;
/// How TLS begins to shake hands.
const TLS_HANDSHAKE: [u8; 2] = [0x16, 0x03];

/// Lets peers in, one after the other, until it is aborted.
pub(super) async fn accept_all(shared: Arc<Shared>, mut streams: Box<dyn StreamListener>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        match streams.accept().await {
            Ok(arrival) => {
                let Ok(room) = handshakes.clone().try_acquire_owned() else { continue };
                let shared = shared.clone();
                tokio::spawn(async move {
                    match timeout(HELLO_PATIENCE, welcome(&shared, arrival)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(e)) => tracing::debug!("a connection came to nothing: {e}"),
                        Err(_) => tracing::debug!("a connection said nothing in time"),
                    }
                    drop(room);
                });
            }
            // Out of descriptors, most likely: others have to close first.
            Err(e) => {
                tracing::warn!("cannot accept a connection: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn welcome(shared: &Shared, Arrival { reader, writer, from }: Arrival) -> io::Result<()> {
    let (shown, mut reader, mut writer) = match &shared.tls {
        None => (None, reader, writer),
        Some(tls) => {
            let mut reader = reader;
            let mut first = [0; TLS_HANDSHAKE.len()];
            reader.read_exact(&mut first).await?;
            let reader = Box::new(Cursor::new(first).chain(reader));
            if first != TLS_HANDSHAKE {
                return refuse_in_the_clear(shared, reader, writer, from).await;
            }
            match tls.load_full().accept((reader, writer)).await {
                Ok((shown, reader, writer)) => (Some(shown), reader, writer),
                Err(e) => {
                    // A dialler that does not believe us may be gone before it has said why.
                    let why = match distrust(&e) {
                        Some(why) => format!("no mutual TLS with it: {why}"),
                        None => format!("it broke off the TLS handshake: {e}"),
                    };
                    shared.strangers.refused(from, &why);
                    return Err(e);
                }
            }
        }
    };
    let mut buffer = BytesMut::with_capacity(HELLO_LEN_MAX);
    let hello = match frame::read(&mut reader, &mut buffer, HELLO_LEN_MAX).await {
        Ok(hello) => frame::from_payload::<Hello>(&hello)?,
        Err(e) => {
            if shared.tls.is_none() && buffer.starts_with(&TLS_HANDSHAKE) {
                let why = "it speaks TLS, and this node does not: start all nodes with --peer-cert, or none";
                shared.strangers.refused(from, why);
            }
            return Err(e);
        }
    };
    let peer = hello.from.node;
    let me = &shared.identity;
    // Who it is comes first: only then is what it says worth anything.
    let foreign = shared.certificate_refusal(peer, shown.as_ref());
    // Nothing about another cluster's node is known here, whatever its id.
    let unfit = foreign.or_else(|| hello.refusal(me));
    let removal = if unfit.is_none() { shared.removal(peer) } else { None };
    let removed = removal.is_some();
    if let Some(why) = unfit.or(removal).or_else(|| shared.gate_refusal(peer, &hello.about)) {
        shared.note_refusal(peer, &why);
        return send_whole(&mut writer, &frame::to_payload(&Welcome::Refused { why, removed })).await;
    }
    // Before anything is waited for: of two lives of a peer, the later one is to be named last.
    shared.hub.named(peer, hello.from.run);
    // The first packet would not have come through, nor the answer gone back.
    shared.faults.mended(peer, &[Direction::Incoming, Direction::Outgoing]).await;
    // A node that is still starting is waited for: whoever dialled brings a deadline.
    let mut takers = shared.takers.subscribe();
    let waiting = takers.wait_for(|takers| takers.contains_key(&hello.purpose)).await;
    let Some(taker) = waiting.ok().and_then(|takers| takers.get(&hello.purpose).cloned()) else { return Ok(()) };
    shared.note_about(peer, hello.about);
    let accepted = Welcome::Accepted { run: me.run, about: shared.own_about() };
    send_whole(&mut writer, &frame::to_payload(&accepted)).await?;
    let link = Link {
        peer,
        peer_run: hello.from.run,
        reader: shared.reader(peer, reader).with_buffer(buffer),
        writer: shared.writer(peer, writer),
    };
    let _ = taker.send(link).await;
    Ok(())
}

/// Tells a node without TLS why it is not let in, in the only way that it understands.
async fn refuse_in_the_clear(
    shared: &Shared,
    mut reader: ReadHalf,
    mut writer: WriteHalf,
    from: SocketAddr,
) -> io::Result<()> {
    shared.strangers.refused(from, "it does not speak TLS: start all nodes with --peer-cert, or none");
    // Read to its end: a connection that is closed with bytes unread is reset, and our answer might be lost.
    frame::read(&mut reader, &mut BytesMut::new(), HELLO_LEN_MAX).await?;
    let me = shared.identity.node;
    let why = format!("node {me} speaks TLS with its peers: start all nodes with --peer-cert, or none");
    send_whole(&mut writer, &frame::to_payload(&Welcome::Refused { why, removed: false })).await
}
