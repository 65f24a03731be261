//! Changes files behind a stopped node's back, as a failing disk does.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// How many bytes get one bit changed each.
const FLIPS: usize = 64;
/// What is smaller holds little to be damaged.
const SIZE_MIN: u64 = 512;

/// Damages the largest file below a directory: bits of bytes that hold something, or the last third cut off. Returns what was done.
pub fn corrupt(dir: &Path, seed: u64) -> io::Result<String> {
    let mut chance = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut files = Vec::new();
    collect(dir, &mut files)?;
    let largest = files.into_iter().max_by_key(|(size, path)| (*size, std::cmp::Reverse(path.clone())));
    let Some((size, path)) = largest.filter(|(size, _)| *size >= SIZE_MIN) else {
        return Err(io::Error::other(format!("there is nothing to be changed in {}", dir.display())));
    };
    let named = path.strip_prefix(dir).unwrap_or(&path).display();
    let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    // A file may be longer than what was ever written to it.
    let filled = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    if chance.random_bool(0.25) {
        let left = filled as u64 * 2 / 3;
        file.set_len(left)?;
        return Ok(format!("{named} cut from {size} to {left} bytes"));
    }
    let held = (0..filled).filter(|at| content[*at] != 0).collect::<Vec<_>>();
    for _ in 0..FLIPS.min(held.len()) {
        let at = held[chance.random_range(0..held.len())];
        let flipped = content[at] ^ (1 << chance.random_range(0..8));
        file.seek(SeekFrom::Start(at as u64))?;
        file.write_all(&[flipped])?;
    }
    file.sync_all()?;
    Ok(format!("{FLIPS} bits of {named} changed"))
}

fn collect(dir: &Path, files: &mut Vec<(u64, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push((entry.metadata()?.len(), entry.path()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_damages_the_same_way_and_always_something() {
        let damaged = |seed: u64| {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("below")).unwrap();
            fs::write(dir.path().join("small"), [1; 600]).unwrap();
            fs::write(dir.path().join("below/large"), [7; 9_000]).unwrap();
            corrupt(dir.path(), seed).unwrap();
            assert_eq!(fs::read(dir.path().join("small")).unwrap(), [1; 600]);
            fs::read(dir.path().join("below/large")).unwrap()
        };
        for seed in 0..20 {
            assert_ne!(damaged(seed), [7; 9_000]);
            assert_eq!(damaged(seed), damaged(seed));
        }
    }
}
