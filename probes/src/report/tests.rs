//! The report of a hand-made run, and its shape as JSON.

use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::conditions::StateAt;
use crate::row::{State, Transport};
use crate::samples::{RowSketch, run};

const WS: Row = Row::events(Transport::Ws, State::Incremental);
const DIRECT: Row = Row::events(Transport::Direct, State::Full);

fn built() -> (RunRecord, Report) {
    let sketch = |row, request, delta| RowSketch {
        row,
        request,
        delta,
        model: (5_000, 1_000),
    };
    let (mut record, recorders) = run(
        &[
            sketch(DIRECT, 100, 10),
            sketch(Row::HTTP_COLD_FULL, 400, 60),
            sketch(Row::HTTP_FULL, 200, 50),
            sketch(WS, 100, 30),
        ],
        24,
    );
    let way = Duration::from_micros(20);
    record.floor = Some(Floor::of_link(2 * way, way));
    let report = Report::build(&record, &recorders);
    (record, report)
}

#[test]
fn rows_stand_in_order_with_their_figures() {
    let (record, report) = built();
    let rows: Vec<Row> = report.channels.iter().map(|row| row.row).collect();
    assert_eq!(rows, record.rows);
    let ws = report.row(WS).unwrap();
    assert_eq!((ws.completed, ws.failed, ws.cancelled), (96, 0, 0));
    assert!(!ws.per_delta);
    let overhead = ws.metrics[&Metric::TokenOverhead];
    assert_eq!(overhead.count, 96 * 7);
    assert!((30_000..=32_000).contains(&overhead.p50), "{overhead:?}");
    assert_eq!(report.blocks, 24);
    assert_eq!(report.calibration.dispatch_lag, None);
}

#[test]
fn each_row_is_compared_with_the_other_baselines_and_with_direct() {
    let (_, report) = built();
    let baselines = |row: Row| {
        let versus = &report.row(row).unwrap().versus;
        let mut names: Vec<&str> = versus.iter().map(|v| v.baseline.as_str()).collect();
        names.dedup();
        names
    };
    assert_eq!(
        baselines(WS),
        ["http-cold/full", "http/full", "direct/full"]
    );
    assert_eq!(baselines(Row::HTTP_FULL), ["http-cold/full", "direct/full"]);

    let ws = report.row(WS).unwrap();
    let halved = ws
        .versus("http-cold/full", Metric::TokenOverhead, Statistic::P50)
        .unwrap();
    assert!((halved.change.unwrap() + 0.5).abs() < 1e-3, "{halved:?}");
    assert_eq!((halved.blocks, halved.pairs), (24, 96));
    assert!(
        ws.versus("direct/full", Metric::TokenOverhead, Statistic::P50)
            .is_none()
    );
    assert!(
        ws.versus("direct/full", Metric::Ttft, Statistic::P99)
            .is_some()
    );
}

#[test]
fn counters_are_shares_of_the_rows_tokens() {
    let (_, report) = built();
    let counters = &report.row(WS).unwrap().counters;
    assert_eq!(counters["wire_bytes_received_per_token"], 64.0);
    assert_eq!(counters["client_cpu_ns_per_token"], 4_000.0);
    assert_eq!(counters["connections_opened"], 24.0);
    assert_eq!(counters["tokens_per_chunk"], 1.0);
    // 96 exchanges in 24 cells of 9 ms.
    assert!((counters["request_throughput"] - 96.0 / 0.216).abs() < 1e-6);
    assert!(!counters.contains_key("reads_per_token"));
}

