//! A small disk for one node alone, that can be filled, and that can lose its power: a file system in a file, mounted where only this
//! process and its children see it. The mount goes with the last of them, however they end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

pub use super::spaces::own_mounts;

/// Room enough for any run here.
const SIZE: u64 = 256 << 20;
/// No file takes less.
const BLOCK: u64 = 4 << 10;
/// The file that takes what is left.
const FILLER: &str = "filler";

/// Mounted at a directory until it is dropped.
pub struct Disk {
    image: PathBuf,
    at: PathBuf,
}

/// Why no disk can be filled here, with what would mend it; None if one can.
pub fn missing() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("a disk of a node's own takes Linux".to_owned());
    }
    if !rustix::process::geteuid().is_root() {
        return Some("a disk of a node's own takes root: run it by sudo".to_owned());
    }
    let tools = [("mkfs.ext4", "e2fsprogs"), ("mount", "mount")];
    let lacking = tools.into_iter().find(|(tool, _)| !super::installed(tool));
    lacking.map(|(tool, package)| format!("the program {tool} is not installed: apt-get install {package}"))
}

impl Disk {
    /// Makes one and mounts it at a directory that is made. To be called after [`own_mounts`].
    pub fn new(at: &Path) -> anyhow::Result<Self> {
        let image = at.with_extension("disk");
        File::create(&image)?.set_len(SIZE)?;
        fs::create_dir_all(at)?;
        let disk = Self { image, at: at.to_owned() };
        // No room is kept back for root: the node may be root.
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&disk.image))?;
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> anyhow::Result<()> {
        // What nobody makes durable is written all the same, every few seconds unless told otherwise: no power cut would show it.
        run(Command::new("mount").args(["-o", "loop,commit=300"]).arg(&self.image).arg(&self.at))
    }

    /// Leaves on it what has reached the device, as a power cut does: the file system's own cache is gone. Nobody may use it meanwhile.
    pub fn cut_power(&self) -> anyhow::Result<()> {
        let left = self.image.with_extension("left");
        // Before anything of the cache gets there by the unmounting.
        run(Command::new("cp").arg("--sparse=always").arg(&self.image).arg(&left))?;
        run(Command::new("umount").arg(&self.at))?;
        fs::rename(&left, &self.image)?;
        self.mount()
    }

    /// Leaves no room.
    pub fn fill(&self) -> anyhow::Result<()> {
        let path = self.at.join(FILLER);
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        // Taken in one call, and not written: a disk in a file is no faster than the disk below it.
        let (mut taken, mut piece) = (0, SIZE);
        while piece >= BLOCK {
            match fallocate(&file, FallocateFlags::empty(), taken, piece) {
                Ok(()) => taken += piece,
                Err(Errno::NOSPC) => piece /= 2,
                Err(why) => return Err(why).with_context(|| format!("cannot fill {}", path.display())),
            }
        }
        match file.write_all(&vec![0x5a; BLOCK as usize]).and_then(|()| file.sync_data()) {
            Err(full) if full.kind() == io::ErrorKind::StorageFull => Ok(()),
            Err(why) => Err(why).with_context(|| format!("cannot fill {}", path.display())),
            Ok(()) => bail!("{} takes more than there was room for", path.display()),
        }
    }

    /// Gives the room back.
    pub fn empty(&self) -> io::Result<()> {
        match fs::remove_file(self.at.join(FILLER)) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
            _ => Ok(()),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // By now nobody is left who uses it. Lazily all the same: what it shows must not be in the way of removing it.
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.at));
        let _ = fs::remove_file(&self.image);
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {program}"))?;
    if !done.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}
