//! How late the instrument itself was: each emission's stamp minus its moment in the script.

use std::fmt;

use tokenlag_probes::SignedHistogram;

use crate::pace::Pace;

/// How late writes were, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lateness {
    /// Writes that completed a delta.
    pub emissions: u64,
    /// Their mean.
    pub mean: f64,
    /// Their 99th percentile.
    pub p99: i64,
    /// The latest.
    pub max: i64,
    /// How the moments were kept.
    pub pace: Pace,
}

impl Lateness {
    pub(crate) fn of(histogram: &SignedHistogram, pace: Pace) -> Self {
        let summary = histogram.summary();
        Self {
            emissions: histogram.count(),
            mean: summary.map_or(0.0, |summary| summary.mean),
            p99: summary.map_or(0, |summary| summary.p99),
            max: summary.map_or(0, |summary| summary.max),
            pace,
        }
    }
}

impl fmt::Display for Lateness {
    /// For example: `mean 0.041 ms, p99 0.120 ms, max 0.911 ms late over 64000 emissions, with real-time priority (SCHED_FIFO)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "mean {:.3} ms, p99 {:.3} ms, max {:.3} ms late over {} emissions, with {}",
            self.mean / 1e6,
            self.p99 as f64 / 1e6,
            self.max as f64 / 1e6,
            self.emissions,
            self.pace
        )
    }
}
