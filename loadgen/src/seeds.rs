//! Randomness by name: every random thing of a run has a generator of its own, derived from the run's seed.
//!
//! What one part draws never shifts what another part sees, so a row, a block or a turn can be run again alone.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokenlag_probes::{Place, TraceId};

/// What a generator is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The text of one turn: equal for all rows.
    Text = 1,
    /// The order of the rows within a block.
    Order = 2,
    /// The moments at which sessions arrive within a block: equal for all rows.
    Arrivals = 3,
    /// The names of exchanges.
    Trace = 4,
    /// The nonces' starting point.
    Nonce = 5,
    /// How many tokens a turn shall put out, where turns differ: equal for all rows.
    Output = 6,
}

/// A generator for one `purpose` at one `place` of a run; `row` is 0 for what all rows share.
pub fn generator(seed: u64, purpose: Purpose, row: u32, place: Place) -> ChaCha8Rng {
    // The key is the name itself: no two names share one, and nothing is hashed.
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let words = [
        purpose as u32,
        row,
        place.block,
        place.session,
        place.turn,
        0,
    ];
    for (slot, word) in key[8..].chunks_exact_mut(4).zip(words) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// The name of the exchange at `place` of the `row`-th row.
pub fn trace_id(seed: u64, row: u32, place: Place) -> TraceId {
    let mut bits = [0; 16];
    generator(seed, Purpose::Trace, row, place).fill_bytes(&mut bits);
    TraceId::from_bits(u128::from_le_bytes(bits))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_stable_and_all_different() {
        let mut seen = HashSet::new();
        for row in 0..4 {
            for block in 0..4 {
                for session in 0..4 {
                    for turn in 0..4 {
                        let place = Place {
                            block,
                            session,
                            turn,
                        };
                        assert_eq!(trace_id(7, row, place), trace_id(7, row, place));
                        assert!(seen.insert(trace_id(7, row, place)));
                        assert!(seen.insert(trace_id(8, row, place)));
                    }
                }
            }
        }
    }
}
