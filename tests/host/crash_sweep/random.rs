//! What is drawn, and can be drawn again.

use std::{collections::hash_map::RandomState, hash::BuildHasher as _};

/// Numbers that look random (splitmix64).
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// So many of them, drawn, in their order; all of them where nothing is left out.
    pub fn some_of<T>(&mut self, mut all: Vec<T>, many: usize) -> Vec<T> {
        while !whole() && all.len() > many {
            let leaves = self.below(all.len() as u64);
            all.remove(leaves as usize);
        }
        all
    }

    /// The next one, which is smaller than `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// A seed of its own for every run, which is printed, or the one that `SWEEP_SEED` names.
pub fn seed() -> u64 {
    let seed = std::env::var("SWEEP_SEED")
        .map_or_else(|_| RandomState::new().hash_one(0), |seed| seed.parse().unwrap());
    eprintln!("SWEEP_SEED={seed}");
    seed
}

/// Whether nothing is left out (`SWEEP=whole`), as `make crash-sweep` has it.
pub fn whole() -> bool {
    std::env::var("SWEEP").is_ok_and(|sweep| sweep == "whole")
}
