//! The recorder: one per row (and runtime thread), a histogram per figure and counts of everything that is no latency.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::exchange::{Exchange, FailureKind, HopExchange, Outcome};
use crate::figures::{Figures, derive_into};
use crate::histogram::{SignedHistogram, Summary};
use crate::join::Unjoined;
use crate::lateness::Lateness;
use crate::metric::Metric;

/// Counts of one row (of a cell, or of a whole run). Everything adds up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tallies {
    /// Exchanges whose terminal event came.
    pub completed: u64,
    /// Exchanges that ended cleanly without their terminal event.
    pub truncated: u64,
    /// Exchanges that failed; by kind in `failures`.
    pub failed: u64,
    /// Exchanges that the client gave up, as at the end of a run. No errors.
    pub cancelled: u64,
    /// Failed exchanges by kind.
    pub failures: BTreeMap<FailureKind, u64>,
    /// Output tokens of complete exchanges as `usage` counts them; deltas where a reply had no `usage`.
    pub tokens: u64,
    /// Deltas of exchanges that did not complete: what they cost is in the price, so they are too.
    #[serde(skip_serializing_if = "is_zero")]
    pub unfinished_deltas: u64,
    /// Deltas of complete exchanges.
    pub deltas: u64,
    /// Deltas of complete exchanges that share their read with a later one.
    pub coalesced: u64,
    /// Deltas of joined exchanges that share the proxy's read of its upstream with a later one.
    #[serde(skip_serializing_if = "is_zero")]
    pub up_coalesced: u64,
    /// Reads that carried bytes of complete exchanges.
    pub chunks: u64,
    /// Complete exchanges whose reply had a `usage`.
    pub with_usage: u64,
    /// Prompt tokens as `usage` counts them, cached ones included.
    pub input_tokens: u64,
    /// Complete exchanges whose `usage` says how many prompt tokens were cached.
    pub with_cached_input: u64,
    /// Prompt tokens that the backend had cached, where it says so.
    pub cached_input_tokens: u64,
    /// Complete exchanges with the proxy's record beside them.
    pub joined: u64,
    /// Joined exchanges that the proxy answered by itself: they have no overhead.
    pub answered_by_proxy: u64,
    /// Joined exchanges whose reply began before the request had ended: they have no overhead.
    pub overlapped: u64,
    /// Complete exchanges without a partner, by reason.
    pub unjoined: Unjoined,
    /// How late deltas were, part by part.
    #[serde(skip_serializing_if = "Lateness::is_empty")]
    pub lateness: Lateness,
    /// Values above one hour, by metric.
    pub saturated: BTreeMap<Metric, u64>,
}

impl Tallies {
    /// All exchanges, however they ended.
    pub fn exchanges(&self) -> u64 {
        let done = self.completed.saturating_add(self.cancelled);
        done.saturating_add(self.errors())
    }

    /// Exchanges that went wrong: failed or truncated, not cancelled.
    pub fn errors(&self) -> u64 {
        self.failed.saturating_add(self.truncated)
    }

    /// What a price is shared among: the tokens of complete exchanges, and what came of the others, whose `usage` never did, by
    /// deltas.
    pub fn paid_tokens(&self) -> u64 {
        self.tokens.saturating_add(self.unfinished_deltas)
    }

    /// Some reply had no `usage`, so figures per token are figures per delta.
    pub fn per_delta(&self) -> bool {
        self.with_usage < self.completed
    }

    /// Adds the counts of `other`.
    pub fn add(&mut self, other: &Tallies) {
        let counts = [
            (&mut self.completed, other.completed),
            (&mut self.truncated, other.truncated),
            (&mut self.failed, other.failed),
            (&mut self.cancelled, other.cancelled),
            (&mut self.tokens, other.tokens),
            (&mut self.unfinished_deltas, other.unfinished_deltas),
            (&mut self.deltas, other.deltas),
            (&mut self.coalesced, other.coalesced),
            (&mut self.up_coalesced, other.up_coalesced),
            (&mut self.chunks, other.chunks),
            (&mut self.with_usage, other.with_usage),
            (&mut self.input_tokens, other.input_tokens),
            (&mut self.with_cached_input, other.with_cached_input),
            (&mut self.cached_input_tokens, other.cached_input_tokens),
            (&mut self.joined, other.joined),
            (&mut self.answered_by_proxy, other.answered_by_proxy),
            (&mut self.overlapped, other.overlapped),
        ];
        // A file may say anything of a run.
        for (sum, count) in counts {
            *sum = sum.saturating_add(count);
        }
        for (&kind, &count) in &other.failures {
            let sum = self.failures.entry(kind).or_default();
            *sum = sum.saturating_add(count);
        }
        self.unjoined.add(&other.unjoined);
        self.lateness.add(&other.lateness);
        for (&metric, &count) in &other.saturated {
            let sum = self.saturated.entry(metric).or_default();
            *sum = sum.saturating_add(count);
        }
    }

