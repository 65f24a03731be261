//! What a watch says, as server-sent events: `event:`, `id:` where one may go on from, and one line of JSON as `data:`.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::body::EntryBody;
use super::cluster::ConflictBody;
use super::read::{Garbled, entry as read_entry};
use super::sse;
use super::write::{Entries, EntryView, Text, bytes};
use crate::model::entry::Entry;
use crate::model::event::{Change, EndReason, Event, Told, WatchMessage};
use crate::model::ident::{LeaseId, Mode, Revision, Token};

/// `event: change`: all that changed at one revision.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ChangesBody<'a> {
    /// `cp`: the revision. `ap`: names one operation.
    pub revision: String,
    #[serde(borrow)]
    pub changes: Vec<ChangeBody<'a>>,
}

/// One thing that changed.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ChangeBody<'a> {
    /// `registered`, `updated`, `ended`, `joined`, `left`, `lease_expired`, `conflict`; `ap` also `hidden` and `shown`.
    pub kind: String,
    /// The entry as it is now; with `ended` and `left`, as it was. All but `lease_expired` and `conflict` have one.
    #[serde(borrow, default)]
    #[schema(value_type = Option<EntryBody>)]
    pub entry: Option<&'a RawValue>,
    /// With `registered` and `updated`: the entry as it was, where there was one.
    #[serde(borrow, default)]
    #[schema(value_type = Option<EntryBody>)]
    pub previous: Option<&'a RawValue>,
    /// `ap`, with `registered`, `updated` and `ended`: who holds the name now, as the answering node sees it.
    #[serde(borrow, default)]
    #[schema(value_type = Option<EntryBody>)]
    pub current: Option<&'a RawValue>,
    /// With `ended`: `unregistered`, `taken` (by another registration), `lease_expired`, `lease_revoked` or `conflict`. With
    /// `left`: `left`, `lease_expired` or `lease_revoked`.
    #[serde(default)]
    pub reason: Option<String>,
    /// With the reason `conflict`: the token of the grant that won.
    #[serde(default)]
    pub winner: Option<String>,
    /// With `lease_expired`: the lease. What was bound to it ends in the same message.
    #[serde(default)]
    pub lease: Option<String>,
    /// With `conflict`: who lost a name to whom.
    #[serde(default)]
    pub record: Option<ConflictBody>,
}

/// `event: state`: one page of what stands at the beginning.
#[derive(Debug, Deserialize, ToSchema)]
pub struct StateBody<'a> {
    #[serde(borrow)]
    #[schema(value_type = Vec<EntryBody>)]
    pub entries: Vec<&'a RawValue>,
}

/// `event: synced` (that was the whole state), `progress` (all up to here has been told), `resync` (the position asked for is gone:
/// read the state anew), `stalled` (`cp`: no leader has been heard of) and `overflow` (this reader was too slow; nothing follows).
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PositionBody {
    /// Where one may go on from, if there is such a place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// `cp`, with `progress`: whether the node has contact to a majority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quorum: Option<bool>,
}

/// One message as it goes over the wire.
pub fn message(message: &WatchMessage) -> Vec<u8> {
    let position = message.position.as_ref();
    sse::event(event_name(&message.told), position, &Data { told: &message.told, position })
}

/// The `data:` of a message alone.
pub fn data(told: &Told, position: Option<&Revision>) -> Vec<u8> {
    bytes(512, &Data { told, position })
}

/// What a message's `event:` says.
pub fn event_name(told: &Told) -> &'static str {
    match told {
        Told::State(_) => "state",
        Told::Synced => "synced",
        Told::Change(_) => "change",
        Told::Progress { .. } => "progress",
        Told::Stalled => "stalled",
        Told::Resync => "resync",
        Told::Overflow => "overflow",
    }
}

/// What a message tells, as JSON.
struct Data<'a> {
    told: &'a Told,
    position: Option<&'a Revision>,
}

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let at = |quorum| PositionBody { revision: self.position.map(Revision::to_string), quorum };
        match self.told {
            Told::State(entries) => State { entries: Entries(entries) }.serialize(serializer),
            Told::Change(event) => Changes::of(event).serialize(serializer),
            Told::Progress { quorum } => at(*quorum).serialize(serializer),
            Told::Synced | Told::Stalled | Told::Resync | Told::Overflow => at(None).serialize(serializer),
        }
    }
}

#[derive(Serialize)]
struct State<'a> {
    entries: Entries<'a>,
}

#[derive(Serialize)]
struct Changes<'a> {
    revision: Text<'a, Revision>,
    changes: Vec<ChangeView<'a>>,
}

impl<'a> Changes<'a> {
    fn of(event: &'a Event) -> Self {
        Self { revision: Text(&event.revision), changes: event.changes.iter().map(ChangeView::of).collect() }
    }
}

/// Writes what [`ChangeBody`] reads.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum ChangeView<'a> {
    Registered {
        entry: EntryView<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        previous: Option<EntryView<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        current: Option<EntryView<'a>>,
    },
    Updated {
        entry: EntryView<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        previous: Option<EntryView<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        current: Option<EntryView<'a>>,
    },
    Ended {
        reason: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        winner: Option<Text<'a, Token>>,
        entry: EntryView<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        current: Option<EntryView<'a>>,
    },
    Joined {
        entry: EntryView<'a>,
    },
    Left {
        reason: &'static str,
        entry: EntryView<'a>,
    },
    LeaseExpired {
        lease: &'a LeaseId,
    },
    Conflict {
        record: ConflictBody,
    },
    Hidden {
        entry: EntryView<'a>,
    },
    Shown {
        entry: EntryView<'a>,
    },
}

