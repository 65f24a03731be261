//! Other people's systems, put through the same: what is known of each has to come out.

use std::process::Command;
use std::time::{Duration, Instant};

use quorate::referee::client::{Client, Completion};
use quorate::referee::history::{Found, Registered, What};
use quorate::systems::{Place, named, netns};
use serde_json::Value;

use super::comparison::{TURN, by_program};

/// A comparison by the program itself. None: said why not.
fn report(systems: &str, arguments: &[&str]) -> Option<Value> {
    if arguments.contains(&"netns")
        && let Some(why) = netns::missing()
    {
        super::skipped(&why);
        return None;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let arguments = [&["--systems", systems][..], arguments].concat();
    let (code, report, told) = by_program(&dir.path().join("run"), &arguments);
    if let Some(skipped) = report["skipped"].as_array().unwrap().first() {
        super::skipped(skipped["why"].as_str().unwrap());
        return None;
    }
    // Others decide nothing.
    assert_eq!(code, Some(0), "{told}");
    Some(report)
}

fn through_halves(systems: &str, seconds: &str) -> Option<Value> {
    let arguments = ["--nodes", "3", "--seed", "31", "--faults", "halves", "--net", "netns", "--seconds-per-system"];
    report(systems, &[&arguments[..], &[seconds]].concat())
}

fn of<'a>(report: &'a Value, system: &str) -> &'a Value {
    report["systems"].as_array().unwrap().iter().find(|found| found["system"] == system).unwrap()
}

fn verdict<'a>(found: &'a Value, promise: &str) -> &'a str {
    let promise = found["promises"].as_array().unwrap().iter().find(|p| p["id"] == promise);
    promise.map_or("none", |promise| promise["verdict"].as_str().unwrap())
}

fn fact<'a>(found: &'a Value, what: &str) -> &'a str {
    let fact = found["facts"].as_array().unwrap().iter().find(|fact| fact["what"] == what);
    fact.unwrap_or_else(|| panic!("no {what}: {}", found["facts"]))["value"].as_str().unwrap()
}

#[test]
fn etcd_is_linearizable_and_its_serializable_reads_are_stale() {
    // Long enough for both cuts to outlast an election: nothing is stale before the others go on without the reader's node.
    let Some(report) = through_halves("etcd,etcd-stale", "16") else { return };
    let (etcd, stale) = (of(&report, "etcd"), of(&report, "etcd-stale"));
    for promise in ["linearizable-names", "linearizable-groups", "linearizable-writes", "one-owner", "nothing-lost"] {
        assert_eq!(verdict(etcd, promise), "holds", "{promise}: {}", etcd["promises"]);
    }
    assert_eq!(etcd["stale_reads"]["stale"], 0);
    assert_eq!(verdict(stale, "linearizable-writes"), "holds", "{}", stale["promises"]);
    assert_eq!(verdict(stale, "linearizable-names"), "violated", "{}", stale["promises"]);
    assert_ne!(stale["stale_reads"]["stale"], 0);
    assert!(fact(etcd, "program").starts_with("etcd 3."));
}

#[test]
fn zookeepers_writes_are_linearizable() {
    let Some(report) = through_halves("zookeeper", "12") else { return };
    let found = of(&report, "zookeeper");
    for promise in ["linearizable-writes", "one-owner", "nothing-lost", "nothing-resurrected", "minority-refuses"] {
        assert_eq!(verdict(found, promise), "holds", "{promise}: {}", found["promises"]);
    }
    assert!(fact(found, "program").starts_with("ZooKeeper 3."));
}

#[test]
fn global_has_two_owners_until_somebody_dials_again_and_then_kills_one() {
    // Long enough for calls that are under way when a cut begins to have ended before the heal: they would dial.
    let Some(report) = through_halves("erlang-global,erlang-global-redial", "24") else { return };
    let found = of(&report, "erlang-global");
    assert_ne!(found["duplicates"]["names"], 0, "{}", found["promises"]);
    // Healed, and nothing comes of it.
    assert_eq!(verdict(found, "agreement"), "violated", "{}", found["promises"]);
    let found = of(&report, "erlang-global-redial");
    assert_ne!(found["duplicates"]["names"], 0, "{}", found["promises"]);
    assert_eq!(verdict(found, "agreement"), "holds", "{}", found["promises"]);
    assert_ne!(fact(found, "processes killed by a conflict"), "0");
}

#[test]
fn pg_answers_everywhere_and_stays_apart_after_the_heal() {
    let Some(report) = through_halves("erlang-pg", "12") else { return };
    let found = of(&report, "erlang-pg");
    assert_eq!(verdict(found, "all-answer"), "holds", "{}", found["promises"]);
    assert_eq!(verdict(found, "agreement"), "violated", "{}", found["promises"]);
    // It has no names: nothing is said of them.
    assert_eq!(verdict(found, "linearizable-names"), "none");
}

#[test]
fn one_database_is_linearizable_and_serves_whoever_reaches_it() {
    let Some(report) = through_halves("postgresql,postgresql-2pc", "10") else { return };
    let (single, three) = (of(&report, "postgresql"), of(&report, "postgresql-2pc"));
    for promise in ["linearizable-names", "linearizable-groups", "one-owner", "nothing-lost"] {
        assert_eq!(verdict(single, promise), "holds", "{promise}: {}", single["promises"]);
    }
    assert_eq!(verdict(single, "all-answer"), "violated", "{}", single["promises"]);
    for promise in ["linearizable-writes", "one-owner", "nothing-lost"] {
        assert_eq!(verdict(three, promise), "holds", "{promise}: {}", three["promises"]);
    }
}

