//! The report: a pure function from a run's record and histograms to what tables, JSON and HTML show.

mod lateness;
mod price;
mod rows;
mod savings;
mod sockets;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bootstrap::IntervalMethod;
use crate::clocks::{ClockEstimate, ClockRecord};
use crate::conditions::Conditions;
use crate::floor::Floor;
use crate::histogram::{SignedHistogram, Summary};
use crate::join::Unjoined;
use crate::link::LinkActivity;
use crate::metric::Metric;
use crate::precision::Precision;
use crate::record::{Calibration, Host, RunRecord};
use crate::recorder::Recorder;
use crate::row::{ReadStamp, Row};
use crate::stats::{Change, Statistic};
use crate::verdict::Verdict;

pub use lateness::{Merged, TokenLateness};
pub use price::PriceChange;
pub use savings::Saving;
pub use sockets::{DepthReport, SocketReport};

/// The version of `report.json`'s shape.
pub const REPORT_SCHEMA: &str = "tokenlag.report/1";

/// Merged recorders of a run, by row.
pub type Recorders = BTreeMap<Row, Recorder>;

/// What a run found; `report.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`REPORT_SCHEMA`].
    pub schema: String,
    /// The subcommand.
    pub command: String,
    /// The command line, word by word.
    pub command_line: Vec<String>,
    /// When the run began, RFC 3339, UTC.
    pub started_at: String,
    /// When it ended; `None` where it was interrupted.
    pub ended_at: Option<String>,
    /// The machine.
    pub host: Host,
    /// Versions of what took part.
    pub versions: BTreeMap<String, String>,
    /// The plan, as the command understood it.
    pub plan: serde_json::Value,
    /// The schedule set the exchanges' starts.
    pub open_loop: bool,
    /// What was on, alike for all rows.
    #[serde(default)]
    pub conditions: Conditions,
    /// Blocks in which rows took turns.
    pub blocks: u32,
    /// Whether the figures may be trusted, and if not, why.
    pub verdict: Verdict,
    /// How exactly the run could measure.
    pub calibration: ReportCalibration,
    /// What physics leaves, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<Floor>,
    /// What the emulated link did; `None` where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkActivity>,
    /// What is known of the clocks of the two ends; `None` where there is no proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clocks: Option<ClockEstimate>,
    /// How narrow the intervals became; `None` where that was not to end the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// The rows, in the order of the tables.
    pub channels: Vec<RowReport>,
    /// What transport gave and what state gave, for each channel that ran in both states.
    #[serde(default)]
    pub savings: Vec<Saving>,
}

/// How exactly a run could measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportCalibration {
    /// The generator's own lateness over all rows; `None` in a closed loop.
    pub dispatch_lag: Option<Summary>,
    /// What was found before the run began.
    #[serde(flatten)]
    pub found: Calibration,
}

/// One row of the report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowReport {
    /// Channel, state and encoding.
    #[serde(flatten)]
    pub row: Row,
    /// Whether the client's read stamps are exact.
    pub read_stamp: ReadStamp,
    /// Exchanges whose terminal event came.
    pub completed: u64,
    /// Exchanges that went wrong, truncated ones included.
    pub failed: u64,
    /// Exchanges that the client gave up, as at the end of a run.
    pub cancelled: u64,
    /// Failed exchanges by kind, every kind named, and `truncated`.
    pub failures: BTreeMap<String, u64>,
    /// Some reply had no `usage`: figures per token are figures per delta.
    pub per_delta: bool,
    /// Complete exchanges without the proxy's record, by reason.
    pub unjoined: Unjoined,
    /// Distributions, by figure; a figure without values is absent.
    pub metrics: BTreeMap<Metric, Summary>,
    /// Medians and 99th percentiles of the overheads, and of the wire's legs, less the floor; empty where that is not known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub net_of_floor: BTreeMap<Metric, Net>,
    /// How far the figures of stamps of both ends may be off, in nanoseconds; empty where the clock is one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub uncertainty_ns: BTreeMap<Metric, u64>,
    /// Where the lateness of deltas comes from; `None` where it is known of none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_lateness: Option<TokenLateness>,
    /// Everything that belongs to no single exchange, by name.
    pub counters: BTreeMap<String, f64>,
    /// In a pair: what went between its two sidecars, by the names that `counters` has for what went between the load
    /// generator and the first of them. Empty where this is no pair, or where nobody counted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub leg: BTreeMap<String, f64>,
    /// What the sockets on its way did below their bytes: the load generator's (`client`), and those of the proxies to their
    /// clients (`door`) and upstreams (`upstream`), in a pair those of both together.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sockets: BTreeMap<String, SocketReport>,
    /// Changes against the baselines.
    pub versus: Vec<Versus>,
    /// How what a token costs differs from the baselines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub price_versus: Vec<PriceChange>,
}

