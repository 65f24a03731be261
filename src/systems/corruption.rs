//! Changes files behind a stopped node's back, as a failing disk does.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

/// How many bytes get one bit changed each: one of these.
const FLIPS: [usize; 3] = [1, 8, 64];
/// What is smaller holds little to be damaged.
const SIZE_MIN: u64 = 64;

/// Damages a file below a directory, the largest one or any other: bits of bytes that hold something, or the last third cut off.
/// Returns what was done.
pub fn corrupt(dir: &Path, seed: u64) -> io::Result<String> {
    let mut chance = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut files = Vec::new();
    collect(dir, &mut files)?;
    // By name, or the order would be the directory's.
    files.retain(|(size, _)| *size >= SIZE_MIN);
    files.sort_by(|one, other| one.1.cmp(&other.1));
    let any = chance.random_bool(0.5).then(|| files.choose(&mut chance)).flatten();
    let Some((size, path)) = any.or_else(|| files.iter().max_by_key(|(size, _)| *size)) else {
        return Err(io::Error::other(format!("there is nothing to be changed in {}", dir.display())));
    };
    let named = path.strip_prefix(dir).unwrap_or(path).display();
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
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
    let flips = FLIPS[chance.random_range(0..FLIPS.len())].min(held.len());
    for _ in 0..flips {
        let at = held[chance.random_range(0..held.len())];
        let flipped = content[at] ^ (1 << chance.random_range(0..8));
        file.seek(SeekFrom::Start(at as u64))?;
        file.write_all(&[flipped])?;
    }
    file.sync_all()?;
    Ok(format!("{flips} bits of {named} changed"))
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
            fs::write(dir.path().join("tiny"), [1; 8]).unwrap();
            fs::write(dir.path().join("small"), [1; 600]).unwrap();
            fs::write(dir.path().join("below/large"), [7; 9_000]).unwrap();
            corrupt(dir.path(), seed).unwrap();
            assert_eq!(fs::read(dir.path().join("tiny")).unwrap(), [1; 8]);
            [fs::read(dir.path().join("small")).unwrap(), fs::read(dir.path().join("below/large")).unwrap()]
        };
        let whole = [vec![1; 600], vec![7; 9_000]];
        for seed in 0..40 {
            assert_eq!(damaged(seed).iter().zip(&whole).filter(|(now, before)| now != before).count(), 1, "{seed}");
            assert_eq!(damaged(seed), damaged(seed));
        }
    }
}
