//! From events in a log to calls: each invocation with the completion that answers it.

use std::collections::HashMap;

use super::FormatError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Invoke,
    Ok,
    Fail,
    Info,
}

impl Kind {
    /// From the word that Jepsen uses for it.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "invoke" => Some(Kind::Invoke),
            "ok" => Some(Kind::Ok),
            "fail" => Some(Kind::Fail),
            "info" => Some(Kind::Info),
            _ => None,
        }
    }
}

/// One line of a client's log.
pub(super) struct Event<'a, V> {
    /// The byte that it begins at.
    pub at: usize,
    pub process: u64,
    pub kind: Kind,
    pub f: &'a str,
    pub value: V,
}

/// A call as it was logged. Times are positions in the log.
pub(super) struct Pair<'a, V> {
    /// The byte that its invocation begins at.
    pub at: usize,
    pub process: u64,
    pub f: &'a str,
    pub asked: V,
    pub invoke: u64,
    pub answer: Option<Answer<V>>,
}

pub(super) struct Answer<V> {
    pub kind: Kind,
    pub value: V,
    pub complete: u64,
}

/// Pairs each invocation with the next event of its process. A process with a call under way cannot invoke another, and nothing
/// is answered that was not asked, save that a process may say `:info` at any time.
pub(super) fn pair<'a, V>(text: &str, events: Vec<Event<'a, V>>) -> Result<Vec<Pair<'a, V>>, FormatError> {
    let mut pairs: Vec<Pair<'a, V>> = Vec::with_capacity(events.len() / 2 + 1);
    let mut under_way: HashMap<u64, usize> = HashMap::new();
    for (time, Event { at, process, kind, f, value }) in events.into_iter().enumerate() {
        let time = time as u64;
        if kind == Kind::Invoke {
            if let Some(call) = under_way.insert(process, pairs.len()) {
                let line = super::line_of(text, pairs[call].at);
                let message = format!("process {process} invokes :{f} while its call of line {line} is under way");
                return Err(FormatError::at(text, at, message));
            }
            pairs.push(Pair { at, process, f, asked: value, invoke: time, answer: None });
            continue;
        }
        match under_way.remove(&process) {
            Some(call) if pairs[call].f == f => {
                pairs[call].answer = Some(Answer { kind, value, complete: time });
            }
            Some(call) => {
                let message = format!("process {process} is answered :{f}, but had invoked :{}", pairs[call].f);
                return Err(FormatError::at(text, at, message));
            }
            None if kind == Kind::Info => {}
            None => {
                return Err(FormatError::at(
                    text,
                    at,
                    format!("process {process} is answered :{f}, but had invoked nothing"),
                ));
            }
        }
    }
    Ok(pairs)
}
