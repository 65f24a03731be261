//! The commands of names and groups: register, whereis, unregister, names, join, leave, members, groups.

use clap::{Args, Subcommand};

use super::Exit;
use super::connect::{self, Connect, Misused};
use super::render::{self, Form};
use crate::client::call::CallOptions;
use crate::client::client::Client;
use crate::client::error::Error;
use crate::model::command::{Action, Condition};
use crate::model::ident::{Group, LeaseId, Member, Meta, Mode, Name, NodeId, Owner, Revision, Token};
use crate::model::query::{PAGE_LIMIT_DEFAULT, PAGE_LIMIT_MAX, Page, Query};
use crate::registry::Consistency;

#[derive(Subcommand, Debug)]
pub enum RegistryCommand {
    /// Registers a name for an owner
    Register {
        name: Name,
        /// Who is to own it: an address, a pid, whatever says where to find it
        #[arg(long)]
        owner: Owner,
        /// A JSON object that rides on it
        #[arg(long, value_name = "JSON", default_value = "{}")]
        meta: Meta,
        /// The lease that it is to end with
        #[arg(long)]
        lease: Option<LeaseId>,
        #[command(flatten)]
        condition: ConditionArgs,
        #[command(flatten)]
        acks: AcksArg,
        #[command(flatten)]
        connect: Connect,
    },
    /// Shows who owns a name
    Whereis {
        name: Name,
        /// Only if this token is that of the current grant
        #[arg(long)]
        token: Option<String>,
        #[command(flatten)]
        level: Level,
        #[command(flatten)]
        hidden: HiddenArg,
        #[command(flatten)]
        connect: Connect,
    },
    /// Ends a registration
    Unregister {
        name: Name,
        /// End this very grant, never a successor's
        #[arg(long)]
        token: Option<String>,
        #[command(flatten)]
        acks: AcksArg,
        #[command(flatten)]
        connect: Connect,
    },
    /// Lists names
    Names {
        #[command(flatten)]
        page: PageArgs,
        #[command(flatten)]
        level: Level,
        #[command(flatten)]
        hidden: HiddenArg,
        #[command(flatten)]
        connect: Connect,
    },
    /// Joins a group
    Join {
        group: Group,
        member: Member,
        /// A JSON object that rides on the membership
        #[arg(long, value_name = "JSON", default_value = "{}")]
        meta: Meta,
        /// The lease that it is to end with
        #[arg(long)]
        lease: Option<LeaseId>,
        #[command(flatten)]
        acks: AcksArg,
        #[command(flatten)]
        connect: Connect,
    },
    /// Leaves a group
    Leave {
        group: Group,
        member: Member,
        /// End this very membership, never a later one
        #[arg(long)]
        token: Option<String>,
        #[command(flatten)]
        acks: AcksArg,
        #[command(flatten)]
        connect: Connect,
    },
    /// Lists the members of a group
    Members {
        group: Group,
        /// Only members that joined at this node
        #[arg(long, value_name = "ID")]
        node: Option<NodeId>,
        #[command(flatten)]
        page: PartArgs,
        #[command(flatten)]
        level: Level,
        #[command(flatten)]
        hidden: HiddenArg,
        #[command(flatten)]
        connect: Connect,
    },
    /// Lists groups
    Groups {
        #[command(flatten)]
        page: PageArgs,
        #[command(flatten)]
        level: Level,
        #[command(flatten)]
        connect: Connect,
    },
}

impl RegistryCommand {
    fn connect(&self) -> &Connect {
        match self {
            RegistryCommand::Register { connect, .. }
            | RegistryCommand::Whereis { connect, .. }
            | RegistryCommand::Unregister { connect, .. }
            | RegistryCommand::Names { connect, .. }
            | RegistryCommand::Join { connect, .. }
            | RegistryCommand::Leave { connect, .. }
            | RegistryCommand::Members { connect, .. }
            | RegistryCommand::Groups { connect, .. } => connect,
        }
    }
}

#[derive(Args, Clone, Debug)]
#[group(multiple = false)]
pub struct ConditionArgs {
    /// Take the name from whoever holds it
    #[arg(long)]
    takeover: bool,
    /// Only if this is still the grant; with another owner it is handed over
    #[arg(long)]
    token: Option<String>,
    /// Only if the entry is unchanged since this revision; * = only if there is one
    #[arg(long, value_name = "REVISION")]
    if_match: Option<String>,
    /// Only if there is no entry, not even the owner's own
    #[arg(long)]
    if_absent: bool,
}

#[derive(Args, Clone, Debug)]
pub struct AcksArg {
    /// ap: wait until so many nodes have it
    #[arg(long = "w", value_name = "NODES", value_parser = parse_nodes)]
    pub acks: Option<usize>,
}

#[derive(Args, Clone, Debug)]
#[group(multiple = false)]
pub struct Level {
    /// cp: linearizable, leader or stale
    #[arg(long, value_name = "LEVEL", value_parser = ["linearizable", "leader", "stale"])]
    consistency: Option<String>,
    /// ap: merge what so many nodes know
    #[arg(long = "r", value_name = "NODES", value_parser = parse_nodes)]
    quorum: Option<usize>,
}

#[derive(Args, Clone, Copy, Debug)]
pub struct HiddenArg {
    /// ap: what the server hides, too, since who answers for it is out of reach; marked so
    #[arg(long = "hidden")]
    include: bool,
}

#[derive(Args, Clone, Debug)]
pub struct PageArgs {
    /// Only keys that begin so
    #[arg(long, default_value = "")]
    prefix: String,
    #[command(flatten)]
    part: PartArgs,
}

