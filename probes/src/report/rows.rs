//! One row of the report: its distributions, its counters, its changes against the baselines.

use std::collections::BTreeMap;

use crate::exchange::FailureKind;
use crate::floor::Floor;
use crate::histogram::Summary;
use crate::metric::Metric;
use crate::record::RunRecord;
use crate::recorder::{Recorder, Tallies};
use crate::row::{Row, Transport};
use crate::stats::Statistic;

use super::{Net, RowReport, TokenLateness, Versus, price, sockets};

/// Figures in which each row is compared with the baselines.
const COMPARED: [Metric; 5] = [
    Metric::Ttft,
    Metric::FirstTokenOverhead,
    Metric::TokenOverhead,
    Metric::RoundtripOverhead,
    Metric::Roundtrip,
];
/// Figures in which each row is compared with `direct`, which has no overheads: they show what the proxy itself costs.
const COMPARED_WITH_DIRECT: [Metric; 2] = [Metric::Ttft, Metric::Roundtrip];

pub(super) fn report(record: &RunRecord, row: Row, recorder: Option<&Recorder>) -> RowReport {
    let metrics: BTreeMap<Metric, Summary> = recorder
        .into_iter()
        .flat_map(|recorder| {
            Metric::ALL
                .into_iter()
                .filter_map(|metric| Some((metric, recorder.summary(metric)?)))
        })
        .collect();
    let tallies = recorder.map_or_else(Tallies::default, |recorder| recorder.tallies().clone());
    RowReport {
        row,
        read_stamp: row.transport.read_stamp(),
        completed: tallies.completed,
        failed: tallies.errors(),
        cancelled: tallies.cancelled,
        failures: failures(&tallies),
        per_delta: tallies.per_delta(),
        unjoined: tallies.unjoined,
        net_of_floor: net_of_floor(&metrics, record.floor.as_ref()),
        uncertainty_ns: uncertainties(record, row, &metrics),
        metrics,
        token_lateness: TokenLateness::of(
            &tallies.lateness,
            record.conditions.stamp,
            row.transport.is_pair(),
        )
        .map(|it| it.known_to(record.clock_uncertainty_ns(row))),
        counters: counters(record, row, &tallies),
        leg: record
            .leg_of(row)
            .map_or_else(BTreeMap::new, |leg| leg.shown(tallies.paid_tokens())),
        sockets: sockets::of(record, row, tallies.paid_tokens()),
        versus: all_versus(record, row),
        price_versus: price::changes(record, row),
    }
}

fn failures(tallies: &Tallies) -> BTreeMap<String, u64> {
    let of_kind = |kind| tallies.failures.get(&kind).copied().unwrap_or(0);
    FailureKind::ALL
        .into_iter()
        .map(|kind| (kind.name().to_owned(), of_kind(kind)))
        .chain([("truncated".to_owned(), tallies.truncated)])
        .collect()
}

fn net_of_floor(
    metrics: &BTreeMap<Metric, Summary>,
    floor: Option<&Floor>,
) -> BTreeMap<Metric, Net> {
    let net = |(&metric, summary): (&Metric, &Summary)| {
        let floor = i64::try_from(floor?.under(metric)?).unwrap_or(i64::MAX);
        let net = Net {
            p50: summary.p50.saturating_sub(floor),
            p99: summary.p99.saturating_sub(floor),
        };
        Some((metric, net))
    };
    metrics.iter().filter_map(net).collect()
}

/// How far the figures of stamps of both ends may be off; none where the clock is one.
fn uncertainties(
    record: &RunRecord,
    row: Row,
    metrics: &BTreeMap<Metric, Summary>,
) -> BTreeMap<Metric, u64> {
    let Some(nanos) = record.clock_uncertainty_ns(row) else {
        return BTreeMap::new();
    };
    let one_way = metrics.keys().filter(|metric| metric.is_one_way());
    one_way.map(|metric| (*metric, nanos)).collect()
}

fn counters(record: &RunRecord, row: Row, tallies: &Tallies) -> BTreeMap<String, f64> {
    let mut shown = record.counters_of(row).shown(tallies.paid_tokens());
    let seconds = record.measured_ns(row) as f64 / 1e9;
    let tokens = tallies.tokens as f64;
    let completed = tallies.completed as f64;
    for (name, amount, of) in [
        ("tokens_per_delta", tokens, tallies.deltas as f64),
        ("tokens_per_chunk", tokens, tallies.chunks as f64),
        (
            "deltas_per_chunk",
            tallies.deltas as f64,
            tallies.chunks as f64,
        ),
        ("request_throughput", completed, seconds),
        ("output_token_throughput", tokens, seconds),
        ("output_tokens_per_exchange", tokens, completed),
        (
            "input_tokens_per_exchange",
            tallies.input_tokens as f64,
            tallies.with_usage as f64,
        ),
        (
            "cached_input_tokens_per_exchange",
            tallies.cached_input_tokens as f64,
            tallies.with_cached_input as f64,
        ),
    ] {
        if of > 0.0 {
            shown.insert(name.to_owned(), amount / of);
        }
    }
    for (name, count) in [
        ("answered_by_proxy", tallies.answered_by_proxy),
        ("overlapped", tallies.overlapped),
        ("coalesced_deltas", tallies.coalesced),
        ("up_coalesced_deltas", tallies.up_coalesced),
        ("unfinished_deltas", tallies.unfinished_deltas),
    ] {
        if count > 0 {
            shown.insert(name.to_owned(), count as f64);
        }
    }
    shown
}

fn all_versus(record: &RunRecord, row: Row) -> Vec<Versus> {
    let direct = record
        .rows
        .iter()
        .filter(|row| row.transport == Transport::Direct);
    let mut all = Vec::new();
    for (baselines, metrics) in [
        (
            record.baselines.iter().collect::<Vec<_>>(),
            COMPARED.as_slice(),
        ),
        (direct.collect(), COMPARED_WITH_DIRECT.as_slice()),
    ] {
        for &baseline in baselines {
            if baseline == row || !record.rows.contains(&baseline) {
                continue;
            }
            for &metric in metrics {
                all.extend(versus(record, row, baseline, metric));
            }
        }
    }
    all
}

fn versus(record: &RunRecord, row: Row, baseline: Row, metric: Metric) -> Vec<Versus> {
    [Statistic::P50, Statistic::P99]
        .into_iter()
        .map(|statistic| Versus {
            baseline: baseline.to_string(),
            metric,
            statistic,
            change: record.change_of(row, baseline, metric, statistic),
            net_of_floor: Metric::OVERHEADS
                .contains(&metric)
                .then(|| record.net_change_of(row, baseline, metric, statistic))
                .flatten(),
        })
        .filter(|versus| versus.change.blocks > 0)
        .collect()
}
