//! Reading a run's folder back: the manifest, and the recorders as they stood at its last checkpoint.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::metric::Metric;
use crate::record::{Cell, Parts, RUN_SCHEMA, RunRecord};
use crate::report::{Recorders, Report};

use super::census::Census;
use super::error::{FolderError, reading};
use super::histogram_log::{self, Interval};
use super::{MANIFEST, hgrm, log_name, parts, percentiles_name};

/// A run that was read back.
#[derive(Clone, Debug)]
pub struct RecordedRun {
    /// Its manifest.
    pub record: RunRecord,
    /// Its merged recorders, by row.
    pub recorders: Recorders,
}

impl RecordedRun {
    /// The report, made again: equal to the one that the run wrote when it ended.
    pub fn report(&self) -> Report {
        Report::build(&self.record, &self.recorders)
    }

    /// The percentile files as the run writes them when it ends, by name.
    pub fn percentiles(&self) -> BTreeMap<String, String> {
        let figures = self.recorders.iter().flat_map(|(row, recorder)| {
            Metric::ALL.into_iter().map(move |metric| {
                let text = hgrm::text(recorder.histogram(metric));
                (percentiles_name(*row, metric), text)
            })
        });
        figures.filter(|(_, text)| !text.is_empty()).collect()
    }
}

pub(super) fn open(folder: &Path) -> Result<RecordedRun, FolderError> {
    let mut record = read_manifest(&folder.join(MANIFEST))?;
    let mut recorders = Recorders::new();
    // Logs are written before the manifest that names their cells: what it does not name came after the last checkpoint.
    let mut cells = Cells::default();
    for (at, cell) in record.cells.iter().enumerate() {
        cells.add(at, cell);
        let recorder = recorders.entry(cell.row).or_default();
        recorder.restore_tallies(&cell.tallies);
    }
    let mut census = Census::of(record.cells.len());
    for metric in Metric::ALL {
        let log = folder.join(log_name(metric));
        for interval in read_log(&log)? {
            let Some(at) = cells.cell_of(&interval) else {
                continue;
            };
            census.add(at, metric, interval.values.len());
            let row = record.cells[at].row;
            let histogram = recorders.entry(row).or_default().histogram_mut(metric);
            let added = match interval.negative {
                true => histogram.add_negative(&interval.values),
                false => histogram.add_positive(&interval.values),
            };
            added.map_err(|error| FolderError::Content {
                path: log.clone(),
                reason: format!("interval of '{}': {error}", interval.row),
            })?;
        }
    }
    census.check(folder, &mut record)?;
    Ok(RecordedRun { record, recorders })
}

/// The manifest's cells, by row and start.
#[derive(Default)]
struct Cells(HashMap<String, BTreeMap<u64, Span>>);

struct Span {
    /// When its last interval began.
    last_ms: u64,
    /// Its place in the manifest.
    at: usize,
}

impl Cells {
    fn add(&mut self, at: usize, cell: &Cell) {
        let Parts { first_ms, last_ms } = parts(cell);
        let of_row = self.0.entry(cell.row.to_string());
        of_row.or_default().insert(first_ms, Span { last_ms, at });
    }

    /// The place of an interval's cell; `None` where it belongs to none.
    fn cell_of(&self, interval: &Interval) -> Option<usize> {
        let spans = self.0.get(&interval.row)?;
        let (_, span) = spans.range(..=interval.start_ms).next_back()?;
        (interval.start_ms <= span.last_ms).then_some(span.at)
    }
}

fn read_manifest(path: &PathBuf) -> Result<RunRecord, FolderError> {
    let content = |reason: String| FolderError::Content {
        path: path.clone(),
        reason,
    };
    let text = fs::read(path).map_err(reading(path))?;
    let record: RunRecord =
        serde_json::from_slice(&text).map_err(|error| content(error.to_string()))?;
    if record.schema != RUN_SCHEMA {
        return Err(content(format!(
            "its schema is '{}', this version reads '{RUN_SCHEMA}'",
            record.schema
        )));
    }
    Ok(record)
}

fn read_log(path: &PathBuf) -> Result<Vec<Interval>, FolderError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        // A figure without values has no log.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(reading(path)(error)),
    };
    histogram_log::parse(&text).map_err(|reason| FolderError::Content {
        path: path.clone(),
        reason,
    })
}
