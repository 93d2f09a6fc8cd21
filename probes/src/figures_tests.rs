//! Figures of hand-made exchanges, and the property that the legs make up the first token.

use proptest::prelude::*;

use super::*;
use crate::exchange::{FailureKind, Usage};
use crate::samples::{at, exchange, hop, values};

#[track_caller]
fn check(exchange: &Exchange, hop: Option<&HopExchange>, metric: Metric, expected: &[i64]) {
    assert_eq!(values(exchange, hop, metric), expected, "{metric}");
}

const FROM_BOTH_ENDS: [Metric; 12] = [
    Metric::ModelTtft,
    Metric::ModelTime,
    Metric::FirstTokenOverhead,
    Metric::TokenOverhead,
    Metric::RoundtripOverhead,
    Metric::GapStretch,
    Metric::GapBunch,
    Metric::RequestTransfer,
    Metric::ProxyRequest,
    Metric::ProxyToken,
    Metric::Delivery,
    Metric::TtftVisible,
];

#[test]
fn every_figure_of_one_exchange_by_hand() {
    let ours = exchange(1, &[2_000, 2_110, 2_200]);
    let theirs = hop(1, &[1_900, 2_000, 2_100]);
    let hop = Some(&theirs);
    check(&ours, hop, Metric::Ttft, &[1_000]);
    check(&ours, hop, Metric::TtftDispatched, &[1_000]);
    check(&ours, hop, Metric::Itl, &[110, 90]);
    check(&ours, hop, Metric::Tpot, &[100]);
    check(&ours, hop, Metric::Roundtrip, &[1_250]);
    check(&ours, hop, Metric::RoundtripDispatched, &[1_250]);
    check(&ours, hop, Metric::ModelTtft, &[670]);
    check(&ours, hop, Metric::ModelTime, &[890]);
    check(&ours, hop, Metric::FirstTokenOverhead, &[330]);
    check(&ours, hop, Metric::TokenOverhead, &[110, 100]);
    check(&ours, hop, Metric::RoundtripOverhead, &[360]);
    check(&ours, hop, Metric::GapStretch, &[10]);
    check(&ours, hop, Metric::GapBunch, &[10]);
    check(&ours, hop, Metric::Setup, &[100]);
    check(&ours, hop, Metric::RequestTransfer, &[110]);
    check(&ours, hop, Metric::ProxyRequest, &[20]);
    check(&ours, hop, Metric::ProxyToken, &[10]);
    check(&ours, hop, Metric::Delivery, &[90]);
    check(&ours, hop, Metric::DispatchLag, &[]);
    check(&ours, hop, Metric::TtftVisible, &[]);
}

#[test]
fn an_open_loop_anchors_at_the_schedule_and_overheads_do_not() {
    let mut ours = exchange(1, &[2_000, 2_100]);
    ours.intended = at(400);
    let theirs = hop(1, &[1_900, 2_000]);
    check(&ours, Some(&theirs), Metric::DispatchLag, &[600]);
    check(&ours, Some(&theirs), Metric::Ttft, &[1_600]);
    check(&ours, Some(&theirs), Metric::TtftDispatched, &[1_000]);
    check(&ours, Some(&theirs), Metric::Roundtrip, &[1_750]);
    check(&ours, Some(&theirs), Metric::FirstTokenOverhead, &[330]);
}

#[test]
fn without_the_other_end_there_is_no_overhead() {
    let ours = exchange(1, &[2_000, 2_100]);
    let mut answered = hop(1, &[1_900, 2_000]);
    answered.up_written = None;
    let mut overlapped = hop(1, &[1_900, 2_000]);
    overlapped.overlapped = true;
    for hop in [None, Some(&answered), Some(&overlapped)] {
        for metric in FROM_BOTH_ENDS {
            check(&ours, hop, metric, &[]);
        }
        check(&ours, hop, Metric::Ttft, &[1_000]);
        check(&ours, hop, Metric::Setup, &[100]);
    }
}

#[test]
fn what_is_not_complete_has_no_latency() {
    let theirs = hop(1, &[1_900, 2_000]);
    for outcome in [
        Outcome::Truncated,
        Outcome::Cancelled,
        Outcome::Failed(FailureKind::Timeout),
    ] {
        let mut ours = exchange(1, &[2_000, 2_100]);
        ours.outcome = outcome;
        for metric in Metric::ALL {
            check(&ours, Some(&theirs), metric, &[]);
        }
    }
}

#[test]
fn a_reply_without_deltas_has_a_roundtrip_and_no_first_token() {
    let ours = exchange(1, &[]);
    check(&ours, None, Metric::Ttft, &[]);
    check(&ours, None, Metric::Roundtrip, &[550]);
    check(&ours, None, Metric::Tpot, &[]);
}

