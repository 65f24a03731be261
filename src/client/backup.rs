//! A backup on its way from a server, piece by piece: it may be larger than memory.

use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use tokio::time::timeout;

use super::call::{Caller, Cause};
use super::client::Client;
use super::connection::{Begun, Streamed};
use super::error::Error;
use super::stream::QUIET_MAX;
use super::{judge, request};

/// A backup that is coming in.
#[derive(Debug)]
pub struct Download {
    body: Box<Streamed>,
}

impl Caller {
    /// Begins to fetch the whole `cp` table, as new as this call. The time is for the beginning alone.
    pub async fn backup(&self, timeout: Duration) -> Result<Download, Cause> {
        let prepared = request::plain(Method::GET, "/v1/cluster/backup?", None::<&()>, timeout);
        match self.stream(prepared, timeout).await? {
            Begun::Stream(body) => Ok(Download { body }),
            Begun::Answer(answered) => Err(judge::no_answer(&answered)),
        }
    }
}

impl Client {
    /// Begins to fetch the whole `cp` table, as new as this call, from a server that can give it.
    ///
    /// ```no_run
    /// # async fn example(client: quorate::client::client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::io::Write;
    ///
    /// let mut file = std::fs::File::create("backup.part")?;
    /// let mut download = client.backup().await?;
    /// while let Some(piece) = download.next().await? {
    ///     file.write_all(&piece)?;
    /// }
    /// file.sync_all()?;
    /// # Ok(()) }
    /// ```
    pub async fn backup(&self) -> Result<Download, Error> {
        let mut tries = self.tries(true);
        loop {
            let (caller, options) = self.next(&tries);
            if let Some(ended) = tries.end_query(caller.backup(options.timeout).await).await {
                return ended.map_err(Error::Unanswered);
            }
        }
    }
}

impl Download {
    /// The next piece; none at the end. An error: the rest will not come, and what came so far is no backup.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Cause> {
        timeout(QUIET_MAX, self.body.next()).await.unwrap_or(Err(Cause::Late))
    }
}
