//! What it costs a cluster to keep leases alive, to tell of what changes, and to stand behind locks: processor time of three node
//! processes, which says the same on a busy machine.
//!
//! `cargo bench --bench leases` measures all; `-- leases`, `-- events` or `-- locks` one of them, `-- cp` or `-- ap` one mode,
//! `-- --program FILE` another build.

#[path = "../tests/server/certificates.rs"]
mod certificates;
mod cluster;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quorate::client::access::Access;
use quorate::client::call::{CallOptions, Caller};
use quorate::client::client::Client;
use quorate::model::command::{Action, Condition};
use quorate::model::event::Filter;
use quorate::model::ident::{LeaseId, Meta, Mode};
use quorate::model::outcome::Outcome;
use quorate::model::query::{Answer, Page, Query};
use quorate::registry::Consistency;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use cluster::{Cluster, PATIENCE, Used};

const LEASES: usize = 10_000;
const TTL_MS: u64 = 60_000;
/// Each lease is kept alive once in this time.
const RENEWAL: Duration = Duration::from_secs(20);
const ROUNDS: u32 = 2;
const IDLE: Duration = Duration::from_secs(20);
const BULK: usize = 1_000;
/// Callers at once, and for how long, where calls follow one another.
const CALLERS: usize = 64;
const LOAD: Duration = Duration::from_secs(10);

fn main() {
    let args = std::env::args().skip(1).filter(|arg| arg != "--bench").collect::<Vec<_>>();
    let program = match args.iter().position(|arg| arg == "--program") {
        Some(at) => PathBuf::from(args.get(at + 1).expect("--program FILE")),
        None => PathBuf::from(env!("CARGO_BIN_EXE_quorate")),
    };
    let parts = ["leases", "events", "locks"];
    let asked =
        |part: &str| args.iter().any(|arg| arg == part) || !args.iter().any(|arg| parts.contains(&arg.as_str()));
    let modes = || {
        [Mode::Cp, Mode::Ap].into_iter().filter(|mode| {
            let named = |mode: Mode| args.iter().any(|arg| *arg == mode.to_string());
            named(*mode) || !(named(Mode::Cp) || named(Mode::Ap))
        })
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        if asked("leases") {
            for mode in modes() {
                leases(&program, mode).await;
            }
            health(&program).await;
        }
        if asked("events") {
            for mode in modes() {
                events(&program, mode).await;
            }
        }
        if asked("locks") {
            locks(&program).await;
        }
    });
}

fn options() -> CallOptions {
    CallOptions { timeout: PATIENCE, ..CallOptions::default() }
}

/// What calls cost that do next to nothing, as many as keep the leases alive singly: the floor that HTTP itself lays at that pace, at
/// which each call has to wake a sleeping thread.
async fn health(program: &Path) {
    let cluster = Cluster::start(program, &[], "http", &Access::default()).await;
    let idle = at_rest(&cluster).await;
    let (before, begun) = (cluster.used(), Instant::now());
    let call = |caller: Arc<Caller>, _| async move {
        caller.ready(None, PATIENCE).await.expect("it is well");
    };
    let calls = f64::from(paced(&cluster, call).await + paced(&cluster, call).await);
    let used = percent(cluster.used().since(before), begun.elapsed()) - idle;
    println!(
        "asking for health alone, {LEASES} times in {} s: {used:.2} % of a core above idle, {:.0} us a call",
        RENEWAL.as_secs(),
        used / 100.0 * begun.elapsed().as_secs_f64() * 1e6 / calls,
    );
}

