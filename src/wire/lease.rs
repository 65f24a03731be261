//! The JSON bodies of leases: making them, what is bound to them, what keeps them alive.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::body::EntryBody;
use super::cluster::ConflictBody;
use super::read::{Garbled, Problem, entry, refusal};
use super::status::Code;
use super::write::{self, Entries, Text, bytes};
use crate::model::ident::{LeaseId, Mode, RecordId, Revision};
use crate::model::lease::{KeptAlive, LeaseInfo, LeaseStatus};
use crate::model::outcome::Refusal;

/// What the creation of a lease sends.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateLeaseBody {
    /// How long the lease lives unless it is kept alive.
    #[schema(minimum = 1_000, maximum = 86_400_000)]
    pub ttl_ms: u64,
    /// Its id: 1 to 128 visible ASCII characters, never used before. With one, the call may be repeated safely. Chosen by the
    /// registry unless given.
    #[serde(default)]
    pub lease: Option<String>,
}

/// A lease.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LeaseBody {
    pub lease: String,
    pub ttl_ms: u64,
    /// It lives so long unless it is kept alive, counted from when the request was sent.
    pub expires_in_ms: u64,
}

/// One page of live leases in byte order of their ids.
#[derive(Debug, Deserialize, ToSchema)]
pub struct LeasesBody {
    pub leases: Vec<LeaseInfoBody>,
    /// What to pass as `after=` for the next page; null at the end.
    pub next: Option<String>,
    pub revision: String,
}

/// A live lease, as a list shows it.
#[derive(Debug, Deserialize, ToSchema)]
pub struct LeaseInfoBody {
    pub lease: String,
    pub ttl_ms: u64,
    /// The credential that made it, if the server asked for one.
    pub credential: Option<String>,
}

/// A live lease with what is bound to it.
#[derive(Debug, Deserialize, ToSchema)]
pub struct LeaseStatusBody {
    pub lease: String,
    pub ttl_ms: u64,
    /// The credential that made it, if the server asked for one.
    pub credential: Option<String>,
    /// It lives so long from now unless it is kept alive.
    pub expires_in_ms: u64,
    /// One page of what ends with it: names first, then memberships.
    #[schema(value_type = Vec<EntryBody>)]
    pub entries: Vec<Box<RawValue>>,
    /// What to pass as `after=` for the next page; null at the end.
    pub next: Option<String>,
    pub revision: String,
}

/// What a keep-alive sends. It may be left out altogether.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeepAliveBody {
    /// Ids of conflict records that the owner has seen, so that they are not told again. At most 1,000.
    #[serde(default)]
    #[schema(max_items = 1_000)]
    pub seen: Vec<String>,
}

/// What a keep-alive of many leases sends.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeepAliveEachBody {
    /// 1 to 1,000 ids of leases.
    #[schema(min_items = 1, max_items = 1_000)]
    pub leases: Vec<String>,
    /// Ids of conflict records that their owners have seen. At most 1,000.
    #[serde(default)]
    #[schema(max_items = 1_000)]
    pub seen: Vec<String>,
}

/// A lease that was kept alive.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct KeptAliveBody {
    /// It lives so long unless it is kept alive again, counted from when the request was sent.
    pub expires_in_ms: u64,
    /// Registrations bound to it that have lost their name, told until a keep-alive says that it has `seen` them.
    pub lost: Vec<ConflictBody>,
    /// `ap`: true if another node keeps the lease from now on, which may not know all that is bound to it: register that again.
    #[serde(default, skip_serializing_if = "is_false")]
    pub moved: bool,
}

/// What became of many leases, in the order of the request.
#[derive(Debug, Deserialize, ToSchema)]
pub struct KeptAliveEachBody {
    pub results: Vec<KeepAliveResultBody>,
}

/// What became of one lease.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct KeepAliveResultBody {
    pub lease: String,
    /// As the answer to a keep-alive of this lease alone: 200, 403, 404 or 410.
    pub status: u16,
    /// With 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<u64>,
    /// With 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Vec<ConflictBody>>,
    /// With 200, if it is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<bool>,
    /// With any other status: one of the codes of the status table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// With any other status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// With any other status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retryable: Option<bool>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// The answer to the creation of a lease.
