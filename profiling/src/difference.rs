//! What grew and what shrank between two profiles, each with its sampling error.
//!
//! A function's cost is its samples times the CPU time that a sample stands for, over the tokens that were carried meanwhile.
//! The difference of two costs is uncertain by the variances of both counts. Where a sample stands for a fixed time, counts are
//! those of a Poisson process. Where the CPU time of all samples is known and they only share it out, the counts of functions are
//! multinomial: what Poisson counts are once their sum is given (Agresti, Categorical Data Analysis, section 1.2.5). One is added
//! to each for its variance: of a count of none too it is not known that there could have been none but that.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::stacks::{Share, Stacks};

/// Of the normal distribution, for an interval of 95 %.
const Z: f64 = 1.959_964;

/// A profile, and what was done while it was taken.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// The samples.
    pub stacks: &'a Stacks,
    /// CPU time that one of them stands for, in nanoseconds.
    pub period_ns: f64,
    /// What was done: tokens. Above 0.
    pub work: f64,
    /// Where the CPU time of all samples is from.
    pub total: Total,
}

/// Where the CPU time of all of a profile's samples is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Total {
    /// It was booked beside the sampling, and the samples share it out: it has no error of sampling.
    Known,
    /// The samples themselves: more or fewer could have come.
    Sampled,
}

impl Side<'_> {
    /// CPU time of all samples over the work, and how uncertain that is by sampling, both in nanoseconds; 95 %. `None` where it is
    /// known.
    pub fn cost(&self) -> (f64, Option<f64>) {
        let samples = self.stacks.total();
        let is_sampled = self.total == Total::Sampled;
        let error = is_sampled.then(|| Z * self.variance(samples).sqrt());
        (self.of(samples), error)
    }

    /// CPU time of so many samples over the work, in nanoseconds.
    pub(crate) fn of(&self, samples: u64) -> f64 {
        samples as f64 * self.period_ns / self.work
    }

    fn variance(&self, samples: u64) -> f64 {
        let one = self.period_ns / self.work;
        let count = samples as f64 + 1.0;
        let rest = match self.total {
            Total::Sampled => 1.0,
            // Of the other samples one is added too: it is not known either that there could have been none of them.
            Total::Known => 1.0 - count / (self.stacks.total() as f64 + 2.0),
        };
        count * rest * one * one
    }
}

/// A cost on both sides, in nanoseconds of CPU time for each unit of work.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Change {
    /// On the first side.
    pub before_ns: f64,
    /// On the second.
    pub after_ns: f64,
    /// How much more it is on the second.
    pub change_ns: f64,
    /// How far that may be off to either side; 95 %.
    pub error_ns: f64,
}

impl Change {
    /// It is more than sampling makes of nothing.
    pub fn is_clear(&self) -> bool {
        self.change_ns.abs() > self.error_ns
    }

    fn between(before: &Side<'_>, after: &Side<'_>, counts: [u64; 2]) -> Self {
        let (before_ns, after_ns) = (before.of(counts[0]), after.of(counts[1]));
        let variance = before.variance(counts[0]) + after.variance(counts[1]);
        Self {
            before_ns,
            after_ns,
            change_ns: after_ns - before_ns,
            error_ns: Z * variance.sqrt(),
        }
    }
}

/// How a function's cost changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FunctionChange {
    /// Its name.
    pub function: String,
    /// While the CPU was in it.
    pub own: Change,
    /// While the CPU was in it, or in what it called.
    pub total: Change,
}

/// Every function's change from `before` to `after`, the largest of their own first.
pub fn changes(before: &Side<'_>, after: &Side<'_>) -> Vec<FunctionChange> {
    let (first, second) = (before.stacks.functions(), after.stacks.functions());
    let functions: BTreeSet<&str> = first.keys().chain(second.keys()).copied().collect();
    let share = |of: Option<&Share>| of.copied().unwrap_or_default();
    let change = |function: &str| {
        let (first, second) = (share(first.get(function)), share(second.get(function)));
        FunctionChange {
            function: function.to_owned(),
            own: Change::between(before, after, [first.own, second.own]),
            total: Change::between(before, after, [first.total, second.total]),
        }
    };
    let mut changes: Vec<_> = functions.into_iter().map(change).collect();
    let size = |it: &FunctionChange| it.own.change_ns.abs();
    changes.sort_by(|one, other| size(other).total_cmp(&size(one)));
    changes
}

/// How far a share of `samples` may be off to either side, at most: that of a half, at 95 %.
pub fn resolution(samples: u64) -> f64 {
    Z * 0.5 / (samples.max(1) as f64).sqrt()
}

