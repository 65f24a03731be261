//! The hybrid logical clock: stamps that follow the wall clock where they can, and causality always.
//!
//! After Kulkarni et al. 2014, *Logical Physical Clocks*. A stamp is milliseconds since the Unix epoch, shifted by 16 bits,
//! plus a counter that carries into the wall part: a clock that jumps back never stalls it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::model::ident::NodeId;

/// Bits below the milliseconds.
const COUNTER_BITS: u32 = 16;
/// No stamp is above this one (about the year 4199): what a peer claims beyond it is not believed.
pub const STAMP_MAX: u64 = 1 << 62;
/// How far ahead of the last stamp the mark on disk is set, in milliseconds.
const AHEAD_MS: u64 = 60_000;

/// A clock of one node. Every stamp is above all that it has given out or seen.
#[derive(Clone, Debug, Default)]
pub struct Hlc {
    last: u64,
}

impl Hlc {
    /// A clock that starts above this stamp.
    pub fn above(stamp: u64) -> Self {
        Self { last: stamp.min(STAMP_MAX) }
    }

    /// The next stamp, with the wall clock at `wall_ms`.
    pub fn stamp(&mut self, wall_ms: u64) -> u64 {
        self.last = self.last.saturating_add(1).max(from_wall(wall_ms));
        self.last
    }

    /// Learns of a stamp given out elsewhere.
    pub fn observe(&mut self, stamp: u64) {
        self.last = self.last.max(stamp.min(STAMP_MAX));
    }

    pub fn last(&self) -> u64 {
        self.last
    }
}

fn from_wall(wall_ms: u64) -> u64 {
    wall_ms.min(STAMP_MAX >> COUNTER_BITS) << COUNTER_BITS
}

/// Why the mark could not be taken up.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error(
        "{path} is not a clock mark of this version; restore the file, or remove the directory and start the node with an empty one"
    )]
    Malformed { path: PathBuf },
    #[error("{path} belongs to node {found}; this is node {node}: give each node its own data directory")]
    OtherNode { path: PathBuf, found: NodeId, node: NodeId },
    #[error("run {run:x} has been used before; a run's random bits have to be drawn anew for each process")]
    RunReused { run: u64 },
}

/// The high-water mark on disk, always ahead of what was given out, and when it was set.
///
/// A restarted node goes by the wall clock, which is past its former stamps, unless that clock stands before the time at which the mark
/// was set: then it goes on above the mark. It does so only then, for the mark is a minute ahead, its stamps would draw those of all
/// nodes after them, and for that minute no stamp would tell which of two grants is the older one. A clock that was set back by less,
/// since the mark was set, is not noticed; what the peers know is above the former stamps all the same.
#[derive(Debug)]
pub struct Mark {
    path: PathBuf,
    node: NodeId,
    run: u64,
    /// Above all that former lives gave out.
    floor: u64,
    durable: u64,
}

impl Mark {
    /// Takes up the mark in the directory (made if absent), sets it ahead, and returns it with the clock to start from.
    pub fn open(directory: &Path, node: NodeId, run: u64, wall_ms: u64) -> Result<(Self, Hlc), MarkError> {
        let path = directory.join("clock");
        let io = |error| MarkError::Io { path: path.clone(), error };
        fs::create_dir_all(directory).map_err(io)?;
        let former = match fs::read_to_string(&path) {
            Ok(text) => Some(parse(&text).ok_or_else(|| MarkError::Malformed { path: path.clone() })?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io(error)),
        };
        let (mut start, mut floor) = (from_wall(wall_ms), from_wall(wall_ms));
        if let Some(former) = former {
            if former.node != node {
                return Err(MarkError::OtherNode { path, found: former.node, node });
            }
            // One run that numbers its operations twice would make two grants of one id.
            if former.run == run {
                return Err(MarkError::RunReused { run });
            }
            floor = floor.max(former.ahead);
            if wall_ms < former.wall_ms {
                start = floor;
            }
        }
        let hlc = Hlc::above(start);
        let mut mark = Self { path: path.clone(), node, run, floor, durable: floor };
        mark.raise(hlc.last(), wall_ms).map_err(io)?;
        Ok((mark, hlc))
    }

    /// Whether it is time to set the mark ahead: half of the room is used up.
    pub fn is_due(&self, last: u64) -> bool {
        last.saturating_add((AHEAD_MS / 2) << COUNTER_BITS) > self.durable
    }

