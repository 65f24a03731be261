//! Hashing for the engines' tables: quick, the same on every run, not meant to withstand an adversary.

use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

pub(super) type Mixing = BuildHasherDefault<Mixer>;

/// Folded multiplication: each word is multiplied into the state and the halves of the product are added.
#[derive(Default)]
pub(super) struct Mixer(u64);

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

impl Mixer {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ 0x2545_f491_4f6c_dd1d) * u128::from(MULTIPLIER);
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
        self.mix(bytes.len() as u64);
    }

    fn write_u8(&mut self, word: u8) {
        self.mix(u64::from(word));
    }

    fn write_u32(&mut self, word: u32) {
        self.mix(u64::from(word));
    }

    fn write_u64(&mut self, word: u64) {
        self.mix(word);
    }

    fn write_u128(&mut self, word: u128) {
        self.mix(word as u64);
        self.mix((word >> 64) as u64);
    }

    fn write_usize(&mut self, word: usize) {
        self.mix(word as u64);
    }
}

/// The `index`-th of a fixed sequence of well-spread words (SplitMix64: Steele, Lea, Flood 2014, *Fast splittable pseudorandom
/// number generators*).
fn split_mix(index: u64) -> u64 {
    let mut z = index.wrapping_add(1).wrapping_mul(MULTIPLIER);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The key of the `index`-th element of a universe (Zobrist 1970, *A new hashing method with application for game playing*): a set's
/// hash is the exclusive or of its elements' keys. `n` sets collide with odds of about n² / 2¹²⁹.
pub(super) fn zobrist(index: u64) -> u128 {
    u128::from(split_mix(2 * index)) << 64 | u128::from(split_mix(2 * index + 1))
}

/// A 128-bit hash of a value, for sets that are hashed as the exclusive or of their elements.
pub(super) fn wide(value: impl Hash) -> u128 {
    let half = |salt: u64| split_mix(Mixing::default().hash_one((salt, &value)));
    u128::from(half(1)) << 64 | u128::from(half(2))
}
