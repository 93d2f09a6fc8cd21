use proptest::prelude::*;

use super::*;
use crate::figures::derive;
use crate::metric::Metric;
use crate::samples::{at, exchange, hop};

/// A round trip from `sent` whose ways take `out` and `back`, to a clock that is `offset` ahead and keeps it for `held`.
fn round_trip(sent: u64, out: u64, held: u64, back: u64, offset: i64) -> RoundTrip {
    RoundTrip {
        sent: at(sent),
        received: at(sent + out).moved_by(offset),
        replied: at(sent + out + held).moved_by(offset),
        arrived: at(sent + out + held + back),
    }
}

fn batch(sent: u64, offset: i64) -> ClockBatch {
    ClockBatch {
        round_trips: 8,
        fastest: round_trip(sent, 500, 100, 500, offset),
    }
}

fn record(batches: Vec<ClockBatch>) -> ClockRecord {
    ClockRecord {
        ours: Some("boot a".to_owned()),
        theirs: Some("boot b".to_owned()),
        started: at(0),
        batches,
    }
}

#[test]
fn the_offset_is_within_half_of_a_round_trip_however_unlike_its_ways_are() {
    for (out, back) in [(500, 500), (0, 1_000), (1_000, 0), (333, 667)] {
        for offset in [0, 1_000_000_000_000, -7_000] {
            let trip = round_trip(9_000_000, out, 77, back, offset);
            assert_eq!(trip.delay_ns(), 1_000);
            assert!(trip.offset_ns().abs_diff(offset) <= trip.half_ns());
            assert!(trip.is_possible());
        }
    }
    assert_eq!(round_trip(9_000, 500, 77, 500, -4_000).offset_ns(), -4_000);
}

#[test]
fn the_fastest_possible_round_trip_is_taken() {
    let mut backwards = round_trip(1_000, 1, 1, 1, 50);
    backwards.replied = at(0);
    let mut held_too_long = round_trip(1_000, 1, 1, 1, 50);
    held_too_long.replied = at(90_000);
    let fast = round_trip(5_000, 20, 5_000, 20, 50);
    let slow = round_trip(2_000, 90, 0, 10, 50);
    let taken = ClockBatch::of([backwards, slow, fast, held_too_long]).unwrap();
    assert_eq!((taken.round_trips, taken.fastest), (4, fast));
    assert_eq!(ClockBatch::of([backwards, held_too_long]), None);
    assert_eq!(ClockBatch::of([]), None);
}

#[test]
fn one_name_is_believed_until_a_round_trip_speaks_against_it() {
    let mut one = record(vec![batch(1_000, 0)]);
    assert_eq!(one.relation(), ClockRelation::Estimated, "other names");
    one.theirs = one.ours.clone();
    assert_eq!(one.relation(), ClockRelation::Same);
    one.batches[0].fastest = round_trip(1_000, 500, 100, 500, 501);
    assert_eq!(one.relation(), ClockRelation::Estimated, "another time");
    (one.ours, one.theirs) = (None, None);
    one.batches[0] = batch(1_000, 0);
    assert_eq!(one.relation(), ClockRelation::Estimated, "no names");
}

#[test]
fn between_two_batches_the_offset_is_a_straight_line() {
    let second = 1_000_000_000;
    let clocks = record(vec![
        batch(second, 1_000_000),
        batch(2 * second, 1_050_000),
        batch(3 * second, 1_100_000),
    ]);
    let offset = |nanos: u64| clocks.offset_ns(at(nanos)).unwrap();
    assert_eq!(offset(0), 1_000_000, "before the first");
    assert_eq!(offset(9 * second), 1_100_000, "after the last");
    assert!(offset(second + second / 2 + 550).abs_diff(1_025_000) <= 1);
    let estimate = clocks.estimate().unwrap();
    assert!(
        (estimate.drift_ppm.unwrap() - 50.0).abs() < 0.01,
        "{estimate:?}"
    );
    assert!((estimate.drift_uncertainty_ppm.unwrap() - 0.5).abs() < 0.01);
    assert_eq!((estimate.round_trips, estimate.batches), (24, 3));
    assert_eq!((estimate.uncertainty_ns, estimate.bend_ns), (500, 0));
    assert!(estimate.offset_ns.abs_diff(1_050_000) <= 1);
}

