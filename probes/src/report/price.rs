//! What a token costs on one row next to a baseline: ratios of counters per token, block by block.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bootstrap::{Estimate, IntervalMethod, estimate};
use crate::counters::Counters;
use crate::record::RunRecord;
use crate::row::Row;

type Count = fn(&Counters) -> Option<u64>;

/// What is paid for a token: the names that [`Counters::shown`] gives.
const PRICED: [(&str, Count); 16] = [
    ("client_cpu_ns_per_token", |it| it.client_cpu_ns),
    ("proxy_cpu_ns_per_token", |it| it.proxy_cpu_ns),
    ("wire_bytes_sent_per_token", |it| it.wire_bytes_sent),
    ("wire_bytes_received_per_token", |it| it.wire_bytes_received),
    ("packets_sent_per_token", |it| it.packets_sent),
    ("packets_received_per_token", |it| it.packets_received),
    ("reads_per_token", |it| it.reads),
    ("writes_per_token", |it| it.writes),
    ("proxy_reads_per_token", |it| it.proxy_reads),
    ("proxy_writes_per_token", |it| it.proxy_writes),
    ("proxy_packets_sent_per_token", |it| it.proxy_packets_sent),
    ("proxy_packets_received_per_token", |it| {
        it.proxy_packets_received
    }),
    ("client_context_switches_per_token", |it| {
        it.client_context_switches
    }),
    ("proxy_context_switches_per_token", |it| {
        it.proxy_context_switches
    }),
    ("client_allocations_per_token", |it| it.client_allocations),
    ("proxy_allocations_per_token", |it| it.proxy_allocations),
];

/// How what a token costs on a row differs from what it costs on a baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PriceChange {
    /// The baseline row's name.
    pub baseline: String,
    /// The counter's name in `counters`.
    pub counter: String,
    /// Ratio to the baseline minus 1: geometric mean of the blocks' ratios. `None` where some block has none of it, and so no
    /// logarithm.
    pub change: Option<f64>,
    /// Lower end of its 95 % interval; `None` with fewer than two blocks.
    pub low: Option<f64>,
    /// Upper end of its 95 % interval.
    pub high: Option<f64>,
    /// Blocks in which both rows counted it.
    pub blocks: u32,
    /// How the interval was computed; `None` with fewer than two blocks.
    pub interval: Option<IntervalMethod>,
}

impl PriceChange {
    /// The interval excludes zero.
    pub fn is_distinguishable(&self) -> bool {
        let bounds = self.low.zip(self.high);
        bounds.is_some_and(|(low, high)| low > 0.0 || high < 0.0)
    }
}

/// The changes of what `row` costs against each of the run's baselines that ran. A cell of which a part is missing is passed
/// over, as in the comparison of figures.
pub(super) fn changes(record: &RunRecord, row: Row) -> Vec<PriceChange> {
    let others = record.baselines.iter().filter(|&&it| it != row);
    let others = others.filter(|it| record.rows.contains(it));
    let changes = others.flat_map(|&baseline| {
        let of = |&(counter, count): &(&str, Count)| change(record, row, baseline, counter, count);
        PRICED.iter().filter_map(of).collect::<Vec<_>>()
    });
    changes.collect()
}

/// `None` where no block has both rows.
fn change(
    record: &RunRecord,
    row: Row,
    baseline: Row,
    counter: &str,
    count: Count,
) -> Option<PriceChange> {
    let theirs = per_token(record, baseline, count);
    let ours = per_token(record, row, count);
    let both: Vec<(f64, f64)> = ours
        .iter()
        .filter_map(|(block, &ours)| Some((ours, *theirs.get(block)?)))
        .collect();
    if both.is_empty() {
        return None;
    }
    let has_logarithms = both
        .iter()
        .all(|&(ours, theirs)| ours > 0.0 && theirs > 0.0);
    let logarithms: Vec<f64> = both
        .iter()
        .map(|(ours, theirs)| (ours / theirs).ln())
        .collect();
    let ratio = has_logarithms.then(|| estimate(&logarithms, record.seeds.bootstrap));
    let ratio: Option<Estimate> = ratio.flatten();
    Some(PriceChange {
        baseline: baseline.to_string(),
        counter: counter.to_owned(),
        change: ratio.map(|log| log.mean.exp_m1()),
        low: ratio.and_then(|log| Some(log.low?.exp_m1())),
        high: ratio.and_then(|log| Some(log.high?.exp_m1())),
        blocks: both.len() as u32,
        interval: ratio.and_then(|log| log.method),
    })
}