#[test]
fn a_pairs_leg_stands_beside_its_counters_where_all_cells_have_it() {
    let pair = Row::events(Transport::PairQuic, State::Full);
    let sketch = |row| RowSketch {
        row,
        request: 100,
        delta: 30,
        model: (5_000, 1_000),
    };
    let (mut record, recorders) = run(&[sketch(Row::HTTP_FULL), sketch(pair)], 2);
    let report = Report::build(&record, &recorders);
    let row = report.row(pair).unwrap();
    assert_eq!(row.leg["wire_bytes_received_per_token"], 48.0);
    assert_eq!(row.leg["connections_opened"], 0.0);
    // Neither is mixed into the other.
    assert_eq!(row.counters["wire_bytes_received_per_token"], 64.0);
    assert!(report.row(Row::HTTP_FULL).unwrap().leg.is_empty());
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["channels"][0].get("leg"), None);
    assert_eq!(
        json["channels"][1]["leg"]["channel_bytes_sent_per_token"],
        9.0
    );
    assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);

    // A part of it would be divided by the tokens of the whole.
    let cells = &mut record.cells;
    cells.iter_mut().rfind(|cell| cell.row == pair).unwrap().leg = None;
    let report = Report::build(&record, &recorders);
    assert!(report.row(pair).unwrap().leg.is_empty());
}

#[test]
fn a_floor_that_no_way_has_is_taken_off_all_the_same() {
    let sketch = RowSketch {
        row: WS,
        request: 100,
        delta: 30,
        model: (5_000, 1_000),
    };
    let (mut record, recorders) = run(&[sketch], 2);
    record.floor = Some(Floor::of_link(Duration::MAX, Duration::MAX));
    let report = Report::build(&record, &recorders);
    let ws = report.row(WS).unwrap();
    for (metric, net) in &ws.net_of_floor {
        let floor = record.floor.and_then(|floor| floor.under(*metric));
        let whole = ws.metrics[metric];
        match floor {
            Some(u64::MAX) => assert_eq!(net.p99, whole.p99 - i64::MAX, "{metric}"),
            _ => assert_eq!((floor, net.p99), (Some(0), whole.p99), "{metric}"),
        }
    }
}

#[test]
fn overheads_are_also_given_net_of_the_floor() {
    let (_, report) = built();
    let ws = report.row(WS).unwrap();
    let whole = ws.metrics[&Metric::RoundtripOverhead];
    assert_eq!(
        ws.net_of_floor[&Metric::RoundtripOverhead].p50,
        whole.p50 - 40_000
    );
    let transfer = ws.metrics[&Metric::RequestTransfer];
    assert_eq!(
        ws.net_of_floor[&Metric::RequestTransfer].p50,
        transfer.p50 - 20_000
    );
    // Three overheads, and the legs but the model's.
    assert_eq!(ws.net_of_floor.len(), 8);
    let net = |baseline, metric| ws.net_versus(baseline, metric, Statistic::P50);
    // 30 against 60, of which 20 are the way: a quarter is left.
    let token = net("http-cold/full", Metric::TokenOverhead).unwrap();
    assert!((token.change.unwrap() + 0.75).abs() < 0.02, "{token:?}");
    assert_eq!(net("http-cold/full", Metric::Ttft), None);
    assert_eq!(net("direct/full", Metric::Roundtrip), None);
}

#[test]
fn the_json_has_the_documented_shape() {
    let (_, report) = built();
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["schema"], "tokenlag.report/1");
    for key in [
        "command",
        "started_at",
        "host",
        "plan",
        "verdict",
        "calibration",
    ] {
        assert!(json.get(key).is_some(), "{key}");
    }
    assert_eq!(json["verdict"]["trusted"], true);
    assert_eq!(json["verdict"]["warnings"], Value::Array(Vec::new()));
    let ws = &json["channels"][3];
    assert_eq!(ws["channel"], "ws");
    assert_eq!(ws["state"], "incremental");
    assert_eq!(ws["encoding"], "events");
    assert_eq!(ws["read_stamp"], "exact");
    assert_eq!(ws["failures"]["timeout"], 0);
    let ttft = &ws["metrics"]["ttft"];
    assert_eq!(ttft["unit"], "ns");
    for key in [
        "count", "mean", "std", "min", "p50", "p90", "p99", "p999", "max",
    ] {
        assert!(ttft[key].is_number(), "{key}");
    }
    let versus = &ws["versus"][0];
    assert_eq!(versus["baseline"], "http-cold/full");
    assert_eq!(versus["statistic"], "p50");
    for key in ["change", "low", "high", "blocks", "pairs"] {
        assert!(versus[key].is_number(), "{key}");
    }
    assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
}

