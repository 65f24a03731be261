//! Who came and was not let in: counted, and told in one line.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// Lines are not written faster than this, however many strangers come.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What came to nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// Connections of whom it is not known which node they are from.
    pub connections: u64,
    /// Why the last of these was refused.
    pub last: Option<String>,
    /// Datagrams that were torn, forged, of another cluster or for somebody else.
    pub datagrams: u64,
    /// Genuine datagrams that had come before.
    pub replayed: u64,
}

/// Refused connections that belong to no node.
#[derive(Default)]
pub(super) struct Strangers(Mutex<(Noted, Option<Instant>)>);

impl Strangers {
    pub(super) fn refused(&self, from: SocketAddr, why: &str) {
        let line = format!("a connection from {} was refused: {why}", from.ip());
        let (noted, told) = &mut *self.0.lock().expect("no panic while held");
        noted.connections += 1;
        // Said once, not at every redial.
        if noted.last.as_ref() != Some(&line) && told.is_none_or(|told| told.elapsed() > TELL_EVERY) {
            tracing::error!("{line}");
            *told = Some(Instant::now());
        }
        noted.last = Some(line);
    }

    pub(super) fn noted(&self) -> Noted {
        self.0.lock().expect("no panic while held").0.clone()
    }
}
