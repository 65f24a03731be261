//! A wall clock for one node alone, by libfaketime: the machine's own is never touched, nor is any monotonic one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use jiff::Timestamp;

/// The file that the clock's node reads its offset from, each time it asks what time it is.
pub struct Clock {
    library: PathBuf,
    file: PathBuf,
}

/// Where Debian, Fedora and Homebrew put it; the variant for programs with threads.
const PLACES: [&str; 7] = [
    "/usr/lib/x86_64-linux-gnu/faketime",
    "/usr/lib/aarch64-linux-gnu/faketime",
    "/usr/lib64/faketime",
    "/usr/lib/faketime",
    "/usr/local/lib/faketime",
    "/usr/lib/riscv64-linux-gnu/faketime",
    "/usr/lib/arm-linux-gnueabihf/faketime",
];

/// The library, if it is installed.
pub fn library() -> Option<PathBuf> {
    PLACES.iter().map(|dir| Path::new(dir).join("libfaketimeMT.so.1")).find(|library| library.is_file())
}

/// Why no clock can be set off here, with the mend.
pub const MISSING: &str = "libfaketime is not installed: apt-get install libfaketime";

impl Clock {
    /// One that goes right.
    pub fn new(library: &Path, file: PathBuf) -> io::Result<Self> {
        let clock = Self { library: library.to_owned(), file };
        clock.set(0)?;
        Ok(clock)
    }

    /// Has a child go by it.
    pub fn give(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", &self.file);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
    }

    /// By how much it is off, as a program shows it that goes by it.
    pub fn shown_offset_ms(&self) -> anyhow::Result<i64> {
        let mut date = Command::new("date");
        date.arg("+%s%3N");
        self.give(&mut date);
        let shown = String::from_utf8(date.output().context("cannot start date")?.stdout)?;
        let shown: i64 = shown.trim().parse().with_context(|| format!("date shows {shown:?}"))?;
        Ok(shown - Timestamp::now().as_millisecond())
    }

    /// Whether a process goes by some clock of this kind.
    pub fn is_followed_by(&self, process: u32) -> bool {
        let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
        maps.contains(&*self.library.to_string_lossy())
    }

    /// Sets it off by so much from the machine's clock.
    pub fn set(&self, offset_ms: i64) -> io::Result<()> {
        // Moved into place, so that nobody reads half of it.
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{:+.3}\n", offset_ms as f64 / 1e3))?;
        fs::rename(&new, &self.file)
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}
