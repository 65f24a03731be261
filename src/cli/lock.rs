//! `quorate lock`: a command that runs while a name is held, and no longer.
//!
//! The command gets a process group of its own, so that what it has started itself is stopped with it. It is asked to end (SIGTERM)
//! when a fifth of the time-to-live is left without a keep-alive having come through, and killed (SIGKILL) when the lease is not to be
//! counted upon any more, which is before the registry gives the name to anybody else.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::Exit;
use super::connect::{self, Connect};
use super::lease::parse_ttl;
use crate::client::election::{Election, Held, LostName};
use crate::client::error::Error;
use crate::model::ident::{Meta, Name, Owner};
use crate::model::outcome::Refusal;
use crate::systems::children::die_with_parent;

/// What is left of the time-to-live when the command is asked to end.
const GRACE_SHARE: u32 = 5;
/// What a shell adds to a signal's number.
const SIGNALLED: i32 = 128;
/// The signals that are passed on.
const PASSED_ON: [(SignalKind, Signal); 6] = [
    (SignalKind::interrupt(), Signal::INT),
    (SignalKind::terminate(), Signal::TERM),
    (SignalKind::hangup(), Signal::HUP),
    (SignalKind::quit(), Signal::QUIT),
    (SignalKind::user_defined1(), Signal::USR1),
    (SignalKind::user_defined2(), Signal::USR2),
];

#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: the command's own (128 + N if signal N ended it). Of this program, each with a line on standard \
    error that begins with \"quorate: \": 1 the name is taken (with --no-wait), 2 the name was lost and the command stopped, \
    3 it could not be had, 64 usage, 126 the command cannot be run, 127 there is no such command."
)]
pub struct LockArgs {
    name: Name,
    /// Who holds it; this host and process unless given
    #[arg(long)]
    owner: Option<Owner>,
    /// How long the name outlives this program if that is killed or cut off
    #[arg(long, value_parser = parse_ttl, default_value = "10s")]
    ttl: Duration,
    /// Do not wait if somebody holds it
    #[arg(long)]
    no_wait: bool,
    /// A JSON object that rides on it
    #[arg(long, value_name = "JSON", default_value = "{}")]
    meta: Meta,
    #[command(flatten)]
    connect: Connect,
    /// What is run meanwhile, with QUORATE_FENCING_TOKEN set
    #[arg(last = true, required = true)]
    command: Vec<std::ffi::OsString>,
}

/// How the program ends: by its own word, or by the command's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Own(Exit),
    Commands(u8),
}

/// Runs the command while the name is held.
pub fn run(args: LockArgs) -> anyhow::Result<Ended> {
    let client = match args.connect.client() {
        Ok(client) => client,
        Err(connect::Misused(why)) => {
            eprintln!("quorate: {why}");
            return Ok(Ended::Own(Exit::Usage));
        }
    };
    super::runtime()?.block_on(async {
        let owner = args.owner.clone().unwrap_or_else(this_process);
        let election = Election::new(&client, &args.name, &owner)?.ttl(args.ttl).meta(args.meta.clone());
        let mut signals = signals()?;
        let held = tokio::select! {
            held = hold(&election, args.no_wait) => held,
            Some(signal) = signals.recv() => return Ok(Ended::Commands((SIGNALLED + signal.as_raw()) as u8)),
        };
        match held {
            Ok(held) => under(held, &args, &mut signals).await,
            Err(error) => {
                if let Some(Refusal::NameTaken { current }) = error.refusal() {
                    eprintln!("quorate: {} is {}'s, token {}", args.name, current.holder_text(), current.token);
                    return Ok(Ended::Own(Exit::No));
                }
                Ok(Ended::Own(connect::failed(&error)))
            }
        }
    })
}

async fn hold(election: &Election, no_wait: bool) -> Result<Held, Error> {
    if no_wait { election.try_now().await } else { election.campaign().await }
}

/// The host and process: what says where to look for the holder.
fn this_process() -> Owner {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let owner = format!("{host}/{}", std::process::id());
    owner.parse().unwrap_or_else(|_| std::process::id().to_string().parse().expect("digits make an owner"))
}

