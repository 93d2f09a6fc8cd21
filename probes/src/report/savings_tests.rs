//! Savings of made-up runs whose factors are known.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::cell::{CellFigure, CellStatistics};
use crate::counters::Counters;
use crate::record::Cell;
use crate::recorder::Tallies;

const METRIC: Metric = Metric::RoundtripOverhead;
const WS_FULL: Row = Row::events(Transport::Ws, State::Full);
const WS: Row = Row::events(Transport::Ws, State::Incremental);
const COMPACT_FULL: Row = Row {
    transport: Transport::Quic,
    state: State::Full,
    encoding: Encoding::Compact,
};
const COMPACT: Row = Row {
    state: State::Incremental,
    ..COMPACT_FULL
};

/// A run in which `METRIC` is all that was measured, with these medians by block.
fn run(rows: &[(Row, &[i64])]) -> RunRecord {
    let names = rows.iter().map(|(row, _)| *row).collect();
    let mut record = RunRecord::begin("compare", UNIX_EPOCH, names);
    for (order, (row, medians)) in (0..).zip(rows) {
        let cells = (0..).zip(*medians);
        record
            .cells
            .extend(cells.map(|(block, &p50)| cell(*row, order, block, p50)));
    }
    record
}

fn cell(row: Row, order: u32, block: u32, p50: i64) -> Cell {
    let figure = CellFigure {
        count: 10,
        exchanges: 10,
        mean: p50 as f64,
        p50,
        p99: p50,
        min: p50,
        max: p50,
        beyond_bound: 0,
    };
    Cell {
        block,
        row,
        order,
        started_ns: 0,
        duration_ns: 1,
        parts: None,
        statistics: CellStatistics(BTreeMap::from([(METRIC, figure)])),
        logged: BTreeMap::new(),
        tallies: Tallies::default(),
        counters: Counters::default(),
        leg: None,
        sockets: Default::default(),
    }
}

#[track_caller]
fn check(change: &Change, expected: f64) {
    let found = change.change.unwrap();
    assert!((found - expected).abs() < 1e-9, "{found} for {expected}");
}

/// The steps multiply to the whole on the scale of ratios, and add up to it as times.
#[track_caller]
fn check_product(saving: &Saving) {
    let steps = || {
        let compact = saving.compact.as_ref();
        [Some(&saving.transport), compact, Some(&saving.state)]
            .into_iter()
            .flatten()
    };
    let product: f64 = steps().map(|step| 1.0 + step.change.unwrap()).product();
    check(&saving.total, product - 1.0);
    let sum: f64 = steps()
        .map(|step| step.difference.unwrap().mean_ns)
        .sum::<f64>();
    assert!((sum - saving.total.difference.unwrap().mean_ns).abs() < 1e-6);
    for step in steps() {
        assert_eq!(
            (step.blocks, step.pairs),
            (saving.total.blocks, saving.total.pairs)
        );
    }
}

#[test]
fn the_whole_is_the_product_of_transport_and_state() {
    let record = run(&[
        (Row::HTTP_COLD_FULL, &[1_000, 2_000, 4_000]),
        (Row::HTTP_FULL, &[800, 1_600, 3_200]),
        (WS_FULL, &[500, 1_000, 2_000]),
        (WS, &[300, 600, 1_200]),
    ]);
    let savings = of(&record);
    let named: Vec<(Transport, &str)> = savings
        .iter()
        .map(|saving| (saving.channel, saving.baseline.as_str()))
        .collect();
    assert_eq!(
        named,
        [
            (Transport::Ws, "http-cold/full"),
            (Transport::Ws, "http/full")
        ]
    );
    for (saving, transport, total) in [(&savings[0], -0.5, -0.7), (&savings[1], -0.375, -0.625)] {
        check(&saving.transport, transport);
        check(&saving.state, -0.4);
        check(&saving.total, total);
        assert_eq!(saving.compact, None);
        check_product(saving);
    }
}

#[test]
fn steps_are_taken_over_the_blocks_that_all_rows_have() {
    let mut record = run(&[
        (Row::HTTP_COLD_FULL, &[1_000, 1_700, 900, 1_300, 1_100]),
        (WS_FULL, &[700, 300, 650, 710, 40]),
        (WS, &[290, 310, 100, 333, 350]),
    ]);
    record
        .cells
        .retain(|cell| (cell.row, cell.block) != (WS, 1) && (cell.row, cell.block) != (WS_FULL, 4));
    let [saving] = &of(&record)[..] else {
        panic!("one channel, one baseline, one figure");
    };
    assert_eq!(saving.total.blocks, 3);
    check_product(saving);
}

#[test]
fn what_the_encoding_saves_is_booked_as_neither_transport_nor_state() {
    let quic = Row::events(Transport::Quic, State::Full);
    let rows: [(Row, &[i64]); 4] = [
        (Row::HTTP_COLD_FULL, &[1_000, 1_000]),
        (quic, &[800, 800]),
        (COMPACT_FULL, &[600, 600]),
        (COMPACT, &[300, 300]),
    ];
    let savings = of(&run(&rows));
    let [saving] = &savings[..] else {
        panic!("{savings:?}");
    };
    assert_eq!(
        (saving.channel, saving.encoding),
        (Transport::Quic, Encoding::Compact)
    );
    check(&saving.transport, -0.2);
    check(saving.compact.as_ref().unwrap(), -0.25);
    check(&saving.state, -0.5);
    check_product(saving);

    let without_events: Vec<_> = rows.into_iter().filter(|(row, _)| *row != quic).collect();
    assert_eq!(of(&run(&without_events)), []);
}

