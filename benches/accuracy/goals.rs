//! The goals on two cores, direct over HTTP/1.1, and what is said of each: met, missed, or missed by the machine, which the
//! raw-socket client beside it shows.

use std::time::Duration;

use tokenlag_probes::StampSource;

use crate::cell::Cell;
use crate::tally::Found;
use crate::truth::Glance;

/// The mean error of ttft, and the 99th percentile of the gaps, at most; in milliseconds.
struct Goal {
    streams: u32,
    gap: Duration,
    ttft: f64,
    ttft_by_kernel: f64,
    gap_p99: f64,
}

const GOALS: [Goal; 2] = [
    Goal {
        streams: 64,
        gap: Duration::from_millis(1),
        ttft: 0.25,
        ttft_by_kernel: 0.05,
        gap_p99: 1.8,
    },
    Goal {
        streams: 1_000,
        gap: Duration::from_millis(20),
        ttft: 3.0,
        ttft_by_kernel: 3.0,
        gap_p99: 22.0,
    },
];

/// What the author of vllm-bench published of this cell, on four cores: no goal, and no measurement of ours.
const PUBLISHED: (u32, Duration, &str) = (
    1_000,
    Duration::from_millis(10),
    "vllm-bench published 28 and 11.3 ms, on 4 cores",
);

/// Who is above the raw-socket client by less than this share of the goal is at the floor.
const NEAR: f64 = 0.1;

/// A figure in milliseconds, beside its goal and the raw-socket client's.
struct Figure {
    ours: f64,
    raw: f64,
    /// What the instrument itself emitted to tokenlag, where the figure has such a thing.
    emitted: Option<f64>,
    goal: f64,
    /// By how much the median round was above what any client would have had, ours and the raw-socket client's.
    above: (f64, f64),
}

/// What is to be said of a cell, direct over HTTP/1.1, if there is a goal for it.
pub fn said_of(cell: Cell, stamp: StampSource, ours: &Found, raw: &Found) -> Vec<String> {
    let name = cell.name();
    let (ttft, told) = (
        ours.errors.ttft.mean / 1e6,
        ours.errors.gap_measured.p99 / 1e6,
    );
    if (cell.streams, cell.gap) == (PUBLISHED.0, PUBLISHED.1) {
        let (raw_ttft, raw_told) = (
            raw.errors.ttft.mean / 1e6,
            raw.errors.gap_measured.p99 / 1e6,
        );
        let line = format!(
            "{name}, direct, http: mean ttft error {ttft:.3} ms, gap p99 {told:.3} ms (raw-socket client beside it {raw_ttft:.3} and {raw_told:.3}; {})",
            PUBLISHED.2
        );
        return vec![line];
    }
    let goal = GOALS
        .iter()
        .find(|goal| (goal.streams, goal.gap) == (cell.streams, cell.gap));
    let Some(goal) = goal else {
        return Vec::new();
    };
    let above = |of: fn(&Glance) -> f64| (median(&ours.rounds, of), median(&raw.rounds, of));
    let ttft = Figure {
        ours: ttft,
        raw: raw.errors.ttft.mean / 1e6,
        emitted: None,
        goal: match stamp {
            StampSource::User => goal.ttft,
            StampSource::Kernel => goal.ttft_by_kernel,
        },
        above: above(|round| round.ttft),
    };
    let gap = Figure {
        ours: told,
        raw: raw.errors.gap_measured.p99 / 1e6,
        emitted: Some(ours.errors.gap_true.p99 / 1e6),
        goal: goal.gap_p99,
        above: above(|round| round.told - round.emitted),
    };
    let lost = ours.errors.lost + ours.errors.unanswered;
    let kept = if lost == 0 { "met" } else { "missed" };
    vec![
        format!("{name}, direct, http: mean ttft error {}", ttft.said()),
        format!("{name}, direct, http: gap p99 {}", gap.said()),
        format!("{name}, direct, http: {lost} lost (goal 0): {kept}"),
    ]
}

impl Figure {
    fn said(&self) -> String {
        let emitted = self
            .emitted
            .map_or_else(String::new, |it| format!(", emitted {it:.3}"));
        let (ours, raw) = self.above;
        let what = match self.emitted {
            Some(_) => "told less emitted",
            None => "error",
        };
        format!(
            "{:.3} ms (goal {}; raw-socket client beside it {:.3}{emitted}): {}; {what}, median of the rounds: {ours:.3}, raw-socket client {raw:.3}",
            self.ours,
            self.goal,
            self.raw,
            self.verdict()
        )
    }

    fn verdict(&self) -> &'static str {
        let (ours, raw) = self.above;
        let machine =
            self.raw > self.goal || self.emitted.is_some_and(|emitted| emitted > self.goal);
        let at_the_floor = ours <= raw + NEAR * self.goal;
        match (self.ours <= self.goal, machine, at_the_floor) {
            (true, ..) => "met",
            (false, true, true) => "missed by the machine, at the floor",
            (false, true, false) => "missed, by the machine too, and above the floor",
            (false, false, _) => "missed",
        }
    }
}

/// In milliseconds.
fn median(rounds: &[Glance], of: fn(&Glance) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(of).collect();
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = values.get(middle).copied().unwrap_or_default();
    let lower = values
        .get(values.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or_default();
    (lower + upper) / 2.0 / 1e6
}