pub fn created(lease: &LeaseId, ttl_ms: u64, expires_in_ms: u64) -> Vec<u8> {
    bytes(128, &LeaseBody { lease: lease.to_string(), ttl_ms, expires_in_ms })
}

/// What the creation of a lease sends.
pub fn create(lease: Option<&LeaseId>, ttl_ms: u64) -> Vec<u8> {
    #[derive(Serialize)]
    struct Create<'a> {
        ttl_ms: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        lease: Option<&'a str>,
    }
    bytes(64, &Create { ttl_ms, lease: lease.map(LeaseId::as_str) })
}

/// One page of leases.
pub fn list(leases: &[LeaseInfo], next: Option<&str>, revision: &Revision) -> Vec<u8> {
    #[derive(Serialize)]
    struct Leases<'a> {
        leases: Vec<Info<'a>>,
        next: Option<&'a str>,
        revision: Text<'a, Revision>,
    }
    #[derive(Serialize)]
    struct Info<'a> {
        lease: &'a str,
        ttl_ms: u64,
        credential: Option<&'a str>,
    }
    let infos = leases.iter().map(|info| Info {
        lease: info.lease.as_str(),
        ttl_ms: info.ttl_ms,
        credential: info.credential.as_ref().map(|name| name.as_str()),
    });
    bytes(96 * (1 + leases.len()), &Leases { leases: infos.collect(), next, revision: Text(revision) })
}

/// A lease with a page of its entries.
pub fn status(status: &LeaseStatus, revision: &Revision) -> Vec<u8> {
    #[derive(Serialize)]
    struct Status<'a> {
        lease: &'a str,
        ttl_ms: u64,
        credential: Option<&'a str>,
        expires_in_ms: u64,
        entries: Entries<'a>,
        next: Option<&'a str>,
        revision: Text<'a, Revision>,
    }
    let view = Status {
        lease: status.info.lease.as_str(),
        ttl_ms: status.info.ttl_ms,
        credential: status.info.credential.as_ref().map(|name| name.as_str()),
        expires_in_ms: status.expires_in_ms,
        entries: Entries(&status.entries),
        next: status.next.as_deref(),
        revision: Text(revision),
    };
    bytes(256 * (1 + status.entries.len()), &view)
}

/// What the keep-alive of one lease sends.
pub fn keep_alive(seen: &[RecordId]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Keep<'a> {
        seen: &'a [RecordId],
    }
    match seen {
        [] => Vec::new(),
        seen => bytes(64 * (1 + seen.len()), &Keep { seen }),
    }
}

/// What the keep-alive of many leases sends.
pub fn keep_alive_each(leases: &[LeaseId], seen: &[RecordId]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Keep<'a> {
        leases: &'a [LeaseId],
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        seen: &'a [RecordId],
    }
    bytes(48 * (1 + leases.len() + seen.len()), &Keep { leases, seen })
}

/// The answer to a keep-alive.
pub fn kept_alive(kept: &KeptAlive) -> Vec<u8> {
    let lost = kept.lost.iter().map(ConflictBody::of).collect();
    bytes(64, &KeptAliveBody { expires_in_ms: kept.expires_in_ms, lost, moved: kept.moved })
}

/// The answer to a keep-alive of many leases: these, in this order.
pub fn kept_alive_each(mode: Mode, leases: &[LeaseId], results: &[Result<KeptAlive, Refusal>]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Each {
        results: Vec<KeepAliveResultBody>,
    }
    let results = leases.iter().zip(results).map(|(lease, result)| KeepAliveResultBody::of(mode, lease, result));
    bytes(96 * (1 + leases.len()), &Each { results: results.collect() })
}

