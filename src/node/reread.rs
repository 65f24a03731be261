//! Files that are read again when they change, or on SIGHUP: certificates, keys and credentials are renewed while a node runs.

use std::fmt::Display;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};

/// How often the files are looked at. A look is a stat of each.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// All that a node reads again.
#[derive(Default)]
pub struct Rereader {
    items: Vec<Box<dyn FnMut(Occasion) + Send>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Occasion {
    /// Some time has passed: only what has changed is read.
    Look,
    Asked,
}

/// What tells one content of a file from another without reading it: a rename, a write, a changed link all change this.
type Stamp = Option<(u64, u64, i64, i64)>;

impl Rereader {
    /// Reads the files now, and again whenever they have changed. What cannot be used then is told in one line, once, and what
    /// was read before stays in force until the files are in order again.
    pub fn keep<T, E>(
        &mut self,
        files: Vec<PathBuf>,
        read: impl Fn() -> Result<T, E> + Send + 'static,
    ) -> Result<Arc<ArcSwap<T>>, E>
    where
        T: Send + Sync + 'static,
        E: Display,
    {
        // Looked at before they are read: what changes in between is seen as a change at the next look.
        let mut seen = stamps(&files);
        let kept = Arc::new(ArcSwap::from_pointee(read()?));
        let current = kept.clone();
        let mut told = None;
        self.items.push(Box::new(move |occasion| {
            let found = stamps(&files);
            // After a failure it is tried again each time: of a certificate and its key one is written first.
            if found == seen && told.is_none() && occasion == Occasion::Look {
                return;
            }
            seen = found;
            match read() {
                Ok(value) => {
                    kept.store(Arc::new(value));
                    told = None;
                    tracing::info!("read again: {}", names(&files));
                }
                Err(e) => {
                    let why = e.to_string();
                    if told.as_ref() != Some(&why) {
                        tracing::error!("{why}; what was read before stays in force");
                        told = Some(why);
                    }
                }
            }
        }));
        Ok(current)
    }

    /// Goes on looking until the handle is aborted. None: there is nothing to look at, and SIGHUP ends the process as ever.
    pub fn start(mut self) -> Option<JoinHandle<()>> {
        if self.items.is_empty() {
            return None;
        }
        let mut asked = match signal(SignalKind::hangup()) {
            Ok(asked) => Some(asked),
            Err(e) => {
                tracing::error!("SIGHUP is not heard: {e}");
                None
            }
        };
        Some(tokio::spawn(async move {
            let mut looks = interval(LOOK_EVERY);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let heard = async {
                    match &mut asked {
                        Some(asked) => asked.recv().await,
                        None => std::future::pending().await,
                    }
                };
                let occasion = tokio::select! {
                    _ = looks.tick() => Occasion::Look,
                    _ = heard => Occasion::Asked,
                };
                let looked = spawn_blocking(move || {
                    for item in &mut self.items {
                        item(occasion);
                    }
                    self
                });
                self = match looked.await {
                    Ok(back) => back,
                    Err(e) => {
                        tracing::error!("files are not read again any more: {e}");
                        return;
                    }
                };
            }
        }))
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file: &PathBuf| {
        let data = std::fs::metadata(file).ok()?;
        Some((data.ino(), data.len(), data.mtime(), data.mtime_nsec()))
    };
    files.iter().map(stamp).collect()
}

fn names(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_leaves_in_force_what_was_there_until_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("number");
        std::fs::write(&file, "1").unwrap();
        let mut rereader = Rereader::default();
        let from = file.clone();
        let number = rereader
            .keep(vec![file.clone()], move || {
                let text = std::fs::read_to_string(&from).map_err(|e| e.to_string())?;
                text.parse::<u64>().map_err(|e| e.to_string())
            })
            .unwrap();
        let mut look = |occasion| (rereader.items[0])(occasion);
        let replace = |text: &str| {
            // As tools do it: a new file takes the old one's place.
            std::fs::write(dir.path().join("new"), text).unwrap();
            std::fs::rename(dir.path().join("new"), &file).unwrap();
        };
        look(Occasion::Look);
        assert_eq!(**number.load(), 1);
        replace("2");
        look(Occasion::Look);
        assert_eq!(**number.load(), 2);
        replace("oops");
        look(Occasion::Look);
        look(Occasion::Asked);
        assert_eq!(**number.load(), 2);
        std::fs::remove_file(&file).unwrap();
        look(Occasion::Look);
        assert_eq!(**number.load(), 2);
        replace("3");
        look(Occasion::Look);
        assert_eq!(**number.load(), 3);
    }
}
