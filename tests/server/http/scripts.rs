//! Golden scripts of the API: requests as they are typed, answers as they come.

use std::error::Error;
use std::path::Path;

use goldenscript::{Command, Context, Runner};
use tokio::runtime::Runtime;

use super::raw;
use super::support::{Server, reference};

/// Headers that scripts show; the others are always the same or change with the clock.
const SHOWN: [&str; 7] =
    ["allow", "etag", "quorate-mode", "quorate-revision", "location", "retry-after", "access-control-allow-origin"];

struct Api {
    runtime: Runtime,
    server: Server,
}

impl Runner for Api {
    type Command = Command;

    /// `METHOD PATH [BODY] [Header=value]…`
    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut arguments = command.consume_args();
        let path = arguments.next_pos().ok_or("a path is missing")?;
        let body = arguments.next_pos().unwrap_or_default();
        let mut headers = Vec::new();
        while let Some(header) = arguments.next_key() {
            headers.push(header);
        }
        arguments.reject_next()?;
        let sending = raw::send(self.server.addr, &command.name, path, &headers, body.as_bytes());
        let answer = self.runtime.block_on(sending);
        if answer.status >= 400 {
            answer.code();
        }
        assert_eq!(answer.header("quorate-node"), Some("1"));
        let shown = SHOWN.iter().filter_map(|name| Some(format!(" {name}={}", answer.header(name)?)));
        Ok(format!("{}{}\n{}", answer.status, shown.collect::<String>(), answer.body))
    }
}

fn run(script: &str) {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(Server::start(reference()));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts/http").join(script);
    goldenscript::run(&mut Api { runtime, server }, path).unwrap();
}

#[test]
fn names_are_registered_looked_up_and_ended() {
    run("names.txt");
}

#[test]
fn groups_are_joined_listed_and_left() {
    run("groups.txt");
}

#[test]
fn bad_input_of_every_kind_is_told_what_is_wrong() {
    run("refusals.txt");
}

#[test]
fn nodes_come_and_go() {
    run("nodes.txt");
}

#[test]
fn the_cluster_its_conflicts_and_faults_are_served() {
    run("cluster.txt");
}
