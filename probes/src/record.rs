//! The manifest of a run, `run.json`: everything needed to run it again and to make its report again offline.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::cell::CellStatistics;
use crate::clock::Stamp;
use crate::clocks::ClockRecord;
use crate::conditions::Conditions;
use crate::counters::Counters;
use crate::floor::Floor;
use crate::link::LinkActivity;
use crate::metric::Metric;
use crate::precision::Until;
use crate::recorder::Tallies;
use crate::row::Row;
use crate::sockets::Sockets;
use crate::stats::{Blocks, Change, Statistic, Withheld, change};
use crate::verdict::Warning;

/// The version of `run.json`'s shape.
pub const RUN_SCHEMA: &str = "tokenlag.run/1";

/// The machine that the load generator ran on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    /// Kernel name and release.
    pub kernel: String,
    /// The processor's model name.
    pub cpu_model: String,
    /// Logical cores that the run could use.
    pub cores: u32,
    /// TCP's congestion control.
    pub congestion_control: String,
    /// MTU of the loopback interface, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loopback_mtu: Option<u32>,
}

/// Seeds of everything random in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Seeds {
    /// Prompts, nonces and arrival times.
    pub workload: u64,
    /// The rows' order within the blocks.
    pub order: u64,
    /// The bootstrap behind the intervals.
    pub bootstrap: u64,
}

/// How exactly this run could measure: what was found before it began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Calibration {
    /// What one read of the clock costs, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_read_ns: Option<f64>,
    /// Further findings, by name.
    #[serde(flatten)]
    pub more: BTreeMap<String, serde_json::Value>,
}

/// One row's turn in one block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The block, from 0.
    pub block: u32,
    /// The row.
    pub row: Row,
    /// Which turn of the block this was, from 0.
    pub order: u32,
    /// When its measured part began, in nanoseconds since the run's start. Two cells of a row never begin in the same millisecond.
    pub started_ns: u64,
    /// How long its measured part took, in nanoseconds.
    pub duration_ns: u64,
    /// Where a long cell's figures are in the histogram logs; `None` where they are one interval, at its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<Parts>,
    /// Exact statistics of its figures. Empty where something that was planned did not complete: what is left differs
    /// from the other rows' cells in more than the row.
    pub statistics: CellStatistics,
    /// How many values of each figure the histogram logs hold of it, where `statistics` does not say it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub logged: BTreeMap<Metric, u64>,
    /// Outcomes, tokens, what could not be joined.
    pub tallies: Tallies,
    /// Bytes, connections, CPU time.
    pub counters: Counters,
    /// In a pair: bytes and connections between its two sidecars, as the first of them counts. `None` where this is no
    /// pair, or where nobody counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leg: Option<Counters>,
    /// What the sockets on its way did below their bytes.
    #[serde(default, skip_serializing_if = "Sockets::is_empty")]
    pub sockets: Sockets,
}

/// The intervals of a cell that was written in parts, by the milliseconds since the run's start in which they began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// The first one.
    pub first_ms: u64,
    /// The last one that the manifest knows of.
    pub last_ms: u64,
}

/// The manifest of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`RUN_SCHEMA`].
    pub schema: String,
    /// The subcommand: `compare`, `load`.
    pub command: String,
    /// The command line, word by word, without secrets.
    pub command_line: Vec<String>,
    /// When the run began, RFC 3339, UTC.
    pub started_at: String,
    /// When it ended; `None` while it runs, and for ever where it was interrupted.
    pub ended_at: Option<String>,
    /// The machine.
    pub host: Host,
    /// Versions of what took part, by name.
    pub versions: BTreeMap<String, String>,
    /// The plan, as the command understood it.
    pub plan: serde_json::Value,
    /// Seeds of everything random.
    pub seeds: Seeds,
    /// The schedule set the exchanges' starts, not the replies before them.
    pub open_loop: bool,
    /// What was on, alike for all rows.
    #[serde(default, skip_serializing_if = "Conditions::is_empty")]
    pub conditions: Conditions,
    /// Rows in the order of the tables.
    pub rows: Vec<Row>,
    /// Rows that the others are compared with; those that did not run are passed over.
    pub baselines: Vec<Row>,
    /// What was found before the run began.
    #[serde(default)]
    pub calibration: Calibration,
    /// What physics leaves, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<Floor>,
    /// What the emulated link did, once the run is over; `None` where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkActivity>,
    /// What is known of the clocks of the two ends; `None` where there is no proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clocks: Option<ClockRecord>,
    /// How narrow its intervals were to become, where that was to end it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Until>,
    /// Warnings that only the caller could see, while it ran: the topology, a control that asked another upstream.
    #[serde(default)]
    pub warnings: Vec<Warning>,
    /// Cells in the order in which they ran.
    pub cells: Vec<Cell>,
}

