//! Histories in EDN: maps with `:process :type :f :value`, in one list or vector or one after the other. Also porcupine's key-value
//! files, which have `:key` too.
//!
//! Which model it is, the operations tell: `:acquire`, `:release` a mutex; `:txn` (its value a vector of `[:read k v]`, `[:write k v]`)
//! several registers; `:get`, `:put`, `:append` a key-value store; `:read`, `:write`, `:cas` a register. If every value of a register's
//! history is a pair `[key value]`, it is one of many registers (Jepsen's `independent`). Calls that are not by a numbered
//! process (`:nemesis`) are no calls of a client.

use std::sync::Arc;

use super::edn::{Edn, Reader};
use super::events::{Event, Kind, Pair, pair};
use super::{FormatError, History, Keyed, Model, Recorded};
use crate::referee::checker::Call;
use crate::referee::checker::kv::{KvOp, KvRet, Text};
use crate::referee::checker::multi::{Part, Txn};
use crate::referee::checker::mutex::MutexOp;
use crate::referee::checker::register::{RegisterOp, RegisterRet, Value};

/// A value, and the key beside it if the file has one.
struct Valued<'a> {
    key: Option<Edn<'a>>,
    value: Edn<'a>,
}

type ClientCall<'a> = Pair<'a, Valued<'a>>;

pub(super) fn read(text: &str, model: Option<Model>) -> Result<Recorded, FormatError> {
    let (events, any_event) = events(text)?;
    let calls = pair(text, events)?;
    let model = match model {
        Some(model) => model,
        None => model_of(text, &calls)?,
    };
    let calls = Calls { text, calls };
    let history = match model {
        Model::Register | Model::CasRegister => History::Register(calls.registers(model)?),
        Model::MultiRegister => History::MultiRegister(calls.txns()?),
        Model::Kv => History::Kv(calls.kv()?),
        Model::Mutex => History::Mutex(calls.mutex()?),
        Model::Names | Model::Groups => {
            return Err(FormatError::new(1, format!("histories of {model} are read from ndjson, not from EDN")));
        }
    };
    Ok(Recorded { history, any_event })
}

/// The clients' events, and whether there are any events at all.
fn events(text: &str) -> Result<(Vec<Event<'_, Valued<'_>>>, bool), FormatError> {
    let fail = |error: super::edn::EdnError| FormatError::at(text, error.at, error.message);
    let mut reader = Reader::new(text);
    let (mut events, mut any_event, mut inside) = (Vec::new(), false, false);
    loop {
        if inside && reader.close().map_err(fail)? {
            inside = false;
        } else if !inside && reader.open().map_err(fail)? {
            inside = true;
        } else if let Some((at, element)) = reader.next_element().map_err(fail)? {
            any_event = true;
            events.extend(event(text, at, element)?);
        } else if inside {
            return Err(fail(reader.error("the history is opened and never closed")));
        } else {
            return Ok((events, any_event));
        }
    }
}

/// A client's event; none if it is another's.
fn event<'a>(text: &str, at: usize, element: Edn<'a>) -> Result<Option<Event<'a, Valued<'a>>>, FormatError> {
    let error = |message: &str| FormatError::at(text, at, message);
    let element = match element {
        Edn::Tagged(_, element) => *element,
        element => element,
    };
    let Edn::Map(entries) = element else { return Err(error("an event is a map")) };
    let (mut process, mut kind, mut f, mut key, mut value) = (None, None, None, None, Edn::Nil);
    for (name, content) in entries {
        match name {
            Edn::Keyword("process") => process = Some(content),
            Edn::Keyword("type") => kind = Some(content),
            Edn::Keyword("f") => f = Some(content),
            Edn::Keyword("key") => key = Some(content),
            Edn::Keyword("value") => value = content,
            _ => {}
        }
    }
    let process = process.ok_or_else(|| error("an event has a :process"))?;
    let Edn::Int(process) = process else { return Ok(None) };
    let process = u64::try_from(process).map_err(|_| error("a process is not negative"))?;
    let Some(Edn::Keyword(kind)) = kind else { return Err(error("an event has a :type")) };
    let kind = Kind::parse(kind).ok_or_else(|| error("the :type is :invoke, :ok, :fail or :info"))?;
    let Some(Edn::Keyword(f)) = f else { return Err(error("an event has an :f")) };
    Ok(Some(Event { at, process, kind, f, value: Valued { key, value } }))
}

