//! The words of each turn: equal for all rows, apart from the nonce that starts each session.
//!
//! The nonce keeps a row from finding another row's prompt in the backend's prefix cache. It has the same number of
//! digits for all, each standing alone, so that tokenizers make the same number of tokens of it.

use std::ops::Deref;

use serde::{Deserialize, Serialize};
use tokenlag_probes::Place;

use crate::seeds::{Purpose, generator, mixed};
use crate::text::text;
use crate::workload::Workload;

/// How a tokenizer counts our text, as learned from the `usage` of two replies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WordCount {
    /// Tokens that one more word makes.
    pub tokens_per_word: f64,
    /// Tokens of a prompt without words: the template, and the nonce.
    pub fixed_tokens: f64,
}

impl WordCount {
    /// What to assume where a backend tells no usage.
    pub const GUESS: WordCount = WordCount {
        tokens_per_word: 2.5,
        fixed_tokens: 24.0,
    };

    /// From two prompts of different length: `(words, tokens)`. `None` where they make no sense together.
    pub fn fit(short: (usize, u64), long: (usize, u64)) -> Option<Self> {
        let words = long.0.checked_sub(short.0).filter(|&words| words > 0)?;
        let tokens = long.1.checked_sub(short.1).filter(|&tokens| tokens > 0)?;
        let tokens_per_word = tokens as f64 / words as f64;
        Some(Self {
            tokens_per_word,
            fixed_tokens: short.1 as f64 - tokens_per_word * short.0 as f64,
        })
    }

    /// Words of a first turn that make a prompt of `tokens`.
    pub(crate) fn first(&self, tokens: u32) -> usize {
        words((f64::from(tokens) - self.fixed_tokens) / self.tokens_per_word)
    }

    /// Words that add `tokens`.
    fn later(&self, tokens: u32) -> usize {
        words(f64::from(tokens) / self.tokens_per_word)
    }
}

fn words(exact: f64) -> usize {
    exact.round().max(1.0) as usize
}

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not recorded; shares no prefix with what is.
    Warmup,
    /// Recorded.
    Measured,
}

/// Writes the prompts of a run.
#[derive(Clone, Copy, Debug)]
pub struct Prompts {
    /// The run's seed.
    pub seed: u64,
    /// The sessions' shape.
    pub workload: Workload,
    /// How words become tokens.
    pub count: WordCount,
}

impl Prompts {
    /// The input of the turn at `place`; `nonce` starts it if it is the session's first.
    pub fn input(&self, place: Place, nonce: &str) -> String {
        let mut random = generator(self.seed, Purpose::Text, 0, place);
        if place.turn == 0 {
            let words = self.count.first(self.workload.first_input);
            text(nonce, &mut random, words)
        } else {
            text("", &mut random, self.count.later(self.workload.later_input))
        }
    }

    /// Output tokens of the turn at `place`.
    pub fn output(&self, place: Place) -> u32 {
        use rand::RngExt;

        let most = self.workload.output;
        match self.workload.least_output {
            Some(least) if least < most => {
                generator(self.seed, Purpose::Output, 0, place).random_range(least..=most)
            }
            _ => most,
        }
    }

    /// A prompt of exactly `words` words, to learn from.
    pub fn probe(&self, words: usize, nonce: &str) -> String {
        let place = Place {
            block: u32::MAX,
            ..Place::default()
        };
        let mut random = generator(self.seed, Purpose::Text, 0, place);
        text(nonce, &mut random, words)
    }
}

/// The nonce of the `serial`-th session of a run: eight digits with spaces between. No two of the first ten million
/// sessions of a phase have the same one, and the phases differ in the first digit.
pub fn nonce(seed: u64, phase: Phase, serial: u64) -> Nonce {
    const WARMUPS: u64 = 10_000_000;
    const MEASURED: u64 = 90_000_000;
    // A stride that shares no factor with either count visits every number once; near the golden ratio of the
    // larger, it lets neighbours differ from the first digits on.
    const STRIDE: u64 = 55_623_059;
    let start = mixed(seed) % MEASURED;
    let step = |count: u64| (start % count + serial % count * (STRIDE % count)) % count;
    let number = match phase {
        Phase::Warmup => step(WARMUPS),
        Phase::Measured => WARMUPS + step(MEASURED),
    };
    let mut digits = [b' '; NONCE];
    let mut left = number;
    for digit in digits.iter_mut().rev().step_by(2) {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
    Nonce(digits)
}

/// A nonce's length in bytes.
const NONCE: usize = 15;

/// A session's first words: every session has some, and they take no memory of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Nonce([u8; NONCE]);

impl Deref for Nonce {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.0).expect("digits and spaces are ASCII")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn prompts() -> Prompts {
        Prompts {
            seed: 4,
            workload: crate::workload::Preset::Edit.workload(),
            count: WordCount {
                tokens_per_word: 2.0,
                fixed_tokens: 20.0,
            },
        }
    }

    #[test]
    fn lengths_follow_the_calibration() {
        let first = prompts().input(Place::default(), "1 2");
        assert_eq!(first.split_whitespace().count(), 2 + (32_768 - 20) / 2);
        let later = Place {
            turn: 1,
            ..Place::default()
        };
        assert_eq!(
            prompts().input(later, "1 2").split_whitespace().count(),
            128
        );
    }

    #[test]
    fn answers_differ_by_place_within_their_range_and_by_nothing_else() {
        let prompts = prompts();
        let of = |turn| {
            prompts.output(Place {
                turn,
                ..Place::default()
            })
        };
        let all: HashSet<u32> = (0..200).map(of).collect();
        assert!(all.len() > 50, "{all:?}");
        assert!(all.iter().all(|tokens| (50..=200).contains(tokens)));
        assert_eq!(of(7), of(7));
        let fixed = Prompts {
            workload: crate::workload::Preset::Chat.workload(),
            ..prompts
        };
        assert_eq!(fixed.output(Place::default()), 64);
    }

    #[test]
    fn prompts_differ_by_place_and_in_nothing_but_the_nonce_between_rows() {
        let place = Place::default();
        let one = prompts().input(place, "1 1 1 1 1 1 1 1");
        let two = prompts().input(place, "2 2 2 2 2 2 2 2");
        assert_ne!(one, two);
        assert_eq!(one[15..], two[15..]);
        let elsewhere = Place {
            session: 1,
            ..place
        };
        assert_ne!(one, prompts().input(elsewhere, "1 1 1 1 1 1 1 1"));
    }

    #[test]
    fn nonces_are_of_one_length_and_all_different() {
        let mut seen = HashSet::new();
        for serial in 0..50_000 {
            for phase in [Phase::Warmup, Phase::Measured] {
                let nonce = nonce(3, phase, serial);
                assert_eq!(nonce.len(), 15);
                assert_eq!(nonce.starts_with('0'), phase == Phase::Warmup);
                assert!(seen.insert(nonce));
            }
        }
    }

    #[test]
    fn two_usages_tell_the_slope() {
        let count = WordCount::fit((50, 120), (250, 520)).unwrap();
        assert_eq!(count.tokens_per_word, 2.0);
        assert_eq!(count.fixed_tokens, 20.0);
        assert_eq!(WordCount::fit((50, 120), (50, 120)), None);
        assert_eq!(WordCount::fit((50, 120), (60, 100)), None);
    }
}
