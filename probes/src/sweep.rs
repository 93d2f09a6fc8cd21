//! A sweep: one comparison after another under conditions that differ, and what each of them found in short; `sweep.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::floor::Floor;
use crate::metric::Metric;
use crate::report::{Report, RowReport, Versus};
use crate::row::Row;
use crate::stats::Statistic;

/// The version of `sweep.json`'s shape.
pub const SWEEP_SCHEMA: &str = "tokenlag.sweep/1";

/// Figures whose medians stand in short: what a comparison is about, and the legs.
const SHOWN: [Metric; 10] = [
    Metric::Ttft,
    Metric::ModelTtft,
    Metric::FirstTokenOverhead,
    Metric::TokenOverhead,
    Metric::RoundtripOverhead,
    Metric::Setup,
    Metric::RequestTransfer,
    Metric::ProxyRequest,
    Metric::ProxyToken,
    Metric::Delivery,
];

/// All comparisons of a sweep, in the order in which they run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// [`SWEEP_SCHEMA`].
    pub schema: String,
    /// The command line, word by word, without secrets.
    pub command_line: Vec<String>,
    /// When it began, RFC 3339, UTC.
    pub started_at: String,
    /// When it ended; `None` while it runs, and for ever where it was interrupted.
    pub ended_at: Option<String>,
    /// The comparisons.
    pub cases: Vec<SweepCase>,
}

/// One comparison of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepCase {
    /// Its place in the sweep, from 1.
    pub number: u32,
    /// The flags in which the comparisons differ, and what they were here.
    pub values: BTreeMap<String, String>,
    /// The name of its run's folder, beside `sweep.json`.
    pub folder: String,
    /// Its exit code; `None` where it has not run, or was killed.
    pub exit: Option<i32>,
    /// What it found; `None` where it left no report.
    pub found: Option<Found>,
}

/// What a comparison found, in short. Its own folder has everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Whether its figures may be trusted.
    pub trusted: bool,
    /// The codes of the warnings that speak against it, each once, in the order in which they first come.
    pub warnings: Vec<String>,
    /// Blocks in which rows took turns.
    pub blocks: u32,
    /// What physics leaves, where it is known.
    pub floor: Option<Floor>,
    /// The rows, in the order of the tables.
    pub channels: Vec<RowFound>,
}

/// One row of a comparison, in short.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowFound {
    /// Channel, state and encoding.
    #[serde(flatten)]
    pub row: Row,
    /// Exchanges whose terminal event came.
    pub completed: u64,
    /// Exchanges that went wrong.
    pub failed: u64,
    /// Medians of the overheads, the legs, `ttft` and `model_ttft`, in nanoseconds.
    pub p50_ns: BTreeMap<Metric, i64>,
    /// Medians of the overheads and the wire's legs less the floor, in nanoseconds.
    pub net_p50_ns: BTreeMap<Metric, i64>,
    /// Changes of medians against the baselines.
    pub versus: Vec<Versus>,
}

impl Found {
    /// The short form of a report.
    pub fn of(report: &Report) -> Self {
        let mut warnings: Vec<String> = Vec::new();
        for warning in &report.verdict.warnings {
            if !warnings.contains(&warning.code) {
                warnings.push(warning.code.clone());
            }
        }
        Self {
            trusted: report.verdict.trusted,
            warnings,
            blocks: report.blocks,
            floor: report.floor,
            channels: report.channels.iter().map(RowFound::of).collect(),
        }
    }
}

impl RowFound {
    fn of(row: &RowReport) -> Self {
        let medians = (row.metrics.iter())
            .filter(|(metric, _)| SHOWN.contains(metric))
            .map(|(metric, summary)| (*metric, summary.p50));
        let net = row
            .net_of_floor
            .iter()
            .map(|(metric, net)| (*metric, net.p50));
        let versus = row
            .versus
            .iter()
            .filter(|it| it.statistic == Statistic::P50);
        Self {
            row: row.row,
            completed: row.completed,
            failed: row.failed,
            p50_ns: medians.collect(),
            net_p50_ns: net.collect(),
            versus: versus.cloned().collect(),
        }
    }

    /// One comparison; `None` where the row is not compared so.
    pub fn versus(&self, baseline: &str, metric: Metric) -> Option<&Versus> {
        let is_it = |it: &&Versus| it.baseline == baseline && it.metric == metric;
        self.versus.iter().find(is_it)
    }
}

impl SweepCase {
    /// Its values of the flags that differ, joined: its name in tables.
    pub fn label(&self) -> String {
        let values: Vec<&str> = self.values.values().map(String::as_str).collect();
        values.join("/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Warning;
    use crate::samples::{RowSketch, run};

    #[test]
    fn each_code_stands_once_wherever_its_warnings_do() {
        let row = RowSketch {
            row: Row::HTTP_FULL,
            request: 100,
            delta: 60,
            model: (5_000, 1_000),
        };
        let (record, recorders) = run(&[row], 2);
        let mut report = Report::build(&record, &recorders);
        let warning = |code: &str| Warning {
            code: code.to_owned(),
            message: String::new(),
            remedy: String::new(),
        };
        report.verdict.warnings = ["b", "a", "b", "a", "a"].map(warning).to_vec();
        assert_eq!(Found::of(&report).warnings, ["b", "a"]);
    }
}