fn model_of(text: &str, calls: &[ClientCall]) -> Result<Model, FormatError> {
    let mut model = Model::Register;
    for call in calls {
        match call.f {
            "acquire" | "release" => return Ok(Model::Mutex),
            "txn" => return Ok(Model::MultiRegister),
            "get" | "put" | "append" => return Ok(Model::Kv),
            "cas" => model = Model::CasRegister,
            "read" | "write" => {}
            other => {
                return Err(FormatError::at(
                    text,
                    call.at,
                    format!("no model is known that has an operation :{other}"),
                ));
            }
        }
    }
    Ok(model)
}

/// A scalar as it is; anything else as its text.
pub(super) fn value(element: &Edn) -> Value {
    match element {
        Edn::Nil => Value::Nil,
        Edn::Int(number) => Value::Int(*number),
        Edn::Text(text) => Value::Text(Arc::from(&**text)),
        other => Value::Text(Arc::from(other.to_string())),
    }
}

pub(super) fn cas_operands(element: &Edn) -> Option<(Value, Value)> {
    match element {
        Edn::Sequence(pair) if pair.len() == 2 => Some((value(&pair[0]), value(&pair[1]))),
        _ => None,
    }
}

/// Jepsen's `independent` tuple; it may be tagged.
fn key_and_value<'e, 'a>(element: &'e Edn<'a>) -> Option<(&'e Edn<'a>, &'e Edn<'a>)> {
    match element {
        Edn::Sequence(pair) if pair.len() == 2 => Some((&pair[0], &pair[1])),
        Edn::Tagged(_, element) => key_and_value(element),
        _ => None,
    }
}

struct Calls<'a> {
    text: &'a str,
    calls: Vec<ClientCall<'a>>,
}

impl<'a> Calls<'a> {
    fn error(&self, call: &ClientCall, message: impl Into<String>) -> FormatError {
        FormatError::at(self.text, call.at, message)
    }