impl<'a> ChangeView<'a> {
    fn of(change: &'a Change) -> Self {
        let boxed = |entry: &'a Option<Box<Entry>>| entry.as_deref().map(EntryView::of);
        let plain = |entry: &'a Option<Entry>| entry.as_ref().map(EntryView::of);
        match change {
            Change::Registered { entry, previous, current } => ChangeView::Registered {
                entry: EntryView::of(entry),
                previous: plain(previous),
                current: boxed(current),
            },
            Change::Updated { entry, previous, current } => {
                ChangeView::Updated { entry: EntryView::of(entry), previous: plain(previous), current: boxed(current) }
            }
            Change::Ended { entry, reason, current } => {
                let winner = match reason {
                    EndReason::Conflict { winner } => Some(Text(winner)),
                    EndReason::Given | EndReason::Taken | EndReason::LeaseExpired | EndReason::LeaseRevoked => None,
                };
                let reason = reason_text(reason, UNREGISTERED);
                ChangeView::Ended { reason, winner, entry: EntryView::of(entry), current: boxed(current) }
            }
            Change::Joined { entry } => ChangeView::Joined { entry: EntryView::of(entry) },
            Change::Left { entry, reason } => {
                ChangeView::Left { reason: reason_text(reason, LEFT), entry: EntryView::of(entry) }
            }
            Change::LeaseExpired { lease } => ChangeView::LeaseExpired { lease },
            Change::Conflict { record } => ChangeView::Conflict { record: ConflictBody::of(record) },
            Change::Hidden { entry } => ChangeView::Hidden { entry: EntryView::of(entry) },
            Change::Shown { entry } => ChangeView::Shown { entry: EntryView::of(entry) },
        }
    }
}

const UNREGISTERED: &str = "unregistered";
const LEFT: &str = "left";
const TAKEN: &str = "taken";
const LEASE_EXPIRED: &str = "lease_expired";
const LEASE_REVOKED: &str = "lease_revoked";
const CONFLICT: &str = "conflict";

/// `given` is what giving it up is called.
fn reason_text(reason: &EndReason, given: &'static str) -> &'static str {
    match reason {
        EndReason::Given => given,
        EndReason::Taken => TAKEN,
        EndReason::LeaseExpired => LEASE_EXPIRED,
        EndReason::LeaseRevoked => LEASE_REVOKED,
        EndReason::Conflict { .. } => CONFLICT,
    }
}

/// Reads what [`message`] wrote, its lines taken apart. None: an event of a later version, to be passed over.
pub fn read_message(mode: Mode, event: &str, id: Option<&str>, data: &str) -> Result<Option<WatchMessage>, Garbled> {
    let told = match event {
        "state" => {
            let read: StateBody = serde_json::from_str(data)?;
            let entries = read.entries.iter().map(|raw| read_entry(mode, raw.get().as_bytes()));
            Told::State(entries.collect::<Result<_, _>>()?)
        }
        "change" => {
            let read: ChangesBody = serde_json::from_str(data)?;
            let changes = read.changes.into_iter().map(|change| change.change(mode)).collect::<Result<_, _>>()?;
            Told::Change(Event { revision: Revision::parse(mode, &read.revision)?, changes })
        }
        "progress" => Told::Progress { quorum: serde_json::from_str::<PositionBody>(data)?.quorum },
        "synced" => Told::Synced,
        "stalled" => Told::Stalled,
        "resync" => Told::Resync,
        "overflow" => Told::Overflow,
        _ => return Ok(None),
    };
    let position = id.map(|id| Revision::parse(mode, id)).transpose()?;
    Ok(Some(WatchMessage { told, position }))
}

impl ChangeBody<'_> {
    fn change(self, mode: Mode) -> Result<Change, Garbled> {
        let optional = |raw: Option<&RawValue>| raw.map(|raw| read_entry(mode, raw.get().as_bytes())).transpose();
        let entry = || optional(self.entry)?.ok_or(Garbled::NoEntry);
        let current = || Ok::<_, Garbled>(optional(self.current)?.map(Box::new));
        let unknown = |what: &str| Garbled::Change(what.to_owned());
        Ok(match self.kind.as_str() {
            "registered" => {
                Change::Registered { entry: entry()?, previous: optional(self.previous)?, current: current()? }
            }
            "updated" => Change::Updated { entry: entry()?, previous: optional(self.previous)?, current: current()? },
            "ended" => Change::Ended { entry: entry()?, reason: self.reason(mode)?, current: current()? },
            "joined" => Change::Joined { entry: entry()? },
            "left" => Change::Left { entry: entry()?, reason: self.reason(mode)? },
            "lease_expired" => Change::LeaseExpired { lease: self.lease.ok_or_else(|| unknown("lease"))?.parse()? },
            "conflict" => Change::Conflict { record: self.record.ok_or_else(|| unknown("record"))?.record(mode)? },
            "hidden" => Change::Hidden { entry: entry()? },
            "shown" => Change::Shown { entry: entry()? },
            kind => return Err(unknown(kind)),
        })
    }

    fn reason(&self, mode: Mode) -> Result<EndReason, Garbled> {
        match (self.reason.as_deref(), &self.winner) {
            (Some(UNREGISTERED | LEFT), _) => Ok(EndReason::Given),
            (Some(TAKEN), _) => Ok(EndReason::Taken),
            (Some(LEASE_EXPIRED), _) => Ok(EndReason::LeaseExpired),
            (Some(LEASE_REVOKED), _) => Ok(EndReason::LeaseRevoked),
            (Some(CONFLICT), Some(winner)) => Ok(EndReason::Conflict { winner: Token::parse(mode, winner)? }),
            (reason, _) => Err(Garbled::Change(format!("reason {reason:?}"))),
        }
    }
}
