//! Log lines that Jepsen wrote in 2014 about a compare-and-set register in etcd, as porcupine keeps them:
//! `INFO  jepsen.util - PROCESS :TYPE :F VALUE`, with tabs or spaces between.
//!
//! A compare-and-set that `:fail`ed is an answer here: the register held another value. Any other call that failed had no effect.

use super::edn::{Edn, Reader};
use super::events::{Event, Kind, pair};
use super::jepsen::{cas_operands, value};
use super::{FormatError, History, Keyed, Model, Recorded};
use crate::referee::checker::Call;
use crate::referee::checker::register::{RegisterOp, RegisterRet};

const MARK: &str = "jepsen.util - ";

/// Whether this is such a log: a line of its first few bears the mark.
pub(super) fn is_one(text: &str) -> bool {
    text.lines().take(100).any(|line| line.contains(MARK) && !line.trim_start().starts_with(['{', '[', '(', ';']))
}

pub(super) fn read(text: &str, model: Option<Model>) -> Result<Recorded, FormatError> {
    if let Some(model) = model
        && !matches!(model, Model::Register | Model::CasRegister)
    {
        return Err(FormatError::new(1, format!("a log of jepsen.util is about a cas-register, not {model}")));
    }
    let mut events = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if let Some((_, said)) = line.split_once(MARK)
            && let Some(event) = event(text, at, said)?
        {
            events.push(event);
        }
        at += line.len();
    }
    let any_event = !events.is_empty();
    let mut calls = Vec::new();
    for pair in pair(text, events)? {
        let error = |message: &str| FormatError::at(text, pair.at, message);
        let op = match pair.f {
            "read" => RegisterOp::Read,
            "write" => RegisterOp::Write(value(&pair.asked)),
            "cas" => {
                let (old, new) = cas_operands(&pair.asked).ok_or_else(|| error(":cas needs [old new]"))?;
                RegisterOp::Cas(old, new)
            }
            other => return Err(error(&format!("a register has no operation :{other}"))),
        };
        let (complete, result) = match pair.answer {
            Some(answer) => match (answer.kind, &op) {
                (Kind::Ok, RegisterOp::Read) => (Some(answer.complete), Some(RegisterRet::Read(value(&answer.value)))),
                (Kind::Ok, _) => (Some(answer.complete), Some(RegisterRet::Done)),
                (Kind::Fail, RegisterOp::Cas(..)) if answer.value != Edn::Keyword("timed-out") => {
                    (Some(answer.complete), Some(RegisterRet::Mismatch))
                }
                (Kind::Fail, RegisterOp::Read | RegisterOp::Write(_)) => continue,
                (Kind::Fail | Kind::Info | Kind::Invoke, _) => (None, None),
            },
            None => (None, None),
        };
        let call = Call { process: pair.process, op, invoke: pair.invoke, complete, result };
        calls.push(Keyed { key: "register".to_owned(), call });
    }
    Ok(Recorded { history: History::Register(calls), any_event })
}

/// What a line says of a client; none if it is about the nemesis or something else.
fn event<'a>(text: &str, at: usize, said: &'a str) -> Result<Option<Event<'a, Edn<'a>>>, FormatError> {
    let error = |message: &str| FormatError::at(text, at, message);
    let mut reader = Reader::new(said.trim_end());
    let mut next =
        || reader.next_element().map_err(|wrong| error(&wrong.message)).map(|found| found.map(|(_, element)| element));
    let Some(Edn::Int(process)) = next()? else { return Ok(None) };
    let process = u64::try_from(process).map_err(|_| error("a process is not negative"))?;
    let (Some(Edn::Keyword(kind)), Some(Edn::Keyword(f))) = (next()?, next()?) else {
        return Err(error("a process is followed by :TYPE :F VALUE"));
    };
    let kind = Kind::parse(kind).ok_or_else(|| error("the type is :invoke, :ok, :fail or :info"))?;
    let value = next()?.ok_or_else(|| error("the value is missing"))?;
    Ok(Some(Event { at, process, kind, f, value }))
}
