//! `quorate serve`: one node, until it is told to stop.

use tokio::io::AsyncReadExt;

use super::Exit;
use crate::node::config::{Config, ServeArgs};
use crate::node::node::Node;

/// Runs a node until SIGINT or SIGTERM, or until it was removed from its cluster.
pub fn run(args: ServeArgs) -> anyhow::Result<Exit> {
    let config = match Config::try_from(args) {
        Ok(config) => config,
        Err(e) => {
            eprintln!("quorate: {e}");
            return Ok(Exit::Usage);
        }
    };
    raise_descriptor_limit();
    let runtime = super::runtime()?;
    let done = runtime.block_on(async {
        let exit_with_stdin = config.exit_with_stdin;
        let node = Node::start(config).await?;
        for warning in node.warnings() {
            eprintln!("warning: {warning}");
        }
        println!("{}", node.greeting());
        let removed = tokio::select! {
            () = stop_signal() => None,
            () = stdin_ended(), if exit_with_stdin => None,
            why = node.removed() => Some(why),
        };
        node.stop().await;
        match removed {
            None => Ok(Exit::Yes),
            Some(why) => Err(anyhow::anyhow!(why)),
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
