//! What is asked of a call beside its subject: its deadline, and how sure its answer has to be.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use axum::http::request::Parts;

use super::params::Params;
use super::reply::Rejection;
use crate::model::ident::{Mode, Revision};
use crate::registry::{CommandCall, Consistency, QueryCall};

/// How long a call may take unless it says otherwise.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_millis(2_000);
/// The longest that a call may ask for.
pub const TIMEOUT_MAX: Duration = Duration::from_millis(30_000);
/// More nodes than any cluster has.
const NODES_MAX: u64 = 1_000;

/// When the call has to be answered.
pub fn deadline(params: &mut Params, arrived: Instant) -> Result<Instant, Rejection> {
    let asked = params.number("timeout_ms", 1, TIMEOUT_MAX.as_millis() as u64)?;
    Ok(arrived + asked.map_or(TIMEOUT_DEFAULT, Duration::from_millis))
}

/// The deadline of a call that has no other parameters.
pub fn deadline_alone(parts: &Parts) -> Result<Instant, Rejection> {
    let mut params = Params::parse(parts.uri.query(), &["timeout_ms"])?;
    deadline(&mut params, Instant::now())
}

/// The levels of a command: `timeout_ms`, `forward` (`cp`), `w` (`ap`).
pub fn of_command(mode: Mode, params: &mut Params, arrived: Instant) -> Result<CommandCall, Rejection> {
    let acks = params.number("w", 1, NODES_MAX)?;
    if acks.is_some() && mode == Mode::Cp {
        return Err(Rejection::malformed("w= belongs to ap: cp always waits for a majority"));
    }
    Ok(CommandCall {
        deadline: deadline(params, arrived)?,
        forward: forward(mode, params)?,
        acks: acks.map_or(1, |acks| acks as usize),
    })
}

/// The levels of a query: `timeout_ms`, `forward` (`cp`), `consistency` with `r` (`ap`), `min_revision`, `include` (`ap`).
pub fn of_query(mode: Mode, params: &mut Params, arrived: Instant) -> Result<QueryCall, Rejection> {
    Ok(QueryCall {
        deadline: deadline(params, arrived)?,
        consistency: consistency(mode, params)?,
        forward: forward(mode, params)?,
        min_revision: params.parsed("min_revision", |text| Revision::parse(mode, text))?,
        include_hidden: include_hidden(mode, params)?,
    })
}

/// Whether what a node of `ap` hides is asked for, too.
fn include_hidden(mode: Mode, params: &mut Params) -> Result<bool, Rejection> {
    match (mode, params.take("include").as_deref()) {
        (_, None) => Ok(false),
        (Mode::Ap, Some("hidden")) => Ok(true),
        (Mode::Ap, Some(_)) => Err(Rejection::malformed("include= can only be hidden")),
        (Mode::Cp, Some(_)) => Err(Rejection::malformed("include= belongs to ap: cp hides nothing")),
    }
}

fn consistency(mode: Mode, params: &mut Params) -> Result<Consistency, Rejection> {
    let level = params.take("consistency");
    let nodes = params.number("r", 1, NODES_MAX)?.map(|nodes| nodes as usize);
    match (mode, level.as_deref(), nodes) {
        (_, None, None) => Ok(Consistency::default_of(mode)),
        (Mode::Cp, Some("linearizable"), None) => Ok(Consistency::Linearizable),
        (Mode::Cp, Some("leader"), None) => Ok(Consistency::Leader),
        (Mode::Cp, Some("stale"), None) => Ok(Consistency::Stale),
        (Mode::Ap, Some("local"), None) => Ok(Consistency::Local),
        (Mode::Ap, Some("quorum"), Some(nodes)) => Ok(Consistency::Quorum(nodes)),
        (Mode::Cp, _, Some(_)) => Err(Rejection::malformed("r= belongs to ap")),
        (Mode::Ap, Some("quorum"), None) => {
            Err(Rejection::malformed("consistency=quorum needs r=, the number of nodes to ask"))
        }
        (Mode::Ap, None | Some("local"), Some(_)) => Err(Rejection::malformed("r= needs consistency=quorum")),
        (Mode::Cp, Some(_), None) => {
            Err(Rejection::malformed("cp has consistency=linearizable, consistency=leader and consistency=stale"))
        }
        (Mode::Ap, Some(_), _) => Err(Rejection::malformed("ap has consistency=local, and consistency=quorum with r=")),
    }
}

/// Whether this node may pass the call on to the leader.
fn forward(mode: Mode, params: &mut Params) -> Result<bool, Rejection> {
    match (mode, params.take("forward").as_deref()) {
        (_, None) => Ok(true),
        (Mode::Cp, Some("redirect")) => Ok(false),
        (Mode::Cp, Some(_)) => Err(Rejection::malformed("forward= can only be redirect")),
        (Mode::Ap, Some(_)) => Err(Rejection::malformed("forward= belongs to cp: ap never passes a call on")),
    }
}

/// Takes out a yes or no; no unless given.
pub fn flag(params: &mut Params, name: &'static str) -> Result<bool, Rejection> {
    let value: Option<Cow<str>> = params.take(name);
    match value.as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Rejection::malformed(format!("{name}= is true or false"))),
    }
}