/// Ten thousand leases, each kept alive every twenty seconds: by single calls through every node in turn, and by the call for many.
async fn leases(program: &Path, mode: Mode) {
    let cluster = Cluster::start(program, &[], "http", &Access::default()).await;
    let idle = at_rest(&cluster).await;
    let made = create(&cluster, mode).await;
    // The first keep-alive of each lease under a leader may be written down: it is no part of what is measured.
    bulk(&cluster, mode, &made).await;
    for (how, goal) in [("singly", 3.0), ("in bulk", 0.5)] {
        let (mark, log) = (revision(&cluster, mode).await, cluster.log_len().await);
        let (before, begun) = (cluster.used(), Instant::now());
        let mut calls = 0;
        for _ in 0..ROUNDS {
            calls += match how {
                "singly" => singly(&cluster, mode, &made).await,
                _ => bulk(&cluster, mode, &made).await,
            };
        }
        let used = cluster.used().since(before);
        let all = percent(used, begun.elapsed());
        let grown = match mode {
            Mode::Cp => format!("log growth {}", cluster.log_len().await - log),
            Mode::Ap => {
                format!("new operations: {}", if revision(&cluster, mode).await == mark { "none" } else { "some" })
            }
        };
        println!(
            "{mode}: {LEASES} leases kept alive every {} s {how}: {:.2} % of a core above idle ({all:.2} % in all, {idle:.2} % idle; \
             goal < {goal} %), {:.0} us a call, {:.1} wakeups a call, {grown}",
            RENEWAL.as_secs(),
            all - idle,
            (all - idle) / 100.0 * begun.elapsed().as_secs_f64() * 1e6 / f64::from(calls),
            used.wakeups as f64 / f64::from(calls),
        );
    }
}

/// What it costs while nobody calls, in percent of a core.
async fn at_rest(cluster: &Cluster) -> f64 {
    let before = cluster.used();
    sleep(IDLE).await;
    percent(cluster.used().since(before), IDLE)
}

fn percent(used: Used, time: Duration) -> f64 {
    100.0 * used.cpu.as_secs_f64() / time.as_secs_f64()
}

async fn create(cluster: &Cluster, mode: Mode) -> Arc<Vec<LeaseId>> {
    let mut creating = JoinSet::new();
    for at in 0..CALLERS {
        let caller = cluster.callers[at % cluster.callers.len()].clone();
        creating.spawn(async move {
            let mut made = Vec::new();
            for _ in (at..LEASES).step_by(CALLERS) {
                let action = Action::CreateLease { lease: None, ttl_ms: TTL_MS, credential: None };
                match caller.execute(mode, &action, &options()).await.expect("a lease").value {
                    Outcome::LeaseCreated { lease, .. } => made.push(lease),
                    other => panic!("{other:?}"),
                }
            }
            made
        });
    }
    let made = creating.join_all().await.concat();
    assert_eq!(made.len(), LEASES);
    Arc::new(made)
}

/// One round of single calls.
async fn singly(cluster: &Cluster, mode: Mode, leases: &Arc<Vec<LeaseId>>) -> u32 {
    let leases = leases.clone();
    let call = move |caller: Arc<Caller>, at: usize| {
        let leases = leases.clone();
        async move {
            caller.keep_alive(mode, &leases[at], &[], &options()).await.expect("an answer").expect("it lives");
        }
    };
    paced(cluster, call).await
}

/// One call for each lease, evenly over the time of a round and over the nodes.
async fn paced<F, C>(cluster: &Cluster, call: F) -> u32
where
    F: Fn(Arc<Caller>, usize) -> C,
    C: Future<Output = ()> + Send + 'static,
{
    let begun = Instant::now();
    let mut calls = JoinSet::new();
    for at in 0..LEASES {
        sleep_until(begun + RENEWAL * at as u32 / LEASES as u32).await;
        calls.spawn(call(cluster.callers[at % cluster.callers.len()].clone(), at));
        while calls.try_join_next().is_some() {}
    }
    calls.join_all().await;
    sleep_until(begun + RENEWAL).await;
    LEASES as u32
}

/// One round of calls for a thousand leases each.
async fn bulk(cluster: &Cluster, mode: Mode, leases: &Arc<Vec<LeaseId>>) -> u32 {
    let begun = Instant::now();
    let chunks = leases.chunks(BULK);
    let count = chunks.len() as u32;
    for (at, leases) in (0..).zip(chunks) {
        sleep_until(begun + RENEWAL * at / count).await;
        let caller = &cluster.callers[at as usize % cluster.callers.len()];
        let kept = caller.keep_alive_each(mode, leases, &[], &options()).await.expect("an answer");
        assert!(kept.iter().all(Result::is_ok));
    }
    sleep_until(begun + RENEWAL).await;
    count
}

async fn revision(cluster: &Cluster, mode: Mode) -> String {
    let query = Query::Names { page: Page { limit: 1, ..Page::default() } };
    let reply = cluster.callers[0].query(mode, &query, &options()).await.expect("an answer");
    reply.revision.to_string()
}

