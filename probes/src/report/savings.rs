//! Where a channel's saving comes from: what transport gave and what state gave, from the blocks that all rows concerned have.

use serde::{Deserialize, Serialize};

use crate::metric::Metric;
use crate::record::RunRecord;
use crate::row::{Encoding, Row, State, Transport};
use crate::stats::{Blocks, Change, Statistic};

/// Figures whose saving is split.
const SPLIT: [Metric; 4] = [
    Metric::RoundtripOverhead,
    Metric::FirstTokenOverhead,
    Metric::TokenOverhead,
    Metric::Ttft,
];

/// The change from a baseline to a channel's incremental row, step by step.
///
/// Each step is taken over the same blocks and the same resamples of them, so the steps multiply:
/// `1 + total = (1 + transport) * (1 + encoding) * (1 + state)`, and their differences add up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saving {
    /// The channel.
    pub channel: Transport,
    /// How its tokens are written.
    pub encoding: Encoding,
    /// The baseline row's name; its state is `full`.
    pub baseline: String,
    /// The figure.
    pub metric: Metric,
    /// The statistic of each block.
    pub statistic: Statistic,
    /// What the channel gave: its row with full state and the API's own events, against the baseline.
    pub transport: Change,
    /// What the smaller encoding gave: full state, compact frames against events. `None` where events are what is split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compact: Option<Change>,
    /// What state gave on this channel: incremental against full.
    pub state: Change,
    /// All of it: the incremental row against the baseline.
    pub total: Change,
}

/// The savings of every channel that ran in both states, against each baseline that ran with full state and events.
///
/// A compact encoding is split where the channel ran with events too: else its saving would be booked as transport.
pub(super) fn of(record: &RunRecord) -> Vec<Saving> {
    let mut savings = Vec::new();
    let is_plain = |row: &&Row| row.state == State::Full && row.encoding == Encoding::Events;
    for &baseline in record.baselines.iter().filter(is_plain) {
        if !record.rows.contains(&baseline) {
            continue;
        }
        for steps in record.rows.iter().filter_map(|row| steps(record, *row)) {
            let split = |metric| split(record, baseline, &steps, metric);
            savings.extend(SPLIT.into_iter().filter_map(split));
        }
    }
    savings
}

/// The rows between a baseline and an incremental row, each one factor away from the one before.
struct Steps {
    plain: Row,
    encoded: Row,
    incremental: Row,
}

/// `None` where `row` is not the incremental one of a channel, or one of the rows before it did not run.
fn steps(record: &RunRecord, row: Row) -> Option<Steps> {
    let steps = Steps {
        plain: Row::events(row.transport, State::Full),
        encoded: Row {
            state: State::Full,
            ..row
        },
        incremental: row,
    };
    let whole = row.state == State::Incremental
        && row.transport != Transport::Direct
        && record.rows.contains(&steps.plain)
        && record.rows.contains(&steps.encoded);
    whole.then_some(steps)
}

fn split(record: &RunRecord, baseline: Row, steps: &Steps, metric: Metric) -> Option<Saving> {
    let rows = [baseline, steps.plain, steps.encoded, steps.incremental];
    let [before, plain, encoded, incremental] =
        in_common(rows.map(|row| record.blocks_of(row, metric)));
    let from_to = |before, after| record.compared(after, before, metric, Statistic::P50);
    let saving = Saving {
        channel: steps.incremental.transport,
        encoding: steps.incremental.encoding,
        baseline: baseline.to_string(),
        metric,
        statistic: Statistic::P50,
        transport: from_to(&before, &plain),
        compact: (steps.encoded != steps.plain).then(|| from_to(&plain, &encoded)),
        state: from_to(&encoded, &incremental),
        total: from_to(&before, &incremental),
    };
    (saving.total.blocks > 0).then_some(saving)
}

/// The blocks that all have: over others the steps would not multiply.
fn in_common<const N: usize>(mut rows: [Blocks; N]) -> [Blocks; N] {
    let have_all = |block: &u32| rows.iter().all(|row| row.contains_key(block));
    let common: Vec<u32> = rows[0].keys().copied().filter(have_all).collect();
    for row in &mut rows {
        row.retain(|block, _| common.binary_search(block).is_ok());
    }
    rows
}

#[cfg(test)]
#[path = "savings_tests.rs"]
mod tests;
