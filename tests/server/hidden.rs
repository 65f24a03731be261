//! What a node of `ap` hides since who answers for it is out of reach, and revisions that nobody can have told, as callers see them.

use std::time::{Duration, Instant};

use super::cli;
use super::nodes::{Nodes, http};

const CUT: &str = r#"{"peers":{"2":{"incoming":{"drop":true},"outgoing":{"drop":true}}}}"#;

#[test]
fn what_is_hidden_is_found_by_those_who_ask_for_it_and_marked() {
    let nodes = Nodes::start(2, &["--enable-faults", "--down-after-ms", "500"]);
    let (first, second) = (nodes.http_port(0), nodes.http_port(1));
    assert_eq!(http(first, "PUT", "/v1/ap/names/x?w=2", r#"{"owner":"o"}"#).unwrap().status, 201);
    let shown = http(second, "GET", "/v1/ap/names/x?include=hidden", "").unwrap();
    assert!(shown.status == 200 && shown.json().get("hidden").is_none(), "what is shown is not hidden: {shown:?}");
    http(first, "PUT", "/v1/faults", CUT).unwrap();
    let began = Instant::now();
    while http(second, "GET", "/v1/ap/names/x", "").unwrap().status != 404 {
        assert!(began.elapsed() < Duration::from_secs(60), "its home is out of reach, and it is shown for ever");
        std::thread::sleep(Duration::from_millis(50));
    }
    let found = http(second, "GET", "/v1/ap/names/x?include=hidden", "").unwrap();
    assert_eq!((found.status, found.json()["owner"].as_str(), &found.json()["hidden"]), (200, Some("o"), &true.into()));
    let listed = http(second, "GET", "/v1/ap/names?include=hidden", "").unwrap();
    assert_eq!(listed.json()["names"][0]["hidden"], true);
    assert_eq!(http(second, "GET", "/v1/ap/names", "").unwrap().json()["names"], serde_json::json!([]));
    cli::expect(second, &["whereis", "x", "--mode", "ap"], 1, "not found: x");
    cli::expect(second, &["whereis", "x", "--mode", "ap", "--hidden"], 0, "1 (hidden)");
    cli::expect(second, &["names", "--mode", "ap", "--hidden", "--json"], 0, r#""hidden":true"#);
}

#[test]
fn a_revision_that_ap_cannot_have_told_is_malformed_and_not_waited_for() {
    let nodes = Nodes::start(1, &[]);
    let port = nodes.http_port(0);
    let registered = http(port, "PUT", "/v1/ap/names/x", r#"{"owner":"o"}"#).unwrap();
    let revision = registered.json()["revision"].as_str().unwrap().to_owned();
    // The last one is of the other mode.
    for never in ["abc", "1109"] {
        for path in [format!("/v1/ap/names/x?min_revision={never}"), format!("/v1/ap/watch?after={never}")] {
            let refused = http(port, "GET", &path, "").unwrap();
            assert_eq!((refused.status, refused.json()["code"].as_str()), (400, Some("malformed")), "{path}");
        }
    }
    let read = http(port, "GET", &format!("/v1/ap/names/x?min_revision={revision}"), "").unwrap();
    assert_eq!(read.status, 200);
}