/// What a token cost in each block, those of exchanges that did not come to their end among them, as in `counters`.
fn per_token(record: &RunRecord, row: Row, count: Count) -> BTreeMap<u32, f64> {
    let cells = record.cells_of(row).filter(|cell| {
        let is_whole = !cell.statistics.0.is_empty();
        is_whole && cell.tallies.paid_tokens() > 0
    });
    let costs = cells.filter_map(|cell| {
        let count = count(&cell.counters)?;
        Some((cell.block, count as f64 / cell.tallies.paid_tokens() as f64))
    });
    costs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Outcome;
    use crate::report::{Recorders, Report};
    use crate::row::{State, Transport};
    use crate::samples::{RowSketch, exchange, run};

    fn two_rows() -> (RunRecord, Recorders) {
        let sketch = |row| RowSketch {
            row,
            request: 200,
            delta: 50,
            model: (1_000, 500),
        };
        let ws = Row::events(Transport::Ws, State::Full);
        let (mut record, recorders) = run(&[sketch(Row::HTTP_FULL), sketch(ws)], 12);
        for (at, cell) in record.cells.iter_mut().enumerate() {
            let tokens = cell.tallies.tokens;
            // Both rows share what drifts from block to block.
            let drift = 1_000 + 10 * u64::from(cell.block);
            let cheap = cell.row == ws;
            cell.counters.client_cpu_ns =
                Some(tokens * drift / if cheap { 2 } else { 1 } + at as u64 % 3);
            cell.counters.reads = Some(if cheap { 0 } else { tokens });
        }
        (record, recorders)
    }

    #[test]
    fn a_ratio_per_block_with_its_interval_against_each_baseline_that_ran() {
        let (record, _) = two_rows();
        let report = Report::build(&record, &Default::default());
        assert_eq!(report.channels[0].price_versus, [], "the baseline itself");
        let changes = &report.channels[1].price_versus;
        let of = |name: &str| changes.iter().find(|it| it.counter == name);
        let cpu = of("client_cpu_ns_per_token").unwrap();
        assert_eq!((cpu.baseline.as_str(), cpu.blocks), ("http/full", 12));
        let (change, low, high) = (cpu.change.unwrap(), cpu.low.unwrap(), cpu.high.unwrap());
        assert!((change + 0.5).abs() < 1e-3, "{change}");
        assert!(low <= change && change <= high && high - low < 0.01);
        assert!(cpu.is_distinguishable());
        let reads = of("reads_per_token").unwrap();
        assert_eq!((reads.change, reads.low, reads.blocks), (None, None, 12));
        assert!(of("proxy_cpu_ns_per_token").is_none(), "not measured");
        let json = serde_json::to_value(cpu).unwrap();
        assert_eq!(json["interval"], "bootstrap_t");
        assert_eq!(serde_json::from_value::<PriceChange>(json).unwrap(), *cpu);
    }

    #[test]
    fn the_tokens_of_exchanges_that_were_cut_off_are_paid_for_too() {
        let (mut record, mut recorders) = two_rows();
        let ws = record.rows[1];
        // As many deltas again as a cell has tokens.
        let deltas: Vec<u64> = (1..=32).map(|k| 2_000 + k).collect();
        let mut cut = exchange(u128::MAX, &deltas);
        cut.outcome = Outcome::Truncated;
        cut.usage = None;
        for cell in record.cells.iter_mut().filter(|cell| cell.row == ws) {
            cell.tallies.count(&cut, None);
            recorders.entry(ws).or_default().finish(&cut, None);
        }
        let report = Report::build(&record, &recorders);
        let price = |at: usize| report.channels[at].counters["client_cpu_ns_per_token"];
        let changes = &report.channels[1].price_versus;
        let cpu = (changes.iter()).find(|it| it.counter == "client_cpu_ns_per_token");
        let change = cpu.unwrap().change.unwrap();
        // Half the price for each cell, among twice as many.
        assert!((change + 0.75).abs() < 1e-3, "{change}");
        assert!((price(1) / price(0) - 1.0 - change).abs() < 1e-2);
    }

    #[test]
    fn a_block_of_which_a_part_is_missing_is_not_compared() {
        let (mut record, _) = two_rows();
        let ws = record.rows[1];
        let broken = record.cells.iter_mut().find(|cell| cell.row == ws).unwrap();
        broken.statistics = Default::default();
        assert!(changes(&record, ws).iter().all(|it| it.blocks == 11));
    }
}
