//! Reading a run's folder back: the manifest, and the recorders as they stood at its last checkpoint.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::metric::Metric;
use crate::record::{RUN_SCHEMA, RunRecord};
use crate::report::{Recorders, Report};
use crate::row::Row;

use super::error::{FolderError, reading};
use super::histogram_log::{self, Interval};
use super::{MANIFEST, log_name, start_ms};

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
}

pub(super) fn open(folder: &Path) -> Result<RecordedRun, FolderError> {
    let record = read_manifest(&folder.join(MANIFEST))?;
    let mut recorders = Recorders::new();
    // Logs are written before the manifest that names their cells: what it does not name came after the last checkpoint.
    let mut cells: HashMap<(String, u64), Row> = HashMap::new();
    for cell in &record.cells {
        cells.insert((cell.row.to_string(), start_ms(cell)), cell.row);
        let recorder = recorders.entry(cell.row).or_default();
        recorder.restore_tallies(&cell.tallies);
    }
    for metric in Metric::ALL {
        for interval in read_log(&folder.join(log_name(metric)))? {
            let key = (interval.row, interval.start_ms);
            let Some(row) = cells.get(&key) else { continue };
            let histogram = recorders.entry(*row).or_default().histogram_mut(metric);
            match interval.negative {
                true => histogram.add_negative(&interval.values),
                false => histogram.add_positive(&interval.values),
            }
        }
    }
    Ok(RecordedRun { record, recorders })
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
