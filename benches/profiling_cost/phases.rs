//! Stretches of time, the tokens that fell into them, and how late those were.

use tokenlag_probes::Stamp;

use crate::load::Token;
use crate::sidecar::Profiled;

/// With fewer tokens a stretch has no 99th percentile.
const FEWEST: usize = 50;
/// The statistics that are compared.
const STATISTICS: [f64; 2] = [0.5, 0.99];

/// From a moment to a later one.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    pub from: Stamp,
    pub to: Stamp,
}

impl Stretch {
    pub fn nanos(self) -> f64 {
        self.to.since(self.from) as f64
    }
}

/// All phases, in their order.
pub const PHASES: [Phase; 3] = [Phase::Making, Phase::Sampling, Phase::Naming];

/// What goes on while a profile is taken.
#[derive(Clone, Copy, Debug)]
pub enum Phase {
    /// It was asked for, and the sampler makes its tables.
    Making,
    /// The traffic is sampled.
    Sampling,
    /// Names are looked up, tables given back, and the answer is written.
    Naming,
}

pub fn of_phase(profiled: &Profiled, phase: Phase) -> Stretch {
    let (from, to) = match phase {
        Phase::Making => (profiled.asked, profiled.began),
        Phase::Sampling => (profiled.began, profiled.ended),
        Phase::Naming => (profiled.ended, profiled.answered),
    };
    Stretch { from, to }
}

/// p50 and p99 in nanoseconds of the stretch that was left alone, and of the other.
pub struct Compared {
    pub alone_on: [[f64; 2]; 2],
}

/// Both stretches' percentiles over equally many tokens: with fewer, the 99th would be another statistic. `None` where there are
/// too few of them, as between two turns of the load.
pub fn compared(tokens: &[Token], alone: Stretch, on: Stretch) -> Option<Compared> {
    let (alone, on) = (within(tokens, alone), within(tokens, on));
    let count = alone.len().min(on.len());
    if count < FEWEST {
        return None;
    }
    let alone_on = [&alone[..count], &on[..count]].map(percentiles);
    let is_positive = alone_on.iter().flatten().all(|nanos| *nanos > 0.0);
    is_positive.then_some(Compared { alone_on })
}

/// The same of a whole profile whose phases last so long ([`PHASES`], in any unit): each phase has the pair's own tokens, with the
/// weight of its time. `None` where there are too few tokens while it is sampled, or none in another phase.
pub fn whole(
    tokens: &[Token],
    alone: Stretch,
    profiled: &Profiled,
    lasts: [f64; 3],
) -> Option<Compared> {
    let alone = within(tokens, alone);
    let phases = PHASES.map(|phase| within(tokens, of_phase(profiled, phase)));
    let too_few = alone.len().min(phases[1].len()) < FEWEST;
    if too_few || phases.iter().any(|tokens| tokens.is_empty()) {
        return None;
    }
    let mut weighted = Vec::new();
    for (tokens, lasts) in phases.into_iter().zip(lasts) {
        let weight = lasts / tokens.len() as f64;
        weighted.extend(tokens.iter().map(|token| (token.late, weight)));
    }
    let both = [percentiles(alone), weighted_percentiles(weighted)?];
    let is_positive = both.iter().flatten().all(|nanos| *nanos > 0.0);
    is_positive.then_some(Compared { alone_on: both })
}

/// Those of `tokens`, which are in the order of their reads, that the proxy read within a stretch.
pub fn within(tokens: &[Token], stretch: Stretch) -> &[Token] {
    let place = |moment: Stamp| tokens.partition_point(|token| token.read < moment);
    let (from, to) = (place(stretch.from), place(stretch.to));
    tokens.get(from..to).unwrap_or_default()
}

/// By nearest rank.
fn percentiles(tokens: &[Token]) -> [f64; 2] {
    let mut late: Vec<i64> = tokens.iter().map(|token| token.late).collect();
    late.sort_unstable();
    STATISTICS.map(|share| {
        let rank = (share * late.len() as f64).ceil() as usize;
        late[rank.max(1) - 1] as f64
    })
}

/// By nearest rank, where each value counts by its weight. `None` where there is no weight.
fn weighted_percentiles(mut values: Vec<(i64, f64)>) -> Option<[f64; 2]> {
    values.sort_unstable_by_key(|(late, _)| *late);
    let sum: f64 = values.iter().map(|(_, weight)| weight).sum();
    let at = |share: f64| {
        let mut passed = 0.0;
        let found = values.iter().find(|(_, weight)| {
            passed += weight;
            passed >= share * sum
        });
        found.map(|(late, _)| *late as f64)
    };
    Some([at(STATISTICS[0])?, at(STATISTICS[1])?])
}