#[test]
fn a_batch_off_the_line_of_its_neighbours_is_residue_and_what_round_trips_do_not_explain_is_a_bend()
{
    let second = 1_000_000_000;
    let mut clocks = record((1..=9).map(|k| batch(k * second, 0)).collect());
    assert_eq!(clocks.estimate().unwrap().residue_ns, 0);
    for at in (1..9).step_by(2) {
        clocks.batches[at] = batch((at as u64 + 1) * second, 400);
    }
    let estimate = clocks.estimate().unwrap();
    assert_eq!((estimate.residue_ns, estimate.bend_ns), (400, 0));
    assert_eq!(estimate.uncertainty_ns, 900);
    clocks.batches[3] = batch(4 * second, 70_000);
    let estimate = clocks.estimate().unwrap();
    assert_eq!((estimate.residue_ns, estimate.bend_ns), (400, 69_000));
    // The slowest round trip around a stretch counts, and none beyond.
    clocks.batches[6].fastest = round_trip(7 * second, 40_000, 0, 40_000, 0);
    let within = |from: u64, to: u64| clocks.uncertainty_ns(at(from), at(to)).unwrap();
    assert!(within(2 * second, 3 * second + 5_000) < 1_000 + 400);
    assert!(within(5 * second, 6 * second + 5_000) > 40_000);
}

#[test]
fn figures_of_one_clock_are_not_moved_and_those_of_two_are_as_on_one() {
    let second = 1_000_000_000;
    let (here, there) = (
        exchange(7, &[2_000, 3_000, 900_000_000]),
        hop(7, &[1_900, 2_850, 899_999_000]),
    );
    // It goes 100 ppm faster and began an hour ahead.
    let offset = |nanos: u64| 3_600 * second as i64 + (nanos / 10_000) as i64;
    let span = ClockSpan {
        before: batch(0, offset(0)),
        after: batch(second, offset(second)),
    };
    let mut other = there.clone();
    let away = |stamp: &mut Stamp| *stamp = stamp.moved_by(offset(stamp.as_nanos()));
    for stamp in [&mut other.in_head, &mut other.in_body] {
        away(stamp);
    }
    for stamp in [&mut other.up_written, &mut other.up_end]
        .into_iter()
        .flatten()
    {
        away(stamp);
    }
    other.up_token.iter_mut().for_each(away);
    other.out_token.iter_mut().for_each(away);
    let moved = {
        let mut moved = other.clone();
        span.move_onto_ours(&mut moved);
        moved
    };
    let figures = |hop: &crate::exchange::HopExchange| {
        let mut all = Vec::new();
        derive(&here, Some(hop), &mut |metric, nanos| {
            all.push((metric, nanos))
        });
        all
    };
    let of = |figures: &[(Metric, i64)], metric| {
        let of: Vec<i64> = (figures.iter())
            .filter(|(name, _)| *name == metric)
            .map(|(_, nanos)| *nanos)
            .collect();
        of
    };
    let (one, raw, two) = (figures(&there), figures(&other), figures(&moved));
    for metric in [
        Metric::ModelTtft,
        Metric::ModelTime,
        Metric::FirstTokenOverhead,
        Metric::RoundtripOverhead,
        Metric::ProxyRequest,
        Metric::ProxyToken,
    ] {
        assert_eq!(of(&two, metric), of(&raw, metric), "{metric}");
    }
    for metric in Metric::ALL.into_iter().filter(|metric| metric.is_one_way()) {
        let (one, two) = (of(&one, metric), of(&two, metric));
        assert_eq!(one.len(), two.len());
        for (one, two) in one.into_iter().zip(two) {
            assert!(two.abs_diff(one) <= 2, "{metric}: {two} for {one}");
        }
    }
    let legs: i64 = Metric::LEGS.iter().flat_map(|leg| of(&two, *leg)).sum();
    assert_eq!(legs, 1_000, "token[1] - dispatched");
}