#[test]
fn others_are_killed_and_paused_and_come_back_on_what_they_left() {
    for system in ["etcd", "zookeeper", "erlang-pg", "postgresql"] {
        let arguments = ["--nodes", "3", "--seed", "32", "--faults", "kill,pause", "--seconds-per-system", "12"];
        let Some(report) = report(system, &arguments) else { continue };
        let found = of(&report, system);
        let faults = found["faults"].as_array().unwrap();
        assert!(faults.iter().all(|fault| fault["state"] == "installed"), "{system}: {}", found["faults"]);
        assert_eq!(faults.len(), 2);
        if system != "erlang-pg" {
            assert_eq!(verdict(found, "nothing-lost"), "holds", "{system}: {}", found["promises"]);
            assert_eq!(verdict(found, "linearizable-writes"), "holds", "{system}: {}", found["promises"]);
        }
    }
}

#[test]
fn on_loopback_the_links_of_others_are_not_cut_and_the_report_says_so() {
    let Some(report) = report("etcd", &["--nodes", "3", "--seconds-per-system", "8", "--faults", "halves"]) else {
        return;
    };
    let found = of(&report, "etcd");
    for fault in found["faults"].as_array().unwrap() {
        assert_eq!(fault["state"], "skipped");
        assert!(fault["detail"].as_str().unwrap().contains("needs --net netns"), "{fault}");
    }
    assert_eq!(verdict(found, "tested"), "unknown");
}

#[test]
fn a_system_that_is_not_installed_is_skipped_with_the_line_that_installs_it() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut compare = Command::new(env!("CARGO_BIN_EXE_quorate"));
    // No program is to be found.
    compare.args(["compare", "--seconds-per-system", "8", "--systems", "etcd,erlang-global"]).env("PATH", dir.path());
    let done = compare.current_dir(dir.path()).output().unwrap();
    let (shown, error) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    for line in ["apt-get install etcd-server", "apt-get install erlang-base"] {
        assert!(shown.contains(line), "{shown}{error}");
    }
    // Nothing ran, so nothing is known.
    assert_eq!(done.status.code(), Some(2), "{shown}{error}");
}

async fn register(client: &mut dyn Client, name: &str, owner: &str) -> Completion {
    let what = What::Register { name: name.to_owned(), owner: owner.to_owned(), lease: None, result: None };
    client.call(&what, Instant::now() + Duration::from_millis(1_500)).await
}

fn granted(completion: &Completion) -> Option<&Registered> {
    match completion {
        Completion::Ok(What::Register { result, .. }) => result.as_ref(),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_dies_between_the_phases_blocks_its_name_until_it_is_back() {
    let _turn = TURN.lock().await;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let place = Place::new(env!("CARGO_BIN_EXE_quorate").into(), dir.path().to_owned());
    let system = named("postgresql-2pc", &place).unwrap();
    if let Some(why) = system.missing() {
        return super::skipped(&why);
    }
    // A node without a database: with it dies a coordinator and nothing else.
    let (dies, other) = (4, 2);
    let running = match system.start(4, 0).await {
        Ok(running) => running,
        Err(why) => return super::skipped(&format!("{why:#}")),
    };
    let mut blocked = None;
    // How long it is left alone: less after it was through, more after it had not got far. The time between is where it is to die.
    let mut alone = Duration::from_millis(20);
    for attempt in 0..200 {
        let name = format!("name-{attempt}");
        let (mut first, mut second) = (running.client(dies), running.client(other));
        let call = {
            let name = name.clone();
            tokio::spawn(async move { register(&mut *first, &name, "first").await })
        };
        tokio::time::sleep(alone).await;
        running.kill(dies).await.unwrap();
        assert!(matches!(call.await.unwrap(), Completion::Ok(_) | Completion::Info(_)));
        // Nobody holds it, as far as can be seen, and nobody can have it.
        let refused = register(&mut *second, &name, "second").await;
        if matches!(&refused, Completion::Fail(why) if why.contains("lock timeout")) {
            blocked = Some(name);
            break;
        }
        match granted(&refused) {
            Some(Registered::Granted { .. }) => alone = alone.mul_f64(1.1),
            _ => alone = alone.mul_f64(0.9),
        }
        running.restart(dies).await.unwrap();
    }
    let name = blocked.expect("of 200 deaths one comes between the phases");
    let mut client = running.client(other);
    let asked = What::Whereis { name: name.clone(), result: None };
    let shown = client.call(&asked, Instant::now() + Duration::from_secs(1)).await;
    let nobody = Some(Found { owner: None, token: None });
    assert_eq!(shown, Completion::Ok(What::Whereis { name: name.clone(), result: nobody }));
    assert!(matches!(register(&mut *client, &name, "third").await, Completion::Fail(_)), "it is blocked for good");

    running.restart(dies).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = register(&mut *client, &name, "fourth").await;
        match granted(&answer) {
            // As its coordinator had written down, or had not.
            Some(Registered::Granted { .. }) => break,
            Some(Registered::Taken { owner, .. }) => break assert_eq!(owner, "first"),
            _ => assert!(Instant::now() < deadline, "still blocked: {answer:?}"),
        }
    }
    running.stop().await.unwrap();
}