impl KeepAliveResultBody {
    fn of(mode: Mode, lease: &LeaseId, result: &Result<KeptAlive, Refusal>) -> Self {
        let mut body = Self {
            lease: lease.to_string(),
            status: 200,
            expires_in_ms: None,
            lost: None,
            moved: None,
            code: None,
            title: None,
            retryable: None,
        };
        match result {
            Ok(kept) => {
                body.expires_in_ms = Some(kept.expires_in_ms);
                body.lost = Some(kept.lost.iter().map(ConflictBody::of).collect());
                body.moved = kept.moved.then_some(true);
            }
            Err(refusal) => {
                let refused = write::Problem::refused(refusal, None).of_mode(mode);
                let row = refused.code.row();
                body.status = row.status;
                body.code = Some(row.text.to_owned());
                body.title = Some(row.title.to_owned());
                body.retryable = Some(refused.retryable);
            }
        }
        body
    }

    fn read(self, mode: Mode) -> Result<Result<KeptAlive, Refusal>, Garbled> {
        match (self.status, self.expires_in_ms, self.code) {
            (200, Some(expires_in_ms), _) => {
                let moved = self.moved.unwrap_or(false);
                KeptAliveBody { expires_in_ms, lost: self.lost.unwrap_or_default(), moved }.read(mode).map(Ok)
            }
            (status, _, Some(code)) => {
                let code = Code::parse(&code).ok_or(Garbled::Code(code))?;
                refusal(mode, &Problem::of(code))?.map(Err).ok_or(Garbled::Status(status))
            }
            (status, _, None) => Err(Garbled::Status(status)),
        }
    }
}

impl KeptAliveBody {
    fn read(self, mode: Mode) -> Result<KeptAlive, Garbled> {
        let lost = self.lost.into_iter().map(|record| record.record(mode)).collect::<Result<_, _>>()?;
        Ok(KeptAlive { expires_in_ms: self.expires_in_ms, lost, moved: self.moved })
    }
}

/// Reads what [`kept_alive`] wrote.
pub fn read_kept_alive(mode: Mode, body: &[u8]) -> Result<KeptAlive, Garbled> {
    serde_json::from_slice::<KeptAliveBody>(body)?.read(mode)
}

/// Reads what [`kept_alive_each`] wrote about so many leases.
pub fn read_kept_alive_each(
    mode: Mode,
    leases: &[LeaseId],
    body: &[u8],
) -> Result<Vec<Result<KeptAlive, Refusal>>, Garbled> {
    let read: KeptAliveEachBody = serde_json::from_slice(body)?;
    if read.results.len() != leases.len()
        || read.results.iter().zip(leases).any(|(of, lease)| of.lease != lease.as_str())
    {
        return Err(Garbled::Count { wanted: leases.len(), found: read.results.len() });
    }
    read.results.into_iter().map(|result| result.read(mode)).collect()
}

/// Reads what [`list`] wrote, and where the next page begins.
pub fn read_list(body: &[u8]) -> Result<(Vec<LeaseInfo>, Option<String>), Garbled> {
    let read: LeasesBody = serde_json::from_slice(body)?;
    let leases = read.leases.into_iter().map(|info| {
        let credential = info.credential.map(|name| name.parse()).transpose()?;
        Ok::<_, Garbled>(LeaseInfo { lease: info.lease.parse()?, ttl_ms: info.ttl_ms, credential })
    });
    Ok((leases.collect::<Result<_, _>>()?, read.next))
}

/// Reads what [`status`] wrote.
pub fn read_status(mode: Mode, body: &[u8]) -> Result<LeaseStatus, Garbled> {
    let read: LeaseStatusBody = serde_json::from_slice(body)?;
    let credential = read.credential.map(|name| name.parse()).transpose()?;
    let entries = read.entries.iter().map(|raw| entry(mode, raw.get().as_bytes())).collect::<Result<_, _>>()?;
    Ok(LeaseStatus {
        info: LeaseInfo { lease: read.lease.parse()?, ttl_ms: read.ttl_ms, credential },
        expires_in_ms: read.expires_in_ms,
        entries,
        next: read.next,
    })
}
