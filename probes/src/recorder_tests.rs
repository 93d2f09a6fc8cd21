//! The recorder's counts, its merging, and what it does with failures.

use super::*;
use crate::samples::{exchange, hop};

#[test]
fn a_complete_exchange_is_counted_and_measured() {
    let mut recorder = Recorder::new();
    recorder.finish(
        &exchange(1, &[2_000, 2_100]),
        Some(&hop(1, &[1_900, 2_000])),
    );
    let tallies = recorder.tallies();
    assert_eq!(
        (
            tallies.completed,
            tallies.tokens,
            tallies.deltas,
            tallies.chunks
        ),
        (1, 2, 2, 2)
    );
    assert_eq!((tallies.input_tokens, tallies.cached_input_tokens), (7, 3));
    assert_eq!(tallies.joined, 1);
    assert!(!tallies.per_delta());
    let summary = recorder.summary(Metric::FirstTokenOverhead).unwrap();
    assert_eq!((summary.count, summary.p50), (1, 330));
    assert_eq!(recorder.summary(Metric::DispatchLag), None);
}

#[test]
fn deltas_that_share_their_read_with_a_later_one_are_counted() {
    let mut ours = exchange(1, &[2_000, 2_100, 2_100, 2_100, 2_200]);
    for (mark, chunk) in ours.tokens.iter_mut().zip([0, 1, 1, 1, 2]) {
        mark.chunk = chunk;
    }
    let mut recorder = Recorder::new();
    recorder.finish(&ours, None);
    assert_eq!(recorder.tallies().coalesced, 2);
    let mut sum = Tallies::default();
    sum.add(recorder.tallies());
    sum.add(recorder.tallies());
    assert_eq!(sum.coalesced, 4);
}

#[test]
fn failures_are_counted_by_kind_and_never_measured() {
    let mut recorder = Recorder::new();
    for outcome in [
        Outcome::Failed(FailureKind::Timeout),
        Outcome::Failed(FailureKind::Timeout),
        Outcome::Failed(FailureKind::Connect),
        Outcome::Truncated,
        Outcome::Cancelled,
    ] {
        let mut exchange = exchange(1, &[2_000]);
        exchange.outcome = outcome;
        recorder.finish(&exchange, None);
    }
    let tallies = recorder.tallies();
    assert_eq!(tallies.exchanges(), 5);
    assert_eq!(tallies.errors(), 4);
    assert_eq!(tallies.failures[&FailureKind::Timeout], 2);
    assert_eq!(tallies.failures[&FailureKind::Connect], 1);
    assert!(Metric::ALL.iter().all(|&m| recorder.summary(m).is_none()));
}

#[test]
fn without_usage_figures_are_per_delta() {
    let mut recorder = Recorder::new();
    let mut exchange = exchange(1, &[2_000, 2_100, 2_200]);
    exchange.usage = None;
    recorder.finish(&exchange, None);
    assert!(recorder.tallies().per_delta());
    assert_eq!(recorder.tallies().tokens, 3);
}

#[test]
fn what_the_proxy_answered_itself_is_counted() {
    let mut recorder = Recorder::new();
    let mut answered = hop(1, &[1_900]);
    answered.up_written = None;
    recorder.finish(&exchange(1, &[2_000]), Some(&answered));
    let mut overlapped = hop(2, &[1_900]);
    overlapped.overlapped = true;
    recorder.finish(&exchange(2, &[2_000]), Some(&overlapped));
    let tallies = recorder.tallies();
    assert_eq!(
        (
            tallies.joined,
            tallies.answered_by_proxy,
            tallies.overlapped
        ),
        (2, 1, 1)
    );
}

#[test]
fn an_hour_and_more_is_counted_by_figure() {
    let mut recorder = Recorder::new();
    recorder.record(Metric::Ttft, i64::MAX);
    recorder.record(Metric::Ttft, 1);
    assert_eq!(recorder.tallies().saturated[&Metric::Ttft], 1);
    assert_eq!(recorder.summary(Metric::Ttft).unwrap().saturated, 1);
}

#[test]
fn merged_threads_are_one_recorder() {
    let mut halves = [Recorder::new(), Recorder::new()];
    let mut whole = Recorder::new();
    for trace in 0..10u128 {
        let first = 2_000 + 37 * trace as u64;
        let ours = exchange(trace, &[first, first + 100]);
        let theirs = hop(trace, &[first - 50, first + 20]);
        halves[trace as usize % 2].finish(&ours, Some(&theirs));
        whole.finish(&ours, Some(&theirs));
    }
    let [mut merged, other] = halves;
    merged.merge(&other);
    assert_eq!(merged.tallies(), whole.tallies());
    for metric in Metric::ALL {
        assert_eq!(merged.summary(metric), whole.summary(metric), "{metric}");
    }
    merged.reset();
    assert_eq!(merged.tallies(), &Tallies::default());
    assert_eq!(merged.summary(Metric::Ttft), None);
}

#[test]
fn tallies_survive_json() {
    let mut recorder = Recorder::new();
    recorder.record(Metric::Itl, i64::MAX);
    let mut failed = exchange(1, &[]);
    failed.outcome = Outcome::Failed(FailureKind::ServerError);
    recorder.finish(&failed, None);
    recorder.note_unjoined(&Unjoined {
        evicted: 2,
        ..Unjoined::default()
    });
    let json = serde_json::to_string(recorder.tallies()).unwrap();
    assert!(json.contains(r#""failures":{"server_error":1}"#), "{json}");
    assert_eq!(
        &serde_json::from_str::<Tallies>(&json).unwrap(),
        recorder.tallies()
    );
}
