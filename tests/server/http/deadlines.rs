//! Every call ends by its deadline, whatever the registry does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate::client::call::{CallOptions, Caller, Cause, CommandError};
use quorate::http::HttpState;
use quorate::model::command::Action;
use quorate::model::ident::Mode;
use quorate::model::query::Query;
use quorate::registry::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::raw;
use super::support::{Server, Silent, reference, state};

fn silent() -> HttpState {
    state(Arc::new(Silent(Mode::Cp)), Arc::new(Silent(Mode::Ap)))
}

fn unregister() -> Action {
    Action::Unregister { name: "a".parse().unwrap(), token: None }
}

#[tokio::test]
async fn a_registry_that_never_answers_makes_commands_unknown_and_queries_late() {
    let server = Server::start(silent()).await;
    let began = Instant::now();
    let answer = raw::send(server.addr, "PUT", "/v1/cp/names/a?timeout_ms=100", &[], br#"{"owner":"x"}"#).await;
    assert_eq!((answer.status, answer.code().as_str()), (504, "timeout"));
    assert_eq!(answer.json()["outcome"], "unknown");
    assert_eq!(answer.json()["retryable"], false);
    let answer = raw::send(server.addr, "DELETE", "/v1/cp/names/a?token=1&timeout_ms=100", &[], b"").await;
    assert_eq!(answer.json()["retryable"], true);
    let answer = raw::send(server.addr, "GET", "/v1/ap/names/a?timeout_ms=100", &[], b"").await;
    assert_eq!((answer.status, answer.code().as_str()), (504, "timeout"));
    assert_eq!(answer.json().get("outcome"), None);
    let answer = raw::send(server.addr, "GET", "/readyz?mode=cp&timeout_ms=100", &[], b"").await;
    assert_eq!(answer.status, 504);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_body_that_does_not_come_is_no_reason_to_wait() {
    let server = Server::start(reference()).await;
    let head = "PUT /v1/cp/names/a?timeout_ms=100 HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{\"owner\"";
    let answer = raw::exchange(server.addr, head.as_bytes()).await;
    assert_eq!((answer.status, answer.code().as_str()), (408, "body_late"));
    assert_eq!(answer.json()["outcome"], "not_applied");
    assert_eq!(answer.header("connection"), Some("close"));
}

#[tokio::test]
async fn a_server_that_says_nothing_leaves_a_command_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let caller = Caller::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let options = CallOptions { timeout: Duration::from_millis(200), ..CallOptions::default() };
    let began = Instant::now();
    let result = caller.execute(Mode::Cp, &unregister(), &options).await;
    assert_eq!(result, Err(CommandError::Unknown(Cause::Late)));
    let query = Query::Whereis { name: "a".parse().unwrap(), token: None };
    assert_eq!(caller.query(Mode::Cp, &query, &options).await, Err(Cause::Late));
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn nobody_there_means_not_applied() {
    let addr = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let caller = Caller::new(&format!("http://{addr}")).unwrap();
    let result = caller.execute(Mode::Cp, &unregister(), &CallOptions::default()).await;
    assert!(matches!(result, Err(CommandError::NotApplied(Cause::Unreachable(_)))), "{result:?}");
}

#[tokio::test]
async fn a_server_that_dies_over_a_command_leaves_it_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let caller = Caller::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let options = CallOptions::default();
    // Dies having read the request; then in the middle of its answer; then talks nonsense.
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"ended\"",
        "HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\noops",
    ] {
        let action = unregister();
        let call = caller.execute(Mode::Cp, &action, &options);
        let die = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut piece = [0; 1024];
            assert!(stream.read(&mut piece).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        let (result, ()) = tokio::join!(call, die);
        assert!(
            matches!(result, Err(CommandError::Unknown(Cause::Lost(_) | Cause::Garbled(_)))),
            "{answer:?}: {result:?}"
        );
    }
}

#[tokio::test]
async fn a_kept_connection_that_has_died_is_noticed_before_anything_is_sent() {
    let server = Server::start(reference()).await;
    let caller = Caller::new(&server.url()).unwrap();
    caller.execute(Mode::Cp, &unregister(), &CallOptions::default()).await.unwrap();
    let addr = server.addr;
    drop(server);
    // The listener goes with the server; the kept connection is closed by then too.
    for _ in 0..200 {
        if TcpStream::connect(addr).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let result = caller.execute(Mode::Cp, &unregister(), &CallOptions::default()).await;
    assert!(matches!(result, Err(CommandError::NotApplied(Cause::Unreachable(_)))), "{result:?}");
}

#[tokio::test]
async fn more_than_so_many_at_once_are_refused_but_for_health_and_healing() {
    let server = Server::start(HttpState { max_in_flight: 2, ..silent() }).await;
    let caller = Caller::new(&server.url()).unwrap();
    let options = CallOptions { timeout: Duration::from_millis(500), ..CallOptions::default() };
    let action = unregister();
    let late = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let refused = caller.execute(Mode::Cp, &action, &options).await;
        assert_eq!(refused, Err(CommandError::NotApplied(Cause::Server(Reason::Overloaded))));
        let answer = raw::send(server.addr, "GET", "/v1/cluster", &[], b"").await;
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("1")));
        assert_eq!(raw::send(server.addr, "GET", "/livez", &[], b"").await.status, 200);
        assert_eq!(raw::send(server.addr, "DELETE", "/v1/faults", &[], b"").await.status, 200);
    };
    let (one, two, ()) =
        tokio::join!(caller.execute(Mode::Cp, &action, &options), caller.execute(Mode::Ap, &action, &options), late);
    assert!(matches!(one, Err(CommandError::Unknown(_))), "{one:?}");
    assert!(matches!(two, Err(CommandError::Unknown(_))), "{two:?}");
    // Those seats are free again.
    assert_eq!(raw::send(server.addr, "GET", "/v1/cluster", &[], b"").await.status, 200);
}

#[tokio::test]
async fn a_stopping_server_answers_what_it_has_begun() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(quorate::http::serve(listener, quorate::http::router(silent()), async {
        let _ = stopped.await;
    }));
    let mut idle = TcpStream::connect(addr).await.unwrap();
    let call = raw::send(addr, "GET", "/v1/cp/names/a?timeout_ms=300", &[], b"");
    let stopping = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(stop);
    };
    let (answer, ()) = tokio::join!(call, stopping);
    assert_eq!(answer.status, 504);
    serving.await.unwrap().unwrap();
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(TcpStream::connect(addr).await.is_err());
}
