//! Who is in the room: an `ap` group that always answers, by members that leave when they are gone.
//!
//! ```sh
//! quorate dev &
//! cargo run --example presence -- alice
//! cargo run --example presence -- bob http://127.0.0.1:7402      # in another terminal; end one, and see
//! ```

use std::collections::BTreeSet;
use std::error::Error;
use std::time::Duration;

use quorate::client::client::Client;
use quorate::client::group::Group;
use quorate::client::watch::Seen;
use quorate::model::event::Change;
use quorate::model::ident::Mode;

type Failure = Box<dyn Error + Send + Sync>;

/// Is in the room and tells who is, each time that changes, until `told` has heard enough.
pub async fn be_there(url: String, me: String, mut told: impl FnMut(&BTreeSet<String>) -> bool) -> Result<(), Failure> {
    let client = Client::builder().endpoints([url]).mode(Mode::Ap).build()?;
    let room = Group::new(&client, "room-7")?;
    // Killed, it is gone within eleven seconds; ended in good order, at once.
    let membership = room.join(me.as_str(), r#"{"typing":false}"#, Duration::from_secs(10)).await?;
    let mut here = BTreeSet::new();
    let mut watch = room.watch();
    loop {
        let seen = tokio::select! {
            seen = watch.next() => seen?,
            why = membership.lost() => return Err(why.into()),
            _ = tokio::signal::ctrl_c() => break,
        };
        match seen {
            Seen::State(entries) => here.extend(entries.iter().map(|entry| entry.holder_text().to_owned())),
            Seen::Change(event) => {
                for change in &event.changes {
                    match change {
                        Change::Joined { entry } | Change::Shown { entry } => {
                            here.insert(entry.holder_text().to_owned())
                        }
                        Change::Left { entry, .. } | Change::Hidden { entry } => here.remove(entry.holder_text()),
                        _ => false,
                    };
                }
            }
            // Something was missed: the state comes once more.
            Seen::Resync => here.clear(),
            Seen::Synced | Seen::Progress { .. } | Seen::Stalled | Seen::Interrupted(_) => continue,
        }
        if !told(&here) {
            break;
        }
    }
    membership.leave().await?;
    Ok(())
}

#[tokio::main]
#[allow(dead_code, reason = "a test plays it too")]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let me = args.next().ok_or("who are you? cargo run --example presence -- NAME [URL]")?;
    let url = args.next().unwrap_or_else(|| "http://127.0.0.1:7401".to_owned());
    be_there(url, me, |here| {
        println!("here: {}", here.iter().cloned().collect::<Vec<_>>().join(", "));
        true
    })
    .await
}