/// An overhead less what physics leaves, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Net {
    /// Median.
    pub p50: i64,
    /// 99th percentile.
    pub p99: i64,
}

/// One change against one baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Versus {
    /// The baseline row's name.
    pub baseline: String,
    /// The figure.
    pub metric: Metric,
    /// The statistic of each block.
    pub statistic: Statistic,
    /// The change.
    #[serde(flatten)]
    pub change: Change,
    /// The change of what is beyond the floor: of overheads, where the floor is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net_of_floor: Option<Change>,
}

impl Report {
    /// Makes the report. `recorders` are the rows' merged recorders; a row without one is shown without figures.
    pub fn build(record: &RunRecord, recorders: &Recorders) -> Report {
        let mut lag = SignedHistogram::default();
        for recorder in recorders.values() {
            lag.merge(recorder.histogram(Metric::DispatchLag));
        }
        Report {
            schema: REPORT_SCHEMA.to_owned(),
            command: record.command.clone(),
            command_line: record.command_line.clone(),
            started_at: record.started_at.clone(),
            ended_at: record.ended_at.clone(),
            host: record.host.clone(),
            versions: record.versions.clone(),
            plan: record.plan.clone(),
            open_loop: record.open_loop,
            conditions: record.conditions.clone(),
            blocks: record.block_count() as u32,
            verdict: Verdict::reach(record, recorders),
            calibration: ReportCalibration {
                dispatch_lag: lag.summary(),
                found: record.calibration.clone(),
            },
            floor: record.floor,
            link: record.link,
            clocks: record.clocks.as_ref().and_then(ClockRecord::estimate),
            precision: Precision::of(record),
            channels: record
                .rows
                .iter()
                .map(|&row| rows::report(record, row, recorders.get(&row)))
                .collect(),
            savings: savings::of(record),
        }
    }

    /// The report of one row; `None` where it did not run.
    pub fn row(&self, row: Row) -> Option<&RowReport> {
        self.channels.iter().find(|report| report.row == row)
    }
}

impl RowReport {
    /// One change; `None` where the row is not compared so.
    pub fn versus(&self, baseline: &str, metric: Metric, statistic: Statistic) -> Option<&Change> {
        let found = self.comparison(baseline, metric, statistic);
        found.map(|versus| &versus.change)
    }

    /// One change of what is beyond the floor; `None` where the row is not compared so, or no floor is known under the figure.
    pub fn net_versus(
        &self,
        baseline: &str,
        metric: Metric,
        statistic: Statistic,
    ) -> Option<&Change> {
        let found = self.comparison(baseline, metric, statistic);
        found.and_then(|versus| versus.net_of_floor.as_ref())
    }

    fn comparison(&self, baseline: &str, metric: Metric, statistic: Statistic) -> Option<&Versus> {
        self.versus
            .iter()
            .find(|v| v.baseline == baseline && v.metric == metric && v.statistic == statistic)
    }
}

impl Versus {
    /// The interval is by Student's t: too few blocks for a bootstrap.
    pub fn is_rough(&self) -> bool {
        self.change.interval != Some(IntervalMethod::BootstrapT)
    }
}

#[cfg(test)]
mod tests;
