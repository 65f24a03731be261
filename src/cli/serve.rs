//! `quorate serve`: one node, until it is told to stop.

use tokio::io::AsyncReadExt;

use super::Exit;
use super::connect::Misused;
use super::join::{self, Entrance};
use crate::node::config::{Config, ServeArgs};
use crate::node::identity;
use crate::node::node::Node;

/// Runs a node until SIGINT or SIGTERM, or until it was removed from its cluster.
pub fn run(args: ServeArgs) -> anyhow::Result<Exit> {
    let understood = Entrance::of(&args.join).and_then(|entrance| Ok((entrance, Config::try_from(args)?)));
    let (entrance, mut config) = match understood {
        Ok(understood) => understood,
        Err(Misused(why)) => {
            eprintln!("quorate: {why}");
            return Ok(Exit::Usage);
        }
    };
    raise_descriptor_limit();
    let runtime = super::runtime()?;
    let done = runtime.block_on(async {
        let exit_with_stdin = config.exit_with_stdin;
        match &entrance {
            Some(_) if identity::is_taken(&config.data) => {}
            Some(entrance) => {
                let own = config.advertise_peer.clone().unwrap_or_else(|| config.peer.to_string());
                config.joining = Some(entrance.learn(config.id, &own).await?);
            }
            None => {}
        }
        let node = Node::start(config).await?;
        for warning in node.warnings() {
            eprintln!("warning: {warning}");
        }
        println!("{}", node.greeting());
        match &entrance {
            Some(_) if !node.is_entering() => {
                println!("note: this node is in its cluster already: --join is not looked at")
            }
            None if node.is_entering() => println!("note: {}", join::not_in_yet(node.id())),
            Some(_) | None => {}
        }
        let entering = async {
            match &entrance {
                Some(entrance) if node.is_entering() => match entrance.enter(&node).await {
                    Ok(()) => std::future::pending().await,
                    Err(why) => why,
                },
                Some(_) | None => std::future::pending().await,
            }
        };
        let failed = tokio::select! {
            () = stop_signal() => None,
            () = stdin_ended(), if exit_with_stdin => None,
            why = node.removed() => Some(anyhow::anyhow!(why)),
            why = entering => Some(why),
        };
        node.stop().await;
        match failed {
            None => Ok(Exit::Yes),
            Some(why) => Err(why),
        }
    });
    // A thread that still reads standard input would be waited for otherwise.
    runtime.shutdown_background();
    done
}

/// As many descriptors as the process may have: the soft limit is often 1,024, for programs that wait by select(), and a node holds
/// more connections than that.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("the limit of open files stays as it was: {e}");
    }
}

/// Returns at SIGINT or SIGTERM.
pub(super) async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

/// The parent holds the other end of the pipe: it ends with the parent, however that ends.
async fn stdin_ended() {
    let mut stdin = tokio::io::stdin();
    let mut ignored = [0; 64];
    while matches!(stdin.read(&mut ignored).await, Ok(1..)) {}
}