/// The samples from which any share is known to within `resolution`, at 95 %.
pub fn samples_for(resolution: f64) -> u64 {
    // A hair less: what is exactly a whole number shall not be rounded up for the last digit of Z.
    ((Z * 0.5 / resolution).powi(2) - 1e-6).ceil().max(1.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folded;

    const MILLISECOND: f64 = 1e6;

    fn side(stacks: &Stacks, work: f64) -> Side<'_> {
        Side {
            stacks,
            period_ns: MILLISECOND,
            work,
            total: Total::Sampled,
        }
    }

    /// Numbers from 0 to 1, the same in each run.
    fn uniform() -> impl FnMut() -> f64 {
        let mut state = 7u64;
        move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        }
    }

    #[test]
    fn costs_are_of_a_unit_of_work() {
        let before = folded::parse("t;decode 400\nt;recv 100\n").unwrap();
        let after = folded::parse("t;decode 800\nt;send 225\n").unwrap();
        // Twice the work: decoding costs what it did.
        let changes = changes(&side(&before, 100.0), &side(&after, 200.0));
        let of = |name: &str| changes.iter().find(|it| it.function == name).unwrap().own;
        let decode = of("decode");
        assert_eq!(
            (decode.before_ns, decode.after_ns),
            (4.0 * MILLISECOND, 4.0 * MILLISECOND)
        );
        assert!(!decode.is_clear());
        let (send, recv) = (of("send"), of("recv"));
        assert_eq!(send.change_ns, 1.125 * MILLISECOND);
        assert!(send.is_clear() && recv.is_clear());
        assert_eq!(recv.change_ns, -MILLISECOND);
        // sqrt(226 + 4) counts of 5 us, times 1.96.
        let expected = Z * (226.0 * 0.005f64.powi(2) + 0.01f64.powi(2)).sqrt() * MILLISECOND;
        assert!((send.error_ns - expected).abs() < 1.0, "{send:?}");
        assert_eq!(changes[0].function, "send");
        let root = changes.iter().find(|it| it.function == "t").unwrap();
        assert_eq!(root.total.after_ns, 1025.0 / 200.0 * MILLISECOND);
        let (cost, error) = side(&before, 100.0).cost();
        assert_eq!(cost, 5.0 * MILLISECOND);
        assert!((error.unwrap() / cost - Z * 501f64.sqrt() / 500.0).abs() < 1e-9);
    }

    #[test]
    fn intervals_hold_what_they_say() {
        // Two profiles of the same program: of 2,000 pairs of counts some 5 % seem to differ.
        let mut uniform = uniform();
        let mut poisson = |mean: f64| {
            let (mut product, mut count) = (1.0, 0u64);
            let floor = (-mean).exp();
            loop {
                product *= uniform();
                if product <= floor {
                    return count;
                }
                count += 1;
            }
        };
        let mut clear = 0;
        for _ in 0..2_000 {
            let stacks = [0; 2].map(|_| {
                let mut stacks = Stacks::default();
                stacks.add(
                    vec![std::sync::Arc::new(crate::Frame::named("f"))],
                    poisson(30.0),
                );
                stacks
            });
            let changes = changes(&side(&stacks[0], 10.0), &side(&stacks[1], 10.0));
            clear += u32::from(changes.iter().any(|it| it.own.is_clear()));
        }
        assert!((60..130).contains(&clear), "{clear}");
    }

    #[test]
    fn a_total_that_is_known_is_shared_out() {
        let frames = |name: &str| vec![std::sync::Arc::new(crate::Frame::named(name))];
        let mut uniform = uniform();
        let mut drawn = || {
            // Of 200 samples seven in ten are in one function: the rest has what that has not.
            let most = (0..200).filter(|_| uniform() < 0.7).count() as u64;
            let mut stacks = Stacks::default();
            stacks.add(frames("most"), most);
            stacks.add(frames("rest"), 200 - most);
            stacks
        };
        let (mut clear, mut as_sampled) = (0, 0);
        for _ in 0..2_000 {
            let stacks = [drawn(), drawn()];
            let of = |total: Total| {
                let [before, after] = [&stacks[0], &stacks[1]].map(|stacks| Side {
                    total,
                    ..side(stacks, 10.0)
                });
                let changes = changes(&before, &after);
                let most = changes.iter().find(|it| it.function == "most").unwrap();
                u32::from(most.own.is_clear())
            };
            clear += of(Total::Known);
            as_sampled += of(Total::Sampled);
        }
        assert!((60..130).contains(&clear), "{clear}");
        assert!(as_sampled < 10, "{as_sampled}");
        let stacks = drawn();
        let known = Side {
            total: Total::Known,
            ..side(&stacks, 10.0)
        };
        assert_eq!(known.cost(), (20.0 * MILLISECOND, None));
    }

    #[test]
    fn a_resolution_needs_so_many_samples() {
        assert_eq!(samples_for(0.01), 9_604);
        assert_eq!(samples_for(0.05), 385);
        for wanted in [0.5, 0.05, 0.01, 0.002] {
            let samples = samples_for(wanted);
            assert!(resolution(samples) <= wanted * 1.000_1);
            assert!(samples == 1 || resolution(samples - 1) > wanted);
        }
    }
}
