//! What a run's profiles say, as one value: for the table, for `profile.json`, and for the files beside it.

use serde::Serialize;
use tokenlag_probes::{Row, Verdict};
use tokenlag_profiling::difference::{FunctionChange, Total, changes, resolution, samples_for};
use tokenlag_profiling::{Side, Stacks, tidy};

use super::row::RowProfile;
use super::sampling::{End, Wanted};
use crate::args::profile::Sampler;

/// The form of `profile.json`.
const SCHEMA: &str = "tokenlag.profile/1";
/// Functions that are listed of each profile.
const FUNCTIONS: usize = 40;

/// Profiles and what follows from them.
pub struct Summary {
    wanted: Wanted,
    baseline: Option<Row>,
    verdict: Verdict,
    pub profiles: Vec<Profile>,
}

/// One end's profile of one row.
pub struct Profile {
    pub row: Row,
    pub end: End,
    pub stacks: Stacks,
    tokens: u64,
    run_ns: f64,
    /// CPU time that a sample stands for.
    period: Period,
}

/// CPU time that a sample stands for, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Period {
    /// By the CPU time that the system booked.
    Booked(f64),
    /// By the sampler's rate, which it keeps: perf has a timer of its own.
    Kept(f64),
    /// By the sampler's rate, of which less may come: as many of one channel's samples stand for more than of another's.
    Asked(f64),
}

impl Period {
    fn ns(self) -> f64 {
        match self {
            Self::Booked(ns) | Self::Kept(ns) | Self::Asked(ns) => ns,
        }
    }
}

/// What is shown of all of them.
#[derive(Debug, Serialize)]
pub struct Shown {
    schema: &'static str,
    pub sampler: Sampler,
    /// Samples in a second of CPU time, as they were asked for.
    pub hertz: f64,
    /// How far any function's share was to be off at most.
    pub resolution_wanted: f64,
    /// What the others are compared with.
    pub baseline: Option<String>,
    pub rows: Vec<ShownRow>,
    pub differences: Vec<ShownDifference>,
    /// Whether the run is to be trusted.
    pub verdict: Verdict,
}

/// A row's profiles.
#[derive(Debug, Serialize)]
pub struct ShownRow {
    pub row: String,
    pub tokens: u64,
    pub ends: Vec<ShownEnd>,
}

/// One profile.
#[derive(Debug, Serialize)]
pub struct ShownEnd {
    pub end: End,
    pub samples: u64,
    /// Samples of whose stack nothing is known: beyond 200,000 different ones, or lost by perf on its way to the file. What never
    /// became a sample is not known and not in it, nor is what a proxy that samples itself left out.
    pub lost: u64,
    /// CPU time for each token; `None` where no token came, or the system does not tell what this process used for the row: fewer
    /// samples come than were asked for, and not equally fewer of each channel.
    pub cpu_ns_per_token: Option<f64>,
    /// How far that may be off by sampling, to either side; 95 %. `None` where the system booked it.
    pub error_ns: Option<f64>,
    /// How far any function's share may be off; 95 %. `None` without samples.
    pub resolution: Option<f64>,
    /// How long such a run must take for what was wanted; `None` where it is reached, or without samples.
    pub needs_s: Option<f64>,
    /// The functions that the CPU was in most, and how often.
    pub functions: Vec<ShownFunction>,
    pub files: Vec<String>,
}

/// A function of a profile.
#[derive(Debug, Serialize)]
pub struct ShownFunction {
    function: String,
    own_samples: u64,
    total_samples: u64,
}

/// What changed from the baseline to another row, at one end.
#[derive(Debug, Serialize)]
pub struct ShownDifference {
    pub row: String,
    pub end: End,
    pub baseline: String,
    /// The functions whose own time changed most.
    pub functions: Vec<FunctionChange>,
    pub file: String,
}

impl Summary {
    /// Of what was sampled; with all frames where they are wanted `raw`.
    pub fn of(
        rows: &[RowProfile],
        verdict: &Verdict,
        wanted: Wanted,
        baseline: Option<Row>,
        raw: bool,
    ) -> Self {
        let mut profiles = Vec::new();
        for row in rows {
            for (end, stacks) in &row.ends {
                let booked = row.booked_ns(*end);
                profiles.push(Profile {
                    row: row.row,
                    end: *end,
                    stacks: if raw { stacks.clone() } else { tidy(stacks) },
                    tokens: row.tokens,
                    run_ns: row.run_ns,
                    period: period(booked, wanted),
                });
            }
        }
        profiles.sort_by_key(|profile| profile.end);
        Self {
            wanted,
            baseline,
            verdict: verdict.clone(),
            profiles,
        }
    }

    /// Samples in a second of CPU time, as they were asked for.
    fn hertz(&self) -> f64 {
        self.wanted.hertz()
    }

