//! `quorate dev`: a local cluster in one process, to play with.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Exit;
use crate::model::ident::Mode;
use crate::node::config::{Config, Conflicts};
use crate::node::locks::Locks;
use crate::node::node::Node;

#[derive(Args)]
pub struct DevArgs {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=15))]
    nodes: u16,
    /// The first node's HTTP port; the others follow, the peer ports are 100 above
    #[arg(long, default_value_t = 7401, value_parser = clap::value_parser!(u16).range(1..=65_400))]
    http_port: u16,
    /// Where the nodes keep their data
    #[arg(long, default_value = "quorate-data/dev")]
    data: PathBuf,
    /// The registry that paths without a mode mean
    #[arg(long, default_value = "cp")]
    mode: Mode,
    /// Who keeps an ap name that both sides of a partition registered
    #[arg(long, value_enum, default_value_t = Conflicts::Oldest)]
    conflicts: Conflicts,
}

/// Runs the cluster until SIGINT or SIGTERM.
pub fn run(args: DevArgs) -> anyhow::Result<Exit> {
    super::runtime()?.block_on(async {
        let starting = configs(&args).into_iter().map(|config| tokio::spawn(Node::start(config))).collect::<Vec<_>>();
        let mut nodes = Vec::new();
        for node in starting {
            nodes.push(node.await??);
        }
        for node in &nodes {
            println!("{}", node.greeting());
        }
        let (port, last) = (args.http_port, args.nodes);
        println!("\nTry:");
        println!("  quorate register billing --owner me --endpoints http://127.0.0.1:{port}");
        println!("  quorate whereis billing --endpoints http://127.0.0.1:{}", port + last - 1);
        if last > 1 {
            println!("\nCut node 1 off from node 2 (both directions, at node 1), and mend it:");
            println!(
                "  curl -X PUT http://127.0.0.1:{port}/v1/faults -d '{{\"peers\":{{\"2\":{{\"incoming\":{{\"drop\":true}},\"outgoing\":{{\"drop\":true}}}}}}}}'"
            );
            println!("  curl -X DELETE http://127.0.0.1:{port}/v1/faults");
        }
        println!("\nCtrl-C ends the cluster; its data stays in {}.", args.data.display());
        super::serve::stop_signal().await;
        for node in nodes {
            node.stop().await;
        }
        Ok(Exit::Yes)
    })
}

fn configs(args: &DevArgs) -> Vec<Config> {
    let ports = |id: u16| (args.http_port + id - 1, args.http_port + 100 + id - 1);
    let members = (1..=args.nodes).map(|id| (u64::from(id), format!("127.0.0.1:{}", ports(id).1)));
    let members = members.collect::<BTreeMap<_, _>>();
    (1..=args.nodes)
        .map(|id| {
            let (http, peer) = ports(id);
            Config {
                id: u64::from(id),
                http: ([127, 0, 0, 1], http).into(),
                peer: ([127, 0, 0, 1], peer).into(),
                advertise_http: None,
                data: args.data.join(id.to_string()),
                members: members.clone(),
                advertise_peer: None,
                joining: None,
                mode: args.mode,
                conflicts: args.conflicts,
                down_after: Duration::from_secs(30),
                election_timeout: Duration::from_millis(400),
                watch_history: 100_000,
                max_in_flight: 4_096,
                max_streams: 4_096,
                allowed_origins: Vec::new(),
                locks: Locks::default(),
                faults_enabled: true,
                exit_with_stdin: false,
                flaws: Vec::new(),
            }
        })
        .collect()
}