#[derive(Args, Clone, Debug)]
pub struct PartArgs {
    /// Only what comes after this
    #[arg(long)]
    pub after: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = PAGE_LIMIT_DEFAULT, value_parser = parse_limit)]
    pub limit: usize,
}

impl From<PageArgs> for Page {
    fn from(args: PageArgs) -> Self {
        Self { prefix: args.prefix, ..args.part.into() }
    }
}

impl From<PartArgs> for Page {
    fn from(args: PartArgs) -> Self {
        Self { prefix: String::new(), after: args.after, limit: args.limit }
    }
}

fn parse_limit(text: &str) -> Result<usize, String> {
    let limit = text.parse().ok().filter(|limit| (1..=PAGE_LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| format!("a number from 1 to {PAGE_LIMIT_MAX} is asked for"))
}

fn parse_nodes(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|nodes| *nodes > 0).ok_or_else(|| "a number of nodes from 1 is asked for".to_owned())
}

/// What is sent, once all that was typed is understood.
enum Call {
    Command(Action, CallOptions),
    Query(Query, CallOptions),
}

/// Carries out one command.
pub fn run(command: RegistryCommand) -> anyhow::Result<Exit> {
    let connect = command.connect().clone();
    let form = connect.form();
    let understood = connect.client().and_then(|client| {
        let call = understand(&connect, client.options(), command)?;
        Ok(async move { Ok(send(&client, call, form).await) })
    });
    connect::run(understood)
}

async fn send(client: &Client, call: Call, form: Form) -> Exit {
    match call {
        Call::Command(action, options) => match client.with(options).execute(&action).await {
            Ok(reply) => render::outcome(&action, &reply, form),
            Err(error) => connect::failed(&error.into()),
        },
        Call::Query(query, options) => match client.with(options).query(&query).await {
            Ok(reply) => render::answer(&query, &reply, form),
            Err(cause) => connect::failed(&Error::Unanswered(cause)),
        },
    }
}

fn understand(connect: &Connect, options: &CallOptions, command: RegistryCommand) -> Result<Call, Misused> {
    let token = |text: Option<String>| connect.token(text.as_deref());
    let written = |acks: AcksArg| match (connect.mode, acks.acks) {
        (Mode::Cp, Some(_)) => Err(Misused("--w is of ap: a cp write is always on a majority".to_owned())),
        (_, acks) => Ok(CallOptions { acks, ..options.clone() }),
    };
    let read = |level: Level| -> Result<CallOptions, Misused> {
        let consistency = match (connect.mode, level.consistency.as_deref(), level.quorum) {
            (_, None, None) => None,
            (Mode::Cp, Some("linearizable"), _) => Some(Consistency::Linearizable),
            (Mode::Cp, Some("leader"), _) => Some(Consistency::Leader),
            (Mode::Cp, Some(_), _) => Some(Consistency::Stale),
            (Mode::Cp, None, Some(_)) => return Err(Misused("--r is of ap: use --consistency".to_owned())),
            (Mode::Ap, Some(_), _) => return Err(Misused("--consistency is of cp: use --r".to_owned())),
            (Mode::Ap, None, Some(nodes)) => Some(Consistency::Quorum(nodes)),
        };
        Ok(CallOptions { consistency, ..options.clone() })
    };
    let found = |level: Level, hidden: HiddenArg| match (connect.mode, hidden.include) {
        (Mode::Cp, true) => Err(Misused("--hidden is of ap: cp hides nothing".to_owned())),
        (_, include_hidden) => Ok(CallOptions { include_hidden, ..read(level)? }),
    };
    Ok(match command {
        RegistryCommand::Register { name, owner, meta, lease, condition, acks, .. } => {
            let condition = match condition {
                ConditionArgs { takeover: true, .. } => Condition::Takeover,
                ConditionArgs { if_absent: true, .. } => Condition::Absent,
                ConditionArgs { token: Some(text), .. } => Condition::Token(Token::parse(connect.mode, &text)?),
                ConditionArgs { if_match: Some(text), .. } if text == "*" => Condition::Present,
                ConditionArgs { if_match: Some(text), .. } => {
                    Condition::Unchanged(Revision::parse(connect.mode, &text)?)
                }
                _ => Condition::Free,
            };
            Call::Command(Action::Register { name, owner, meta, lease, condition }, written(acks)?)
        }
        RegistryCommand::Unregister { name, token: text, acks, .. } => {
            Call::Command(Action::Unregister { name, token: token(text)? }, written(acks)?)
        }
        RegistryCommand::Join { group, member, meta, lease, acks, .. } => {
            Call::Command(Action::Join { group, member, meta, lease }, written(acks)?)
        }
        RegistryCommand::Leave { group, member, token: text, acks, .. } => {
            Call::Command(Action::Leave { group, member, token: token(text)? }, written(acks)?)
        }
        RegistryCommand::Whereis { name, token: text, level, hidden, .. } => {
            Call::Query(Query::Whereis { name, token: token(text)? }, found(level, hidden)?)
        }
        RegistryCommand::Names { page, level, hidden, .. } => {
            Call::Query(Query::Names { page: page.into() }, found(level, hidden)?)
        }
        RegistryCommand::Members { group, node, page, level, hidden, .. } => {
            Call::Query(Query::Members { group, page: page.into(), node }, found(level, hidden)?)
        }
        RegistryCommand::Groups { page, level, .. } => Call::Query(Query::Groups { page: page.into() }, read(level)?),
    })
}
