//! Randomness by name: every random thing of a run has a generator of its own, derived from the run's seed.
//!
//! What one part draws never shifts what another part sees, so a row, a block or a turn can be run again alone.

use rand::SeedableRng;
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

/// The name of the exchange at `place` of the `row`-th row. The seed picks a permutation, so that no two of a run share a name: a
/// Feistel network of four rounds (Luby and Rackoff, "How to construct pseudorandom permutations", 1988).
pub fn trace_id(seed: u64, row: u32, place: Place) -> TraceId {
    let join = |upper: u32, lower: u32| u64::from(upper) << 32 | u64::from(lower);
    let mut left = join(row, place.block);
    let mut right = join(place.session, place.turn);
    for round in 0..4 {
        let key = mixed(seed ^ mixed(round));
        (left, right) = (right, left ^ mixed(right ^ key));
    }
    TraceId::from_bits(u128::from(left) << 64 | u128::from(right))
}

/// Other bits for each number, of which each depends on all of the number's: the step of SplitMix64 (Steele, Lea and Flood, "Fast
/// splittable pseudorandom number generators", 2014).
pub(crate) fn mixed(number: u64) -> u64 {
    let bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
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

    #[test]
    fn neighbours_have_names_that_differ_in_half_of_their_bits() {
        let bits = |turn| {
            let place = Place {
                turn,
                ..Place::default()
            };
            let name = trace_id(0, 0, place).to_string();
            u128::from_str_radix(&name, 16).unwrap()
        };
        for bit in 0..128 {
            let set = (0..1_000)
                .filter(|&turn| bits(turn) >> bit & 1 == 1)
                .count();
            assert!((400..600).contains(&set), "bit {bit}: {set}");
        }
        let changed = (0..1_000).map(|turn| (bits(turn) ^ bits(turn + 1)).count_ones());
        assert!(changed.into_iter().all(|count| (32..96).contains(&count)));
    }
}