    /// No life of this node before this one has given out a stamp above it.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// All stamps up to here may be given out.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Sets the mark ahead of this stamp, and of where it was. On disk when it returns.
    pub fn raise(&mut self, last: u64, wall_ms: u64) -> io::Result<()> {
        let ahead = last.saturating_add(AHEAD_MS << COUNTER_BITS).max(self.durable.saturating_add(1 << COUNTER_BITS));
        let fresh = self.path.with_extension("new");
        let mut file = File::create(&fresh)?;
        writeln!(file, "quorate-clock 2 {:x} {:x} {ahead:x} {wall_ms:x}", self.node, self.run)?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)?;
        // The rename itself has to survive a power cut too.
        if let Some(directory) = self.path.parent() {
            File::open(directory)?.sync_all()?;
        }
        self.durable = ahead;
        Ok(())
    }
}

/// What is on disk.
struct Former {
    node: NodeId,
    run: u64,
    ahead: u64,
    /// The wall clock when it was written.
    wall_ms: u64,
}

fn parse(text: &str) -> Option<Former> {
    let rest = text.strip_prefix("quorate-clock 2 ")?.strip_suffix('\n')?;
    let mut parts = rest.split(' ').map(|part| u64::from_str_radix(part, 16).ok());
    let mut next = || parts.next().flatten();
    let former = Former { node: next()?, run: next()?, ahead: next()?, wall_ms: next()? };
    parts.next().is_none().then_some(former)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_back_never_stalls_the_stamps() {
        let mut hlc = Hlc::default();
        let first = hlc.stamp(1_000_000);
        let mut last = first;
        for _ in 0..200_000 {
            let next = hlc.stamp(5);
            assert!(next > last);
            last = next;
        }
        // 65,536 stamps carry into the wall part.
        assert_eq!(last >> COUNTER_BITS, (first >> COUNTER_BITS) + 3);
        assert_eq!(hlc.stamp(2_000_000) >> COUNTER_BITS, 2_000_000);
    }

    #[test]
    fn a_stamp_is_above_every_stamp_seen() {
        let mut hlc = Hlc::default();
        hlc.observe(77 << COUNTER_BITS);
        assert_eq!(hlc.stamp(3), (77 << COUNTER_BITS) + 1);
        hlc.observe(u64::MAX);
        assert_eq!(hlc.stamp(3), STAMP_MAX + 1);
    }

    #[test]
    fn a_restarted_node_goes_on_above_its_former_stamps() {
        let directory = tempfile::tempdir().unwrap();
        let (mut mark, mut hlc) = Mark::open(directory.path(), 1, 10, 1_000_000).unwrap();
        let last = hlc.stamp(1_050_000);
        assert!(mark.is_due(last));
        mark.raise(last, 1_050_000).unwrap();
        let last = hlc.stamp(1_100_000);
        // The wall clock is a quarter of an hour back after the restart.
        let (mark, mut hlc) = Mark::open(directory.path(), 1, 11, 1_000).unwrap();
        assert!(hlc.stamp(1_000) > last && mark.floor() > last);
    }

    #[test]
    fn a_restarted_node_does_not_run_ahead_of_the_wall_clock() {
        let directory = tempfile::tempdir().unwrap();
        let mut floor = 0;
        for (run, wall_ms) in [(10, 1_000_000), (11, 1_000_500), (12, 1_000_500), (13, 1_001_000)] {
            let (mark, mut hlc) = Mark::open(directory.path(), 1, run, wall_ms).unwrap();
            assert_eq!(hlc.stamp(wall_ms + 1), from_wall(wall_ms + 1));
            assert!(mark.floor() > floor, "each life's place is above that of the one before");
            floor = mark.floor();
        }
    }

    #[test]
    fn a_mark_that_is_not_ours_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        Mark::open(directory.path(), 1, 10, 0).unwrap();
        assert!(matches!(Mark::open(directory.path(), 2, 11, 0), Err(MarkError::OtherNode { found: 1, node: 2, .. })));
        assert!(matches!(Mark::open(directory.path(), 1, 10, 0), Err(MarkError::RunReused { run: 10 })));
        fs::write(directory.path().join("clock"), "quorate-clock 2 1 a 7").unwrap();
        assert!(matches!(Mark::open(directory.path(), 1, 12, 0), Err(MarkError::Malformed { .. })));
    }
}