/// Runs the command to its end, or stops it before the name can be somebody else's.
async fn under(held: Held, args: &LockArgs, signals: &mut mpsc::Receiver<Signal>) -> anyhow::Result<Ended> {
    let mut child = match start(args, &held) {
        Ok(child) => child,
        Err(error) => {
            // Nothing has run, so the name is of use to others at once. If this fails, its lease ends by itself.
            let _ = held.resign().await;
            eprintln!("quorate: {}: {error}", args.command[0].display());
            return Ok(Ended::Commands(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }));
        }
    };
    let group = child.id().and_then(|id| Pid::from_raw(id as i32));
    let group = group.ok_or_else(|| anyhow::anyhow!("the command has no process id"))?;
    hand_over_terminal(group);
    let grace = held.lease().ttl() / GRACE_SHARE;
    let why = loop {
        tokio::select! {
            status = child.wait() => return ended(held, group, status?).await,
            Some(signal) = signals.recv() => tell(group, signal),
            () = only_left(&held, grace) => break None,
            lost = held.lost() => break Some(lost),
        }
    };
    stop(held, &mut child, group, grace, why).await
}

fn start(args: &LockArgs, held: &Held) -> io::Result<Child> {
    let mut command = std::process::Command::new(&args.command[0]);
    command.args(&args.command[1..]).env("QUORATE_FENCING_TOKEN", held.token().to_string());
    // Killed at once, this program could not stop it any more: the kernel does.
    die_with_parent(&mut command);
    let mut command = Command::from(command);
    command.process_group(0).spawn()
}

/// Whoever types, types to the command, and Ctrl-C means it.
fn hand_over_terminal(group: Pid) {
    let stdin = io::stdin();
    if rustix::termios::tcgetpgrp(&stdin).is_ok_and(|foreground| foreground == rustix::process::getpgrp())
        && rustix::termios::tcsetpgrp(&stdin, group).is_ok()
    {
        // It may have asked the terminal before that was its own, and been stopped for it.
        tell(group, Signal::CONT);
    }
}

/// Comes when no more than that is left to count upon, or nothing.
async fn only_left(held: &Held, grace: Duration) {
    loop {
        let left = held.remaining();
        if left <= grace {
            return;
        }
        // In small steps, for timers stand still while the machine sleeps.
        sleep((left - grace).min(Duration::from_secs(1))).await;
    }
}

/// Asks the command to end, and kills it when there is no time left.
async fn stop(
    held: Held,
    child: &mut Child,
    group: Pid,
    grace: Duration,
    why: Option<LostName>,
) -> anyhow::Result<Ended> {
    match &why {
        Some(why) => eprintln!("quorate: {why}; the command is stopped"),
        None => {
            eprintln!("quorate: the lease is not kept alive; the command is stopped before the name can be given away")
        }
    }
    tell(group, Signal::TERM);
    let time_is_up = async {
        match why {
            // Taken already: what is left of the lease protects nothing.
            Some(LostName::Taken(_)) => sleep(grace).await,
            Some(LostName::Lease(_)) => {}
            // A keep-alive that comes through after all takes nothing back.
            None => {
                let _ = timeout(grace, held.lost()).await;
            }
        }
    };
    tokio::select! {
        _ = child.wait() => {}
        () = time_is_up => {}
    }
    // The first process may have ended before the others of its group.
    tell(group, Signal::KILL);
    child.wait().await?;
    if held.is_held() {
        // Of use to others at once. If this fails, the name ends with its lease.
        let _ = held.resign().await;
    }
    Ok(Ended::Own(Exit::Unknown))
}

async fn ended(held: Held, group: Pid, status: ExitStatus) -> anyhow::Result<Ended> {
    // What it has left behind would go on without the name.
    tell(group, Signal::KILL);
    if let Err(error) = held.resign().await {
        eprintln!("quorate: the name was not given up and will end with its lease: {error}");
    }
    let code = status.code().or_else(|| status.signal().map(|signal| SIGNALLED + signal)).unwrap_or(SIGNALLED);
    Ok(Ended::Commands(code as u8))
}

fn tell(group: Pid, signal: Signal) {
    // A group that has ended needs not be told.
    let _ = kill_process_group(group, signal);
}

/// Signals that came to this program.
fn signals() -> io::Result<mpsc::Receiver<Signal>> {
    // One that does not fit in is one of a kind that waits already, as good as.
    let (sender, receiver) = mpsc::channel(PASSED_ON.len());
    for (kind, passed_on) in PASSED_ON {
        let mut caught = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while caught.recv().await.is_some() {
                if sender.send(passed_on).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(receiver)
}
