//! Deriving an exchange's figures into histograms.

use std::hint::black_box;

use tokenlag_probes::{JoinedExchange, Recorder};

use super::Rounds;
use crate::exchanges::joined;

/// As many as a recording bench needs: one alone would be predicted.
const EXCHANGES: u64 = 8;

pub(super) fn exchange() -> Rounds {
    let exchanges: Vec<JoinedExchange> = (0..EXCHANGES).map(|of| joined(of, 1000)).collect();
    let mut turn = 0;
    let mut recorder = Recorder::new();
    Box::new(move |rounds| {
        for _ in 0..rounds {
            let joined = black_box(&exchanges[turn % exchanges.len()]);
            recorder.finish(&joined.exchange, joined.hop.as_ref());
            turn += 1;
        }
    })
}