#[test]
fn the_conditions_stand_in_the_report() {
    let (mut record, _) = built();
    record.conditions.tls = Some(true);
    record.conditions.state_at = Some(StateAt::Upstream);
    let json = serde_json::to_value(Report::build(&record, &Recorders::new())).unwrap();
    let expected = serde_json::json!({ "tls": true, "state_at": "upstream" });
    assert_eq!(json["conditions"], expected);
}

#[test]
fn what_was_written_before_conditions_and_savings_were_known_still_reads() {
    let (record, report) = built();
    let mut old_record = serde_json::to_value(&record).unwrap();
    assert_eq!(old_record.get("conditions"), None);
    for cell in old_record["cells"].as_array_mut().unwrap() {
        let counters = cell["counters"].as_object_mut().unwrap();
        counters.retain(|name, _| !name.starts_with("channel_"));
    }
    let read: RunRecord = serde_json::from_value(old_record).unwrap();
    assert!(read.conditions.is_empty());
    assert_eq!(read.cells.len(), record.cells.len());
    assert_eq!(read.cells[0].counters.channel_bytes_sent, None);

    let mut old_report = serde_json::to_value(&report).unwrap();
    for key in ["conditions", "savings"] {
        old_report.as_object_mut().unwrap().remove(key).unwrap();
    }
    let read: Report = serde_json::from_value(old_report).unwrap();
    assert_eq!((read.savings.len(), read.channels), (0, report.channels));
}

#[test]
fn a_channel_in_both_states_has_its_saving_split_against_both_baselines() {
    let full = Row::events(Transport::Ws, State::Full);
    let sketch = |row, request, delta| RowSketch {
        row,
        request,
        delta,
        model: (5_000, 1_000),
    };
    let (record, recorders) = run(
        &[
            sketch(Row::HTTP_COLD_FULL, 400, 60),
            sketch(Row::HTTP_FULL, 200, 50),
            sketch(full, 100, 30),
            sketch(WS, 50, 30),
        ],
        9,
    );
    let report = Report::build(&record, &recorders);
    assert_eq!(report.savings.len(), 2 * 4);
    let tokens = report
        .savings
        .iter()
        .find(|saving| saving.baseline == "http/full" && saving.metric == Metric::TokenOverhead)
        .unwrap();
    assert!((tokens.transport.change.unwrap() + 0.4).abs() < 1e-3);
    assert!(tokens.state.change.unwrap().abs() < 1e-9);
    // With every block complete the total is what the row's own comparison says.
    for saving in &report.savings {
        let versus = report.row(WS).unwrap();
        let versus = versus.versus(&saving.baseline, saving.metric, Statistic::P50);
        assert_eq!(versus, Some(&saving.total));
    }
}

#[test]
fn a_row_that_never_ran_is_shown_empty() {
    let (record, _) = built();
    let report = Report::build(&record, &Recorders::new());
    assert_eq!(report.channels.len(), 4);
    assert!(report.channels.iter().all(|row| row.metrics.is_empty()));
    assert!(!report.verdict.trusted);
}

#[test]
fn stamps_that_are_upper_bounds_are_flagged() {
    let row = Row::events(Transport::Quic, State::Full);
    let (record, recorders) = run(&[], 0);
    let record = RunRecord {
        rows: vec![row],
        ..record
    };
    let json = serde_json::to_value(Report::build(&record, &recorders)).unwrap();
    assert_eq!(json["channels"][0]["read_stamp"], "upper_bound");
}