    pub(crate) fn count(&mut self, exchange: &Exchange, hop: Option<&HopExchange>) {
        if exchange.outcome != Outcome::Complete {
            self.unfinished_deltas += exchange.tokens.len() as u64;
        }
        match exchange.outcome {
            Outcome::Complete => self.count_complete(exchange, hop),
            Outcome::Truncated => self.truncated += 1,
            Outcome::Cancelled => self.cancelled += 1,
            Outcome::Failed(kind) => {
                self.failed += 1;
                *self.failures.entry(kind).or_default() += 1;
            }
        }
    }

    fn count_complete(&mut self, exchange: &Exchange, hop: Option<&HopExchange>) {
        let deltas = exchange.tokens.len() as u64;
        self.completed += 1;
        self.deltas += deltas;
        let pairs = exchange.tokens.windows(2);
        self.coalesced += pairs.filter(|pair| pair[0].chunk == pair[1].chunk).count() as u64;
        self.chunks += u64::from(exchange.chunks);
        self.tokens += exchange.usage.map_or(deltas, |usage| usage.output);
        if let Some(usage) = exchange.usage {
            self.with_usage += 1;
            self.input_tokens += usage.input;
            if let Some(cached) = usage.cached_input {
                self.with_cached_input += 1;
                self.cached_input_tokens += cached;
            }
        }
        if let Some(hop) = hop {
            self.joined += 1;
            self.up_coalesced += u64::from(hop.up_coalesced);
            self.answered_by_proxy += u64::from(hop.up_written.is_none());
            self.overlapped += u64::from(hop.overlapped);
            self.lateness.add(&Lateness::of(exchange, Some(hop)));
        }
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Histograms and counts of one row. Not shared between threads: each has its own, and they [`merge`](Recorder::merge).
#[derive(Clone, Debug)]
pub struct Recorder {
    histograms: [SignedHistogram; Metric::ALL.len()],
    tallies: Tallies,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// An empty recorder; histograms are allocated as their first values come.
    pub fn new() -> Self {
        Self {
            histograms: std::array::from_fn(|_| SignedHistogram::default()),
            tallies: Tallies::default(),
        }
    }

    /// Books one exchange that has ended, with the proxy's record of it where there is one.
    pub fn finish(&mut self, exchange: &Exchange, hop: Option<&HopExchange>) {
        self.count(exchange, hop);
        derive_into(exchange, hop, self);
    }

    /// Books what is no figure of an exchange that has ended.
    pub(crate) fn count(&mut self, exchange: &Exchange, hop: Option<&HopExchange>) {
        self.tallies.count(exchange, hop);
    }

    /// Books one value of one figure, in nanoseconds.
    #[inline]
    pub fn record(&mut self, metric: Metric, nanos: i64) {
        if !self.histograms[metric.index()].record(nanos) {
            *self.tallies.saturated.entry(metric).or_default() += 1;
        }
    }

    /// Books what could not be joined.
    pub fn note_unjoined(&mut self, unjoined: &Unjoined) {
        self.tallies.unjoined.add(unjoined);
    }

    /// Adds everything that `other` holds.
    pub fn merge(&mut self, other: &Recorder) {
        for (ours, theirs) in self.histograms.iter_mut().zip(&other.histograms) {
            ours.merge(theirs);
        }
        self.tallies.add(&other.tallies);
    }

    /// Empties it and keeps its memory, for the next cell.
    pub fn reset(&mut self) {
        for histogram in &mut self.histograms {
            histogram.reset();
        }
        self.tallies = Tallies::default();
    }

    /// One figure's distribution; `None` where it has no values.
    pub fn summary(&self, metric: Metric) -> Option<Summary> {
        self.histogram(metric).summary()
    }

    /// One figure's histogram.
    pub fn histogram(&self, metric: Metric) -> &SignedHistogram {
        &self.histograms[metric.index()]
    }

    /// Everything that is counted and no latency.
    pub fn tallies(&self) -> &Tallies {
        &self.tallies
    }

    pub(crate) fn histogram_mut(&mut self, metric: Metric) -> &mut SignedHistogram {
        &mut self.histograms[metric.index()]
    }

    /// Adds counts that a file gave back, with the saturated values that the histogram files cannot tell.
    pub(crate) fn restore_tallies(&mut self, tallies: &Tallies) {
        for (&metric, &count) in &tallies.saturated {
            self.histogram_mut(metric).add_saturated(count);
        }
        self.tallies.add(tallies);
    }
}

impl Figures for Recorder {
    #[inline]
    fn one(&mut self, metric: Metric, nanos: i64) {
        self.record(metric, nanos);
    }

    fn some(&mut self, metric: Metric, values: &[i64]) {
        let saturated = self.histograms[metric.index()].record_all(values);
        if saturated > 0 {
            *self.tallies.saturated.entry(metric).or_default() += saturated;
        }
    }
}

#[cfg(test)]
#[path = "recorder_tests.rs"]
mod tests;