impl RunRecord {
    /// The manifest of a run that begins now; the fields that are not arguments are empty and the caller's to fill.
    pub fn begin(command: &str, started: SystemTime, rows: Vec<Row>) -> Self {
        Self {
            schema: RUN_SCHEMA.to_owned(),
            command: command.to_owned(),
            command_line: Vec::new(),
            started_at: rfc3339(started),
            ended_at: None,
            host: Host::default(),
            versions: BTreeMap::new(),
            plan: serde_json::Value::Null,
            seeds: Seeds::default(),
            open_loop: false,
            conditions: Conditions::default(),
            rows,
            baselines: vec![Row::HTTP_COLD_FULL, Row::HTTP_FULL],
            calibration: Calibration::default(),
            floor: None,
            link: None,
            clocks: None,
            until: None,
            warnings: Vec::new(),
            cells: Vec::new(),
        }
    }

    /// Notes the run's end.
    pub fn end(&mut self, ended: SystemTime) {
        self.ended_at = Some(rfc3339(ended));
    }

    /// The cells of one row, in the order in which they ran.
    pub fn cells_of(&self, row: Row) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(move |cell| cell.row == row)
    }

    /// One figure of one row over the blocks.
    pub fn blocks_of(&self, row: Row, metric: Metric) -> Blocks {
        self.cells_of(row)
            .filter_map(|cell| Some((cell.block, *cell.statistics.get(metric)?)))
            .collect()
    }

    /// A row's counters over all cells.
    pub fn counters_of(&self, row: Row) -> Counters {
        let mut sum = Counters::default();
        for cell in self.cells_of(row) {
            sum.add(&cell.counters);
        }
        sum
    }

    /// What the sockets on a row's way did below their bytes, over all cells.
    pub fn sockets_of(&self, row: Row) -> Sockets {
        let mut sum = Sockets::default();
        for cell in self.cells_of(row) {
            sum.add(&cell.sockets);
        }
        sum
    }

    /// What went between a pair's sidecars over all cells; `None` where that is not known of every one of them.
    pub fn leg_of(&self, row: Row) -> Option<Counters> {
        let mut sum = None;
        for cell in self.cells_of(row) {
            sum.get_or_insert_with(Counters::default)
                .add(cell.leg.as_ref()?);
        }
        sum
    }

    /// How far a row's figures of stamps of both ends may be off, in nanoseconds; `None` where the clock is one.
    pub fn clock_uncertainty_ns(&self, row: Row) -> Option<u64> {
        let clocks = self.clocks.as_ref().filter(|it| it.is_estimated())?;
        let stretch = |cell: &Cell| {
            let started = clocks.started.as_nanos().saturating_add(cell.started_ns);
            let ended = started.saturating_add(cell.duration_ns);
            (Stamp::from_nanos(started), Stamp::from_nanos(ended))
        };
        clocks.uncertainty_within(self.cells_of(row).map(stretch))
    }

    /// How a row's statistic differs from a baseline's over the blocks that both have.
    pub fn change_of(
        &self,
        row: Row,
        baseline: Row,
        metric: Metric,
        statistic: Statistic,
    ) -> Change {
        let (ours, theirs) = (
            self.blocks_of(row, metric),
            self.blocks_of(baseline, metric),
        );
        self.compared(&ours, &theirs, metric, statistic)
    }

    /// The same of blocks that were chosen. Where the two ends have clocks of their own, a one-way figure has no ratio: an
    /// error of the offset that cancels in the difference does not in the ratio.
    pub(crate) fn compared(
        &self,
        row: &Blocks,
        baseline: &Blocks,
        metric: Metric,
        statistic: Statistic,
    ) -> Change {
        let found = change(row, baseline, statistic, self.seeds.bootstrap);
        match self.withholds_ratios(metric) {
            true => found.without_ratio(Withheld::Clocks),
            false => found,
        }
    }

    /// Whether there are no ratios of a figure, since it holds the estimate of an offset.
    pub fn withholds_ratios(&self, metric: Metric) -> bool {
        let estimated = self.clocks.as_ref().is_some_and(ClockRecord::is_estimated);
        metric.is_one_way() && estimated
    }

    /// How long a row was measured, in nanoseconds.
    pub fn measured_ns(&self, row: Row) -> u64 {
        let spans = self.cells_of(row).map(|cell| cell.duration_ns);
        spans.fold(0, u64::saturating_add)
    }

    /// Blocks in which any row ran.
    pub fn block_count(&self) -> usize {
        let blocks: std::collections::BTreeSet<u32> =
            self.cells.iter().map(|cell| cell.block).collect();
        blocks.len()
    }
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_manifest_survives_json_and_names_its_schema() {
        let start = UNIX_EPOCH + Duration::from_millis(1_750_000_000_123);
        let mut record = RunRecord::begin("compare", start, vec![Row::HTTP_FULL]);
        record.calibration.clock_read_ns = Some(21.0);
        let way = Duration::from_millis(20);
        record.floor = Some(Floor::of_link(2 * way, way));
        record.end(start + Duration::from_secs(9));
        assert_eq!(record.started_at, "2025-06-15T15:06:40.123Z");
        let json = serde_json::to_string(&record).unwrap();
        assert!(json.starts_with(r#"{"schema":"tokenlag.run/1""#), "{json}");
        assert_eq!(serde_json::from_str::<RunRecord>(&json).unwrap(), record);
    }
}
