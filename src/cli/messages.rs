//! `quorate send`, `publish` and `inbox`: messages to names and groups, and the stream of those that arrive.

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::Exit;
use super::connect::{self, Connect, Misused};
use super::render::{self, Form};
use super::watch::interrupted;
use crate::client::error::Error;
use crate::client::inbox::{Arrived, Inbox};
use crate::http::messages::letter_body;
use crate::messages::{Address, Letter};
use crate::model::ident::{Group, Name, Owner};
use crate::wire::message::LetterBody;

#[derive(Args, Debug)]
pub struct SendArgs {
    /// Whoever holds it gets the message
    name: Name,
    #[command(flatten)]
    message: MessageArgs,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Args, Debug)]
pub struct PublishArgs {
    /// Every member of it gets the message
    group: Group,
    #[command(flatten)]
    message: MessageArgs,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Args, Debug)]
struct MessageArgs {
    /// The message: JSON, at most 64 KiB of it
    message: String,
    /// The message is a text, not JSON
    #[arg(long)]
    text: bool,
}

#[derive(Args, Debug)]
pub struct InboxArgs {
    /// Whose: what names are registered for and what joins groups
    owner: Owner,
    /// End after so many messages and gaps
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    connect: Connect,
}

impl MessageArgs {
    fn json(self) -> Result<Box<RawValue>, Misused> {
        if self.text {
            return Ok(to_raw_value(&self.message)?);
        }
        RawValue::from_string(self.message)
            .map_err(|why| Misused(format!("the message is not JSON ({why}): write texts in \"…\", or give --text")))
    }
}

/// Sends a message to whoever holds a name.
pub fn send(args: SendArgs) -> anyhow::Result<Exit> {
    let SendArgs { name, message, connect } = args;
    let form = connect.form();
    let understood = message.json().and_then(|message| Ok((message, connect.client()?)));
    connect::run(understood.map(|(message, client)| async move {
        Ok(match client.send(&name, &message).await {
            Ok(receivers) => render::sent(receivers, form),
            Err(Error::Refused(refusal)) => render::refused(&refusal, name.as_str(), form),
            Err(error) => connect::failed(&error),
        })
    }))
}

/// Sends a message to every member of a group.
pub fn publish(args: PublishArgs) -> anyhow::Result<Exit> {
    let PublishArgs { group, message, connect } = args;
    let form = connect.form();
    let understood = message.json().and_then(|message| Ok((message, connect.client()?)));
    connect::run(understood.map(|(message, client)| async move {
        Ok(match client.publish(&group, &message).await {
            Ok(receivers) => render::sent(receivers, form),
            Err(error) => connect::failed(&error),
        })
    }))
}

/// Prints what arrives for an owner until a signal comes. It goes on at another server when one is gone.
pub fn inbox(args: InboxArgs) -> anyhow::Result<Exit> {
    let InboxArgs { owner, count, connect } = args;
    let form = connect.form();
    connect::run(connect.client().and_then(|client| Ok(client.inbox(owner)?)).map(|inbox| async move {
        tokio::select! {
            exit = print(inbox, form, count) => Ok(exit),
            () = super::serve::stop_signal() => Ok(Exit::Yes),
        }
    }))
}

async fn print(mut inbox: Inbox, form: Form, count: Option<u64>) -> Exit {
    let mut printed = 0;
    loop {
        let arrived = match inbox.next().await {
            Ok(arrived) => arrived,
            Err(error) => return connect::failed(&error),
        };
        let line = match (&arrived, form) {
            (Arrived::Interrupted(cause), _) => {
                eprintln!("{}", interrupted(cause));
                continue;
            }
            (Arrived::Gap { lost }, Form::Human) => {
                eprintln!("{}", missing(*lost));
                None
            }
            (Arrived::Gap { lost }, Form::Json) => Some(json(&Line::Gap { lost: *lost })),
            (Arrived::Message(letter), Form::Human) => Some(human(letter)),
            (Arrived::Message(letter), Form::Json) => Some(json(&Line::Message(letter_body(letter)))),
        };
        let mut out = io::stdout().lock();
        // A reader that hangs up ends the inbox.
        if line.is_some_and(|line| writeln!(out, "{line}").and_then(|()| out.flush()).is_err()) {
            return Exit::Yes;
        }
        printed += 1;
        if count.is_some_and(|count| printed >= count) {
            return Exit::Yes;
        }
    }
}

/// One line of JSON: the event's kind, and what the API says; of a gap that the API does not know of, that nobody knows how much is lost.
#[derive(Serialize)]
#[serde(tag = "event", content = "data", rename_all = "lowercase")]
enum Line<'a> {
    Message(LetterBody<'a>),
    Gap { lost: Option<u64> },
}

fn json(line: &Line) -> String {
    serde_json::to_string(line).expect("texts and JSON are JSON")
}

fn human(letter: &Letter) -> String {
    let kind = match &letter.to {
        Address::Name(_) => "name",
        Address::Group(_) => "group",
    };
    format!("{kind}  {}  token {}  {}", letter.to.key(), letter.token, letter.text)
}

fn missing(lost: Option<u64>) -> String {
    match lost {
        Some(lost) => format!("note: {lost} messages are missing here: this reader was too slow"),
        None => "note: the stream broke and was taken up again: messages may be missing here".to_owned(),
    }
}
