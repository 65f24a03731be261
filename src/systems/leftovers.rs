//! What a run leaves when it is killed: the data of its nodes. Its processes end with it, its namespaces and mounts with them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Tells that a directory is a run's, and whose.
const MARK: &str = "run.json";

#[derive(Serialize, Deserialize)]
struct Mark {
    /// Always 1.
    format: u32,
    command: String,
    process: u32,
}

/// Why nothing was removed.
#[derive(Debug, thiserror::Error)]
pub enum CleanError {
    #[error("{} is not the directory of a run: it has no {MARK}", dir.display())]
    NoRun { dir: PathBuf },
    #[error("the run in {} is still under way (process {process})", dir.display())]
    UnderWay { dir: PathBuf, process: u32 },
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
}

/// Marks a directory as that of a run of this process.
pub fn mark(dir: &Path, command: &str) -> io::Result<()> {
    let mark = Mark { format: 1, command: command.to_owned(), process: std::process::id() };
    fs::write(dir.join(MARK), serde_json::to_string(&mark).expect("numbers and words are JSON") + "\n")
}

/// Removes what nodes kept below a run's directory, and returns what that was. Histories, reports and logs stay.
pub fn clean(dir: &Path) -> Result<Vec<PathBuf>, CleanError> {
    let mark = fs::read_to_string(dir.join(MARK)).ok().and_then(|text| serde_json::from_str::<Mark>(&text).ok());
    let Some(mark) = mark else { return Err(CleanError::NoRun { dir: dir.to_owned() }) };
    if is_ours(mark.process) {
        return Err(CleanError::UnderWay { dir: dir.to_owned(), process: mark.process });
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| CleanError::Io { path, error }
    };
    let mut removed = Vec::new();
    for system in fs::read_dir(dir).map_err(failed(dir))? {
        let system = system.map_err(failed(dir))?.path();
        if !system.is_dir() {
            continue;
        }
        for left in fs::read_dir(&system).map_err(failed(&system))? {
            let left = left.map_err(failed(&system))?.path();
            if !is_data(&left) {
                continue;
            }
            let gone = if left.is_dir() { fs::remove_dir_all(&left) } else { fs::remove_file(&left) };
            gone.map_err(failed(&left))?;
            removed.push(left);
        }
    }
    removed.sort();
    Ok(removed)
}

/// A node's directory, its disk or its clock; not its log.
fn is_data(path: &Path) -> bool {
    let of_node = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("node-"));
    let kept = path.extension().is_some_and(|extension| extension == "log");
    of_node && !kept
}

/// Whether a process of that id is there and runs this program. Ids are used again.
#[cfg(target_os = "linux")]
fn is_ours(process: u32) -> bool {
    let program = fs::read_link(format!("/proc/{process}/exe"));
    process != std::process::id()
        && program.is_ok_and(|program| std::env::current_exe().is_ok_and(|own| own == program))
}

#[cfg(not(target_os = "linux"))]
fn is_ours(process: u32) -> bool {
    let process = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    process.is_some_and(|process| rustix::process::test_kill_process(process).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_goes_and_what_tells_of_the_run_stays() {
        let dir = tempfile::tempdir().unwrap();
        let system = dir.path().join("cp");
        fs::create_dir_all(system.join("node-1/as-1/raft")).unwrap();
        for file in ["node-1/as-1/raft/db", "node-1.disk", "node-1.clock", "node-1.log", "history.ndjson"] {
            fs::write(system.join(file), "x").unwrap();
        }
        assert!(matches!(clean(dir.path()), Err(CleanError::NoRun { .. })));
        mark(dir.path(), "quorate compare").unwrap();
        assert_eq!(clean(dir.path()).unwrap(), ["node-1", "node-1.clock", "node-1.disk"].map(|name| system.join(name)));
        let left = fs::read_dir(&system).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(left.collect::<std::collections::BTreeSet<_>>().len(), 2);
        assert_eq!(clean(dir.path()).unwrap(), Vec::<PathBuf>::new());
    }
}