/// Registering, with the usual history of events and with none to speak of, watched and not.
async fn events(program: &Path, mode: Mode) {
    for (what, flags, watchers) in [
        ("no watcher, a history of one event", &["--watch-history".to_owned(), "1".to_owned()][..], 0),
        ("no watcher, the usual history", &[], 0),
        ("10 watchers at each node", &[], 10),
    ] {
        let cluster = Cluster::start(program, flags, "http", &Access::default()).await;
        let mut watching = JoinSet::new();
        let seen = Arc::new(AtomicU64::new(0));
        for at in 0..watchers * cluster.callers.len() {
            let client = Client::builder().endpoints([cluster.urls[at % cluster.urls.len()].clone()]).mode(mode);
            let (client, seen) = (client.build().expect("a client"), seen.clone());
            watching.spawn(async move {
                let mut watch = client.watch(Filter::default());
                while watch.next().await.is_ok() {
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        sleep(Duration::from_secs(1)).await;
        let (used, calls) = load(&cluster, move |caller, number| async move {
            let (name, owner) = (format!("n{number}").parse().unwrap(), "o".parse().unwrap());
            let condition = Condition::Free;
            let action = Action::Register { name, owner, meta: Meta::empty(), lease: None, condition };
            caller.execute(mode, &action, &options()).await.expect("an outcome");
        })
        .await;
        println!(
            "{mode}: register, {CALLERS} callers, {what}: {:.0} us of processor time, {:.0} a second, {} told",
            used.cpu.as_secs_f64() * 1e6 / calls as f64,
            calls as f64 / LOAD.as_secs_f64(),
            seen.load(Ordering::Relaxed),
        );
    }
}

/// Calls one after the other by [`CALLERS`] at once, over connections that stay open; how many, and what they cost.
async fn load<F, C>(cluster: &Cluster, call: F) -> (Used, u64)
where
    F: Fn(Arc<Caller>, u64) -> C + Clone + Send + 'static,
    C: Future<Output = ()> + Send,
{
    let number = Arc::new(AtomicU64::new(0));
    let (before, until) = (cluster.used(), Instant::now() + LOAD);
    let mut callers = JoinSet::new();
    for at in 0..CALLERS {
        let (caller, call, number) =
            (cluster.callers[at % cluster.callers.len()].clone(), call.clone(), number.clone());
        callers.spawn(async move {
            while Instant::now() < until {
                call(caller.clone(), number.fetch_add(1, Ordering::Relaxed)).await;
            }
        });
    }
    callers.join_all().await;
    (cluster.used().since(before), number.load(Ordering::Relaxed))
}

/// The same lookups and keep-alives in the open, by TLS, with a credential, and with both.
async fn locks(program: &Path) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target directory is writable");
    let authority = certificates::Authority::new();
    let roots = std::fs::read(authority.file(dir.path(), "ca")).expect("it was just written");
    let files = authority.issue(dir.path(), "http", "localhost");
    let made =
        Command::new(program).args(["credential", "new", "bench", "--admin"]).output().expect("the program runs");
    let made = String::from_utf8(made.stdout).expect("text");
    let (token, line) = made.trim().split_once('\n').expect("two lines");
    let credentials = dir.path().join("credentials");
    std::fs::write(&credentials, line).expect("the target directory is writable");
    let tls = ["--tls-cert".to_owned(), files.cert, "--tls-key".to_owned(), files.key];
    let shown = ["--credentials".to_owned(), credentials.display().to_string()];
    let trusting = || Access::default().tls(&roots, None).expect("roots");
    for (what, scheme, flags, access) in [
        ("in the open", "http", Vec::new(), Access::default()),
        ("by TLS", "https", tls.to_vec(), trusting()),
        ("with a credential", "http", shown.to_vec(), Access::default().credential(token).expect("a token")),
        ("with both", "https", [&tls[..], &shown[..]].concat(), trusting().credential(token).expect("a token")),
    ] {
        let cluster = Cluster::start(program, &flags, scheme, &access).await;
        let (used, calls) = load(&cluster, |caller, _| async move {
            let query = Query::Whereis { name: "nobody".parse().unwrap(), token: None };
            let local = CallOptions { consistency: Some(Consistency::Local), ..options() };
            let answer = caller.query(Mode::Ap, &query, &local).await.expect("an answer").value;
            assert!(matches!(answer, Answer::Refused(_)));
        })
        .await;
        println!(
            "ap: lookup, {CALLERS} callers, {what}: {:.1} us of processor time",
            used.cpu.as_secs_f64() * 1e6 / calls as f64
        );
    }
}
