//! Where a comparison runs: what a reader has to know of the machine and the disk before a figure means anything.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::report::data::Fact;

/// How many writes the disk is measured with.
const SYNCS: usize = 32;

/// The machine, and the disk under an existing directory.
pub fn facts(dir: &Path) -> io::Result<Vec<Fact>> {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let machine = format!("{} {}, {cpus} CPUs", std::env::consts::OS, std::env::consts::ARCH);
    let sync = median_fdatasync(dir)?;
    Ok(vec![
        Fact::new("machine", machine),
        Fact::new("file system", file_system(dir)),
        Fact::new("append + fdatasync", format!("{:.2} ms (median of {SYNCS})", sync.as_secs_f64() * 1e3)),
    ])
}

/// Whether what is written below the directory lives in memory alone, so that no kill and no power cut could be judged by it. The
/// directory need not exist yet.
pub fn in_memory(dir: &Path) -> bool {
    let Ok(dir) = std::path::absolute(dir) else { return false };
    let above = dir.ancestors().find(|above| above.exists());
    above.is_some_and(|above| matches!(file_system(above).as_str(), "tmpfs" | "ramfs"))
}

/// How long a disk takes to append a little and have it durable.
fn median_fdatasync(dir: &Path) -> io::Result<Duration> {
    let path = dir.join("fdatasync.probe");
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    let mut took = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let begun = Instant::now();
        file.write_all(&[0x5a; 512])?;
        file.sync_data()?;
        took.push(begun.elapsed());
    }
    fs::remove_file(&path)?;
    took.sort();
    Ok(took[SYNCS / 2])
}

#[cfg(target_os = "linux")]
fn file_system(dir: &Path) -> String {
    let Ok(stat) = rustix::fs::statfs(dir) else { return "unknown".to_owned() };
    // linux/magic.h and the file systems' own sources.
    let name = match stat.f_type as u32 {
        0x0102_1994 => "tmpfs",
        0x8584_58f6 => "ramfs",
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x794c_7630 => "overlayfs",
        0x2fc1_2fc1 => "zfs",
        0xf2f5_2010 => "f2fs",
        0x6969 => "nfs",
        0x6573_5546 => "fuse",
        0x0102_1997 => "9p",
        magic => return format!("magic {magic:#x}"),
    };
    name.to_owned()
}

#[cfg(not(target_os = "linux"))]
fn file_system(_dir: &Path) -> String {
    "not determined on this system".to_owned()
}
