//! Whether the histogram logs hold as many values as the manifest counted: a log that was cut or lost leaves figures
//! that look like any others.

use std::path::Path;

use crate::metric::Metric;
use crate::record::{Cell, RunRecord};
use crate::verdict::Warning;

use super::error::FolderError;
use super::log_name;

/// The code of the warning that the last lines of an interrupted run's log are missing.
pub const INCOMPLETE_LOG: &str = "incomplete_log";

/// Values that were found in the logs, by cell and figure.
pub(super) struct Census(Vec<[u64; Metric::ALL.len()]>);

impl Census {
    /// An empty one of so many cells.
    pub(super) fn of(cells: usize) -> Self {
        Self(vec![[0; Metric::ALL.len()]; cells])
    }

    /// Counts values of the `cell`-th cell.
    pub(super) fn add(&mut self, cell: usize, metric: Metric, values: u64) {
        if let Some(counts) = self.0.get_mut(cell) {
            counts[metric.index()] += values;
        }
    }

    /// Compares with the manifest. Where a run was interrupted, its last cell may be short: the disk need not have
    /// taken the logs' last lines before the manifest. The record then has a warning for each such figure.
    ///
    /// # Errors
    ///
    /// [`FolderError::Count`] names the first log that holds another number of values than it should.
    pub(super) fn check(&self, folder: &Path, record: &mut RunRecord) -> Result<(), FolderError> {
        let mut warnings = Vec::new();
        for (at, (cell, counts)) in record.cells.iter().zip(&self.0).enumerate() {
            let may_be_short = record.ended_at.is_none() && at + 1 == record.cells.len();
            for metric in Metric::ALL {
                let found = counts[metric.index()];
                match expected(cell, metric) {
                    Some(expected) if found < expected && may_be_short => {
                        warnings.push(short(cell, metric, found, expected));
                    }
                    Some(expected) if found != expected => {
                        return Err(FolderError::Count {
                            path: folder.join(log_name(metric)),
                            metric,
                            row: cell.row,
                            block: cell.block,
                            found,
                            expected,
                        });
                    }
                    _ => {}
                }
            }
        }
        record.warnings.extend(warnings);
        Ok(())
    }
}

/// Values of the figure that the logs should hold of a cell; `None` where its manifest does not say.
fn expected(cell: &Cell, metric: Metric) -> Option<u64> {
    let statistics = &cell.statistics;
    if !statistics.0.is_empty() {
        return Some(statistics.get(metric).map_or(0, |figure| figure.count));
    }
    let logged = &cell.logged;
    (!logged.is_empty()).then(|| logged.get(&metric).copied().unwrap_or(0))
}

fn short(cell: &Cell, metric: Metric, found: u64, expected: u64) -> Warning {
    Warning {
        code: INCOMPLETE_LOG.to_owned(),
        message: format!(
            "{} holds {found} of the {expected} values of {metric} of {} in block {}: the run was interrupted, and \
             the rest is not on disk",
            log_name(metric),
            cell.row,
            cell.block
        ),
        remedy: "take the row's figures for what came before, or run again".to_owned(),
    }
}