#[test]
fn a_reply_that_tells_no_time_is_refused_with_its_reason() {
    for (body, part) in [
        ("", "not an object"),
        ("null", "not an object"),
        (r#"{"received":1}"#, "replied"),
        (r#"{"received":-5,"replied":7}"#, "whole numbers"),
        (r#"{"received":1.5,"replied":7}"#, "whole numbers"),
        (
            r#"{"received":1,"replied":18446744073709551615}"#,
            "292 years",
        ),
        (
            r#"{"received":1,"replied":18446744073709551616}"#,
            "whole numbers",
        ),
        (r#"{"received":9,"replied":7}"#, "went back by 2 ns"),
    ] {
        let error = ClockReply::parse(body.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(part), "{body}: {error}");
    }
    let long = format!(
        r#"{{"received":1,"replied":2,"clock":"{}"}}"#,
        "x".repeat(300)
    );
    let error = ClockReply::parse(long.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("has 300 bytes"), "{error}");
    let reply = ClockReply::parse(br#"{"received":1,"replied":2,"more":[]}"#).unwrap();
    assert_eq!(
        (reply.received, reply.replied, reply.clock),
        (at(1), at(2), None)
    );
}

/// Stamps as a liar chooses them: near one another, at the ends, anywhere.
fn stamps() -> impl Strategy<Value = Stamp> {
    prop_oneof![
        0..5_000u64,
        Just(u64::MAX),
        Just(i64::MAX as u64),
        any::<u64>(),
    ]
    .prop_map(Stamp::from_nanos)
}

fn batches() -> impl Strategy<Value = Vec<ClockBatch>> {
    let one = (stamps(), stamps(), stamps(), stamps(), any::<u32>());
    let one = one.prop_map(
        |(sent, received, replied, arrived, round_trips)| ClockBatch {
            round_trips,
            fastest: RoundTrip {
                sent,
                received,
                replied,
                arrived,
            },
        },
    );
    proptest::collection::vec(one, 0..12)
}

proptest! {
    #[test]
    fn no_stamps_make_the_estimate_panic(batches in batches(), from in stamps(), to in stamps()) {
        let clocks = record(batches);
        let estimate = clocks.estimate();
        prop_assert_eq!(estimate.is_some(), !clocks.batches.is_empty());
        if let Some(estimate) = estimate {
            // JSON has no infinities: what is not finite could not be read back.
            prop_assert!(estimate.drift_ppm.is_none_or(f64::is_finite));
            prop_assert!(estimate.drift_uncertainty_ppm.is_none_or(f64::is_finite));
        }
        clocks.uncertainty_ns(from, to);
        clocks.offset_ns(from);
        if let Some(span) = clocks.span(from, to) {
            let mut hop = hop(7, &[1_900, 2_850]);
            hop.in_body = from;
            hop.up_token[1] = to;
            span.move_onto_ours(&mut hop);
        }
        ClockBatch::of(clocks.batches.iter().map(|batch| batch.fastest));
    }

    #[test]
    fn no_reply_makes_the_parser_panic(body in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = ClockReply::parse(&body);
    }

    #[test]
    fn what_a_parser_takes_is_what_was_written(
        received in 0..=i64::MAX as u64,
        held in 0..1_000_000u64,
        clock in proptest::option::of("[a-z0-9-]{0,40}"),
    ) {
        let replied = received.saturating_add(held).min(i64::MAX as u64);
        let reply = ClockReply { received: at(received), replied: at(replied), clock };
        let text = serde_json::to_vec(&reply).unwrap();
        prop_assert_eq!(ClockReply::parse(&text), Ok(reply));
    }
}