    /// Ends that have samples and tokens but no price, as nothing was booked for them.
    pub fn unpriced(&self) -> Vec<End> {
        let has_both = |it: &&Profile| it.tokens > 0 && it.stacks.total() > 0 && !it.is_priced();
        let mut ends: Vec<End> = (self.profiles.iter().filter(has_both))
            .map(|profile| profile.end)
            .collect();
        // The profiles are in the order of their ends.
        ends.dedup();
        ends
    }

    /// Pairs of a baseline's profile and another row's, where both can be compared.
    pub fn pairs(&self) -> impl Iterator<Item = (&Profile, &Profile)> {
        let others =
            (self.profiles.iter()).filter(|it| Some(it.row) != self.baseline && it.is_priced());
        others.filter_map(|other| {
            let first = |it: &&Profile| {
                Some(it.row) == self.baseline && it.end == other.end && it.is_priced()
            };
            Some((self.profiles.iter().find(first)?, other))
        })
    }

    /// The CPU time of a profile, over what was carried.
    pub fn side<'a>(&self, profile: &'a Profile) -> Side<'a> {
        Side {
            stacks: &profile.stacks,
            period_ns: profile.period.ns(),
            work: profile.tokens as f64,
            total: match profile.period {
                Period::Booked(_) => Total::Known,
                Period::Kept(_) | Period::Asked(_) => Total::Sampled,
            },
        }
    }

    /// All of it in words and numbers.
    pub fn shown(&self) -> Shown {
        let mut rows: Vec<ShownRow> = Vec::new();
        for profile in &self.profiles {
            let row = profile.row.to_string();
            let end = self.end(profile);
            match rows.iter_mut().find(|shown| shown.row == row) {
                Some(shown) => shown.ends.push(end),
                None => rows.push(ShownRow {
                    row,
                    tokens: profile.tokens,
                    ends: vec![end],
                }),
            }
        }
        let difference = |(first, other): (&Profile, &Profile)| {
            let mut functions = changes(&self.side(first), &self.side(other));
            functions.truncate(FUNCTIONS);
            ShownDifference {
                row: other.row.to_string(),
                end: other.end,
                baseline: first.row.to_string(),
                functions,
                file: other.difference_file(),
            }
        };
        Shown {
            schema: SCHEMA,
            sampler: self.wanted.sampler,
            hertz: self.hertz(),
            resolution_wanted: self.wanted.resolution,
            baseline: self.baseline.map(|row| row.to_string()),
            rows,
            differences: self.pairs().map(difference).collect(),
            verdict: self.verdict.clone(),
        }
    }

    fn end(&self, profile: &Profile) -> ShownEnd {
        let samples = profile.stacks.total();
        let cost = profile.is_priced().then(|| self.side(profile).cost());
        let enough = samples_for(self.wanted.resolution);
        let needs = profile.run_ns / 1e9 * enough as f64 / samples as f64;
        let mut functions: Vec<ShownFunction> = (profile.stacks.functions().into_iter())
            .map(|(function, share)| ShownFunction {
                function: function.to_owned(),
                own_samples: share.own,
                total_samples: share.total,
            })
            .collect();
        functions.sort_by_key(|it| std::cmp::Reverse(it.own_samples));
        functions.truncate(FUNCTIONS);
        ShownEnd {
            end: profile.end,
            samples,
            lost: profile.stacks.lost(),
            cpu_ns_per_token: cost.map(|(cost, _)| cost),
            error_ns: cost.and_then(|(_, error)| error),
            resolution: (samples > 0).then(|| resolution(samples)),
            needs_s: (samples > 0 && samples < enough).then_some(needs),
            functions,
            files: match samples {
                0 => Vec::new(),
                _ => profile.files().to_vec(),
            },
        }
    }
}

fn period(booked_ns: Option<f64>, wanted: Wanted) -> Period {
    let asked_ns = 1e9 / wanted.hertz();
    match (booked_ns, wanted.sampler) {
        (Some(ns), _) => Period::Booked(ns),
        (None, Sampler::Perf) => Period::Kept(asked_ns),
        (None, Sampler::Own) => Period::Asked(asked_ns),
    }
}

impl Profile {
    /// There is something whose price per token can be told.
    fn is_priced(&self) -> bool {
        let is_known = !matches!(self.period, Period::Asked(_));
        is_known && self.tokens > 0 && self.stacks.total() > 0
    }

    /// Samples in a second of CPU time, as they came; as they were asked for where nothing was booked.
    pub fn hertz(&self) -> f64 {
        match self.period.ns() {
            ns if ns > 0.0 => 1e9 / ns,
            _ => 1e9,
        }
    }

    /// What its files' names begin with.
    fn stem(&self) -> String {
        format!(
            "{}.{}",
            self.row.to_string().replace('/', "-"),
            self.end.name()
        )
    }

    /// Flamegraph, folded stacks, pprof's protobuf.
    pub fn files(&self) -> [String; 3] {
        ["svg", "folded", "pb.gz"].map(|kind| format!("{}.{kind}", self.stem()))
    }

    /// The flamegraph of its difference from the baseline.
    pub fn difference_file(&self) -> String {
        format!("{}.diff.svg", self.stem())
    }
}
