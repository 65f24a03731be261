//! What the registry says at the server is what the caller hears, for everything that it can say.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use quorate::client::call::{CallOptions, Caller, Cause, CommandError};
use quorate::model::ident::Mode;
use quorate::registry::{CommandFailure, QueryFailure};
use tokio::runtime::Runtime;

use super::arbitrary::{command, query};
use super::support::{Asked, Scripted, Server, state};

struct Pair {
    runtime: Runtime,
    mode: Mode,
    registry: std::sync::Arc<Scripted>,
    caller: Caller,
    _server: Server,
}

fn pair(mode: Mode) -> Pair {
    let runtime = Runtime::new().unwrap();
    let (cp, ap) = (Scripted::new(Mode::Cp), Scripted::new(Mode::Ap));
    let registry = if mode == Mode::Cp { cp.clone() } else { ap.clone() };
    let server = runtime.block_on(Server::start(state(cp, ap)));
    let caller = Caller::new(&server.url()).unwrap();
    Pair { runtime, mode, registry, caller, _server: server }
}

fn runner() -> TestRunner {
    TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() })
}

/// Strategies of this size take more stack, without optimisation, than a test's thread has.
fn with_a_large_stack(test: fn()) {
    std::thread::Builder::new().stack_size(64 << 20).spawn(test).unwrap().join().unwrap();
}

#[test]
fn commands_and_their_outcomes_come_through_unchanged() {
    with_a_large_stack(commands_come_through);
}

fn commands_come_through() {
    for pair in [pair(Mode::Cp), pair(Mode::Ap)] {
        let test = |(action, said)| {
            *pair.registry.outcome.lock().unwrap() = Clone::clone(&said);
            let heard = pair.runtime.block_on(pair.caller.execute(pair.mode, &action, &CallOptions::default()));
            let expected = said.map_err(|failure| match failure {
                CommandFailure::NotApplied(reason) => CommandError::NotApplied(Cause::Server(reason)),
                CommandFailure::Unknown(reason) => CommandError::Unknown(Cause::Server(reason)),
            });
            prop_assert_eq!(heard, expected);
            prop_assert_eq!(pair.registry.asked.lock().unwrap().take(), Some(Asked::Command(action)));
            Ok(())
        };
        runner().run(&command(pair.mode), test).unwrap();
    }
}

#[test]
fn queries_and_their_answers_come_through_unchanged() {
    with_a_large_stack(queries_come_through);
}

fn queries_come_through() {
    for pair in [pair(Mode::Cp), pair(Mode::Ap)] {
        let test = |(query, said)| {
            *pair.registry.answer.lock().unwrap() = Clone::clone(&said);
            let heard = pair.runtime.block_on(pair.caller.query(pair.mode, &query, &CallOptions::default()));
            let expected = said.map_err(|QueryFailure(reason)| Cause::Server(reason));
            prop_assert_eq!(heard, expected);
            prop_assert_eq!(pair.registry.asked.lock().unwrap().take(), Some(Asked::Query(query)));
            Ok(())
        };
        runner().run(&query(pair.mode), test).unwrap();
    }
}