#[test]
fn time_per_output_token_counts_by_usage() {
    let mut ours = exchange(1, &[2_000, 2_100, 2_200]);
    ours.usage = Some(Usage {
        output: 5,
        ..Usage::default()
    });
    check(&ours, None, Metric::Tpot, &[50]);
    ours.usage = None;
    check(&ours, None, Metric::Tpot, &[100]);
    ours.usage = Some(Usage {
        output: 1,
        ..Usage::default()
    });
    check(&ours, None, Metric::Tpot, &[]);
    // All tokens in one delta: nothing was waited for.
    check(&exchange(1, &[2_000]), None, Metric::Tpot, &[]);
}

#[test]
fn the_first_visible_token_is_kept_apart_from_the_first_of_any_kind() {
    let mut ours = exchange(1, &[2_000, 2_100, 2_200]);
    ours.tokens[0].kind = DeltaKind::Reasoning;
    check(&ours, None, Metric::Ttft, &[1_000]);
    check(&ours, None, Metric::TtftVisible, &[1_100]);
    ours.tokens[1].kind = DeltaKind::Tool;
    ours.tokens[2].kind = DeltaKind::Tool;
    check(&ours, None, Metric::TtftVisible, &[]);
}

#[test]
fn negative_values_are_handed_on_as_they_are() {
    let ours = exchange(1, &[2_000, 2_100]);
    let theirs = hop(1, &[1_900, 2_130]);
    check(&ours, Some(&theirs), Metric::TokenOverhead, &[-30]);
}

proptest! {
    #[test]
    fn legs_sum_to_the_first_token(
        steps in prop::array::uniform8(-1_000_000i64..1_000_000_000),
        open_loop in 0u64..1_000_000,
    ) {
        let base = 10_000_000_000u64;
        let mut moment = base;
        let mut next = |step: i64| {
            moment = moment.saturating_add_signed(step);
            at(moment)
        };
        let mut ours = exchange(1, &[1, 2]);
        let mut theirs = hop(1, &[1, 2]);
        ours.intended = at(base - open_loop);
        ours.dispatched = at(base);
        ours.connected = Some(next(steps[0]));
        theirs.in_head = next(steps[1]);
        theirs.in_body = next(steps[2]);
        theirs.up_written = Some(next(steps[3]));
        theirs.up_token[0] = next(steps[4]);
        theirs.out_token[0] = next(steps[5]);
        ours.tokens[0].at = next(steps[6]);
        ours.tokens[1].at = next(steps[7]);
        let sum: i64 = Metric::LEGS
            .into_iter()
            .flat_map(|leg| {
                let leg = values(&ours, Some(&theirs), leg);
                assert_eq!(leg.len(), 1);
                leg
            })
            .sum();
        prop_assert_eq!(values(&ours, Some(&theirs), Metric::TtftDispatched), vec![sum]);
    }

    #[test]
    fn gaps_are_stretched_or_bunched_and_never_both(
        ours in prop::collection::vec(2_000u64..9_000, 2..20),
        theirs in prop::collection::vec(2_000u64..9_000, 20),
    ) {
        let theirs = hop(1, &theirs[..ours.len()]);
        let ours = exchange(1, &ours);
        let of = |metric| values(&ours, Some(&theirs), metric);
        let (stretched, bunched) = (of(Metric::GapStretch), of(Metric::GapBunch));
        prop_assert_eq!(stretched.len() + bunched.len(), ours.tokens.len() - 1);
        let drift: i64 = stretched.iter().sum::<i64>() - bunched.iter().sum::<i64>();
        let last = ours.tokens.len() - 1;
        let span = ours.tokens[last].at.since(ours.tokens[0].at);
        let up_span = theirs.up_token[last].since(theirs.up_token[0]);
        prop_assert_eq!(drift, span - up_span);
        prop_assert!(bunched.iter().all(|&nanos| nanos > 0));
    }

    #[test]
    fn however_many_deltas_each_has_its_figures_in_order(
        ours in prop::collection::vec(0u64..1 << 40, 0..3 * TOGETHER + 2),
        theirs in prop::collection::vec(0u64..1 << 40, 0..3 * TOGETHER + 2),
    ) {
        let gap = |stamps: &[u64], k: usize| stamps[k] as i64 - stamps[k - 1] as i64;
        let both = 1..ours.len().min(theirs.len()).max(1);
        let itl: Vec<i64> = (1..ours.len()).map(|k| gap(&ours, k)).collect();
        let late: Vec<i64> = both.clone().map(|k| ours[k] as i64 - theirs[k] as i64).collect();
        let spreads = || both.clone().map(|k| gap(&ours, k) - gap(&theirs, k));
        let stretched: Vec<i64> = spreads().filter(|&nanos| nanos >= 0).collect();
        let bunched: Vec<i64> = spreads().filter(|&nanos| nanos < 0).map(|nanos| -nanos).collect();
        let (ours, theirs) = (exchange(1, &ours), hop(1, &theirs));
        let of = |metric| values(&ours, Some(&theirs), metric);
        prop_assert_eq!(of(Metric::Itl), itl);
        prop_assert_eq!(of(Metric::TokenOverhead), late);
        prop_assert_eq!(of(Metric::GapStretch), stretched);
        prop_assert_eq!(of(Metric::GapBunch), bunched);
    }
}