    /// The calls that may have had an effect or told something, each with its answer if one came.
    fn relevant(&self) -> impl Iterator<Item = (&ClientCall<'a>, Option<(u64, &Valued<'a>)>)> {
        self.calls.iter().filter_map(|call| match &call.answer {
            Some(answer) => match answer.kind {
                Kind::Ok => Some((call, Some((answer.complete, &answer.value)))),
                Kind::Fail => None,
                Kind::Info | Kind::Invoke => Some((call, None)),
            },
            None => Some((call, None)),
        })
    }

    fn registers(&self, model: Model) -> Result<Vec<Keyed<RegisterOp, RegisterRet>>, FormatError> {
        // A lone register's read is invoked with nil; one of many says which one it reads.
        let keyed = !self.calls.is_empty()
            && self.calls.iter().all(|call| match key_and_value(&call.asked.value) {
                Some((_, asked)) => call.f != "cas" || cas_operands(asked).is_some(),
                None => false,
            })
            && self.calls.iter().any(|call| call.f != "cas");
        let split = |valued: &Valued<'a>| -> (Option<String>, Edn<'a>) {
            match key_and_value(&valued.value) {
                Some((key, value)) if keyed => (Some(key.to_string()), value.clone()),
                _ => (valued.key.as_ref().map(Edn::to_string), valued.value.clone()),
            }
        };
        let mut calls = Vec::new();
        for (call, answer) in self.relevant() {
            let (key, asked) = split(&call.asked);
            let op = match call.f {
                "read" => RegisterOp::Read,
                "write" => RegisterOp::Write(value(&asked)),
                "cas" if model == Model::CasRegister => {
                    let (old, new) = cas_operands(&asked).ok_or_else(|| self.error(call, ":cas needs [old new]"))?;
                    RegisterOp::Cas(old, new)
                }
                other => return Err(self.error(call, format!("a {model} has no operation :{other}"))),
            };
            let result = answer.map(|(_, answer)| match op {
                RegisterOp::Read => RegisterRet::Read(value(&split(answer).1)),
                RegisterOp::Write(_) | RegisterOp::Cas(..) => RegisterRet::Done,
            });
            let key = key.unwrap_or_else(|| "register".to_owned());
            calls.push(Keyed { key, call: timed(call, answer, op, result) });
        }
        Ok(calls)
    }

    fn txns(&self) -> Result<Vec<Call<Txn, ()>>, FormatError> {
        let mut calls = Vec::new();
        for (call, answer) in self.relevant() {
            if call.f != "txn" {
                return Err(self.error(call, format!("a multi-register has no operation :{}", call.f)));
            }
            // The answer tells what was read.
            let parts = answer.map_or(&call.asked.value, |(_, answer)| &answer.value);
            let Edn::Sequence(parts) = parts else { return Err(self.error(call, "a :txn is a vector of operations")) };
            let parts: Option<Vec<Part>> = parts.iter().map(|part| txn_part(part, answer.is_some())).collect();
            let parts =
                parts.ok_or_else(|| self.error(call, "a :txn holds [:read key value] and [:write key value]"))?;
            calls.push(timed(call, answer, Txn(parts), answer.map(|_| ())));
        }
        Ok(calls)
    }

    fn kv(&self) -> Result<Vec<Keyed<KvOp, KvRet>>, FormatError> {
        let mut calls = Vec::new();
        for (call, answer) in self.relevant() {
            let split = |valued: &Valued<'a>| match (&valued.key, key_and_value(&valued.value)) {
                (Some(key), _) => Some((key.to_string(), valued.value.clone())),
                (None, Some((key, value))) => Some((key.to_string(), value.clone())),
                (None, None) => None,
            };
            let (key, asked) =
                split(&call.asked).ok_or_else(|| self.error(call, "an operation of a kv store has a :key"))?;
            let text = |element: &Edn| match element {
                Edn::Text(text) => Some(Arc::from(&**text)),
                Edn::Nil => Some(Arc::from("")),
                Edn::Int(number) => Some(Arc::from(number.to_string())),
                _ => None,
            };
            let no_text = || self.error(call, "a kv store holds texts");
            let op = match call.f {
                "get" => KvOp::Get,
                "put" => KvOp::Put(text(&asked).ok_or_else(no_text)?),
                "append" => KvOp::Append(text(&asked).ok_or_else(no_text)?),
                other => return Err(self.error(call, format!("a kv store has no operation :{other}"))),
            };
            let result = match (answer, &op) {
                (None, _) => None,
                (Some((_, answer)), KvOp::Get) => {
                    let (_, got) = split(answer).ok_or_else(|| self.error(call, "its answer has no :key"))?;
                    Some(KvRet::Got(Text::new(&text(&got).ok_or_else(no_text)?)))
                }
                (Some(_), KvOp::Put(_) | KvOp::Append(_)) => Some(KvRet::Done),
            };
            calls.push(Keyed { key, call: timed(call, answer, op, result) });
        }
        Ok(calls)
    }

    fn mutex(&self) -> Result<Vec<Call<MutexOp, ()>>, FormatError> {
        let mut calls = Vec::new();
        for (call, answer) in self.relevant() {
            let op = match call.f {
                "acquire" => MutexOp::Acquire,
                "release" => MutexOp::Release,
                other => return Err(self.error(call, format!("a mutex has no operation :{other}"))),
            };
            calls.push(timed(call, answer, op, answer.map(|_| ())));
        }
        Ok(calls)
    }
}

fn timed<O, R>(call: &ClientCall, answer: Option<(u64, &Valued)>, op: O, result: Option<R>) -> Call<O, R> {
    Call { process: call.process, op, invoke: call.invoke, complete: answer.map(|(complete, _)| complete), result }
}

fn txn_part(element: &Edn, answered: bool) -> Option<Part> {
    let Edn::Sequence(part) = element else { return None };
    match &part[..] {
        [Edn::Keyword("read" | "r"), key, read] => Some(Part::Read(value(key), answered.then(|| value(read)))),
        [Edn::Keyword("write" | "w"), key, written] => Some(Part::Write(value(key), value(written))),
        _ => None,
    }
}