#[test]
fn a_baselines_own_channel_gains_by_state_alone() {
    let incremental = Row::events(Transport::Http, State::Incremental);
    let record = run(&[(Row::HTTP_FULL, &[100; 9]), (incremental, &[60; 9])]);
    let saving = &of(&record)[0];
    assert_eq!(saving.baseline, "http/full");
    let nothing = &saving.transport;
    assert_eq!(
        (nothing.change, nothing.low, nothing.high),
        (Some(0.0), Some(0.0), Some(0.0))
    );
    assert_eq!(saving.state, saving.total);
}

#[test]
fn a_channel_with_one_state_and_the_control_are_not_split() {
    let direct = |state| Row::events(Transport::Direct, state);
    let mut record = run(&[
        (direct(State::Full), &[50; 3]),
        (direct(State::Incremental), &[50; 3]),
        (Row::HTTP_FULL, &[100; 3]),
        (WS, &[60; 3]),
    ]);
    assert_eq!(of(&record), []);
    record.rows.push(WS_FULL);
    assert_eq!(of(&record), [], "it was to run and has no block");
    // A baseline whose own state is incremental has no state left to gain.
    record.rows.retain(|row| *row != WS_FULL);
    record.baselines = vec![WS];
    assert_eq!(of(&record), []);
}

#[test]
fn a_step_without_a_logarithm_is_withheld_and_the_others_stand() {
    let record = run(&[
        (Row::HTTP_FULL, &[100, 0, 100]),
        (WS_FULL, &[50; 3]),
        (WS, &[25; 3]),
    ]);
    let saving = &of(&record)[0];
    assert_eq!((saving.transport.change, saving.total.change), (None, None));
    assert_eq!(saving.total.without_logarithm, 1);
    check(&saving.state, -0.5);
    let [transport, state, total] =
        [&saving.transport, &saving.state, &saving.total].map(|c| c.difference.unwrap().mean_ns);
    assert!((transport + state - total).abs() < 1e-9);
}

#[test]
fn savings_survive_json_under_their_documented_names() {
    let record = run(&[
        (Row::HTTP_FULL, &[100; 3]),
        (WS_FULL, &[50; 3]),
        (WS, &[25; 3]),
    ]);
    let savings = of(&record);
    let json = serde_json::to_value(&savings).unwrap();
    assert_eq!(json[0]["channel"], "ws");
    assert_eq!(json[0]["encoding"], "events");
    assert_eq!(json[0]["baseline"], "http/full");
    assert_eq!(json[0]["metric"], "roundtrip_overhead");
    assert_eq!(json[0]["statistic"], "p50");
    for step in ["transport", "state", "total"] {
        for key in ["change", "low", "high"] {
            assert!(json[0][step][key].is_number(), "{step}.{key}");
        }
    }
    assert_eq!(
        serde_json::from_value::<Vec<Saving>>(json).unwrap(),
        savings
    );
}

/// Standard normal, by Box and Muller.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (a, b): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

#[test]
fn the_intervals_of_each_step_hold_the_truth_as_often_as_they_say() {
    const RUNS: u64 = 100;
    let (transport, state) = (-0.5, -0.3);
    let truth = [transport, state, (1.0 + transport) * (1.0 + state) - 1.0];
    let scales = [1.0, 0.5, 0.5 * 0.7];
    let mut rng = ChaCha8Rng::seed_from_u64(20_261_123);
    let mut held = [0u64; 3];
    for seed in 0..RUNS {
        let mut medians = [const { Vec::new() }; 3];
        let mut drift = 0.0;
        for _ in 0..24 {
            // The machine's speed wanders for all rows alike; each row has noise of its own.
            drift += 0.1 * normal(&mut rng);
            for (medians, scale) in medians.iter_mut().zip(scales) {
                let noisy = scale * (drift + 0.2 * normal(&mut rng)).exp();
                medians.push((1e6 * noisy).round() as i64);
            }
        }
        let [before, full, incremental] = &medians;
        let mut record = run(&[(Row::HTTP_FULL, before), (WS_FULL, full), (WS, incremental)]);
        record.seeds.bootstrap = seed;
        let saving = &of(&record)[0];
        check_product(saving);
        let steps = [&saving.transport, &saving.state, &saving.total];
        for ((held, step), truth) in held.iter_mut().zip(steps).zip(truth) {
            let (low, high) = step.low.zip(step.high).unwrap();
            *held += u64::from(low <= truth && truth <= high);
        }
    }
    for (held, step) in held.into_iter().zip(["transport", "state", "total"]) {
        let share = held as f64 / RUNS as f64;
        assert!((0.9..=0.99).contains(&share), "{step}: {share}");
    }
}
