//! A run's folder: what a run leaves on disk while it goes on, and how it is read back.
//!
//! `run.json` (the manifest, replaced whole at each checkpoint) · `exchanges.jsonl` (a line per exchange) · `<metric>.hlog`
//! (an interval per cell, several of a long one) · and, when the run has ended, `<row>.<metric>.hgrm` and `report.json`.

mod census;
mod error;
mod exchange_line;
mod hgrm;
mod histogram_log;
mod object;
mod recorder_log;
mod replay;
mod turns;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;

pub use census::INCOMPLETE_LOG;
pub use error::FolderError;
use error::writing;
use exchange_line::Sums;
pub use recorder_log::recorder_log;
pub use replay::RecordedRun;
pub use turns::Turns;

use crate::cell::CellSample;
use crate::join::Seen;
use crate::metric::Metric;
use crate::record::{Cell, Parts, RunRecord};
use crate::recorder::Recorder;
use crate::report::{Recorders, Report};
use crate::row::Row;

const MANIFEST: &str = "run.json";
const REPORT: &str = "report.json";
const EXCHANGES: &str = "exchanges.jsonl";

/// Lines wait for one another up to so many bytes: a write of each would cost more than the line.
const WAITING_LINES: usize = 64 << 10;

/// Whether each delta's stamps go into `exchanges.jsonl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenStamps {
    /// Only the exchange's own stamps and figures.
    #[default]
    Drop,
    /// Every delta's stamps as well (`--keep-tokens`).
    Keep,
}

/// The folder of a run that goes on.
///
/// Call [`book_exchanges`](Self::book_exchanges) and [`append_interval`](Self::append_interval) after each cell, or
/// each part of a long one, and [`checkpoint`](Self::checkpoint) now and then: a run that is interrupted then reads back
/// up to its last checkpoint. Lines of exchanges may wait until then, or until [`flush`](Self::flush).
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    tokens: TokenStamps,
    started: SystemTime,
    exchanges: BufWriter<File>,
    /// Room for a line of them.
    line: Vec<u8>,
    /// The row that the last ones were of, and its name in them.
    row: Option<(Row, String)>,
    logs: BTreeMap<Metric, File>,
}

impl RunFolder {
    /// Makes the folder, with its parents, and writes the manifest as it stands.
    ///
    /// # Errors
    ///
    /// [`FolderError::Occupied`] where a run lies there already; [`FolderError::Write`] where the disk refuses;
    /// [`FolderError::Content`] where `started_at` is no RFC 3339 time.
    pub fn create(
        path: &Path,
        record: &RunRecord,
        tokens: TokenStamps,
    ) -> Result<Self, FolderError> {
        let started =
            humantime::parse_rfc3339(&record.started_at).map_err(|error| FolderError::Content {
                path: path.join(MANIFEST),
                reason: format!("started_at '{}': {error}", record.started_at),
            })?;
        fs::create_dir_all(path).map_err(writing(path))?;
        let manifest = path.join(MANIFEST);
        if Self::is_at(path) {
            return Err(FolderError::Occupied(path.to_owned()));
        }
        let exchanges = path.join(EXCHANGES);
        let folder = Self {
            path: path.to_owned(),
            tokens,
            started,
            exchanges: BufWriter::with_capacity(
                WAITING_LINES,
                File::create(&exchanges).map_err(writing(&exchanges))?,
            ),
            line: Vec::new(),
            row: None,
            logs: BTreeMap::new(),
        };
        replace_json(&manifest, record)?;
        Ok(folder)
    }

    /// Whether a run lies at `path`.
    pub fn is_at(path: &Path) -> bool {
        path.join(MANIFEST).exists()
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line to `exchanges.jsonl` for each exchange of `row`.
    ///
    /// # Errors
    ///
    /// [`FolderError::Write`].
    pub fn append_exchanges<'a>(
        &mut self,
        row: Row,
        exchanges: impl IntoIterator<Item = impl Into<Seen<'a>>>,
    ) -> Result<(), FolderError> {
        self.append(row, exchanges, |seen, sums| sums.become_those_of(seen))
    }

    /// Adds these lines, and books the exchanges with `recorder` and `sample` as their `finish` does: all three take the
    /// figures as they are derived, once.
    ///
    /// # Errors
    ///
    /// [`FolderError::Write`]; the exchanges from the one that could not be written on may not be booked then.
    pub fn book_exchanges<'a>(
        &mut self,
        row: Row,
        exchanges: impl IntoIterator<Item = impl Into<Seen<'a>>>,
        recorder: &mut Recorder,
        sample: &mut CellSample,
    ) -> Result<(), FolderError> {
        self.append(row, exchanges, |seen, sums| {
            sums.book(seen, recorder, sample);
        })
    }

    fn append<'a>(
        &mut self,
        row: Row,
        exchanges: impl IntoIterator<Item = impl Into<Seen<'a>>>,
        mut fill: impl FnMut(Seen<'a>, &mut Sums),
    ) -> Result<(), FolderError> {
        let keep = self.tokens == TokenStamps::Keep;
        let named = self.row.take().filter(|(of, _)| *of == row);
        let (_, name) = self
            .row
            .insert(named.unwrap_or_else(|| (row, row.to_string())));
        let mut sums = Sums::default();
        let append = || -> io::Result<()> {
            for seen in exchanges {
                let seen: Seen<'a> = seen.into();
                fill(seen, &mut sums);
                let (file, text) = (&mut self.exchanges, &mut self.line);
                exchange_line::write(file, text, name, seen, &sums, keep)?;
            }
            Ok(())
        };
        append().map_err(|cause| self.no_lines(cause))
    }

    /// Writes the lines of exchanges that still wait.
    ///
    /// # Errors
    ///
    /// [`FolderError::Write`].
    pub fn flush(&mut self) -> Result<(), FolderError> {
        let flushed = self.exchanges.flush();
        flushed.map_err(|cause| self.no_lines(cause))
    }

    fn no_lines(&self, cause: io::Error) -> FolderError {
        let path = self.path.join(EXCHANGES);
        FolderError::Write { path, cause }
    }

    /// Adds the histograms of a cell, or of a part of one, to the logs: `recorder` holds these exchanges and no others.
    /// They began `start` after the run and took `duration`.
    ///
    /// # Errors
    ///
    /// [`FolderError::Write`].
    pub fn append_interval(
        &mut self,
        row: Row,
        start: Duration,
        duration: Duration,
        recorder: &Recorder,
    ) -> Result<(), FolderError> {
        for metric in Metric::ALL {
            let histogram = recorder.histogram(metric);
            for (negative, part) in [(false, histogram.positive()), (true, histogram.negative())] {
                let Some(values) = part else { continue };
                let line = histogram_log::line(
                    &row.to_string(),
                    negative,
                    start.as_millis() as u64,
                    duration,
                    &values,
                );
                let path = self.path.join(log_name(metric));
                let log = self.log(metric)?;
                // The whole line in one write, so that an interruption leaves at most one line without its end.
                line.and_then(|line| log.write_all(&line))
                    .map_err(writing(&path))?;
            }
        }
        Ok(())
    }

    /// Replaces `run.json` by the record as it stands, at once or not at all, when all lines of exchanges are written.
    ///
    /// # Errors
    ///
    /// [`FolderError::Write`].
    pub fn checkpoint(&mut self, record: &RunRecord) -> Result<(), FolderError> {
        self.flush()?;
        replace_json(&self.path.join(MANIFEST), record)
    }

    /// Ends the run: the last checkpoint, a percentile file per row and figure, the report. Gives the report.
    ///
    /// # Errors
    ///
    /// [`FolderError::Write`].
    pub fn finish(
        mut self,
        record: &RunRecord,
        recorders: &Recorders,
    ) -> Result<Report, FolderError> {
        // What can be written is, whatever became of the lines.
        let flushed = self.flush();
        replace_json(&self.path.join(MANIFEST), record)?;
        for (row, recorder) in recorders {
            for metric in Metric::ALL {
                let text = hgrm::text(recorder.histogram(metric));
                if !text.is_empty() {
                    let path = self.path.join(percentiles_name(*row, metric));
                    fs::write(&path, text).map_err(writing(&path))?;
                }
            }
        }
        let report = Report::build(record, recorders);
        replace_json(&self.path.join(REPORT), &report)?;
        flushed?;
        Ok(report)
    }

    /// Reads a run back, whether it ended or was interrupted.
    ///
    /// # Errors
    ///
    /// [`FolderError::Read`] and [`FolderError::Content`].
    pub fn open(path: &Path) -> Result<RecordedRun, FolderError> {
        replay::open(path)
    }

    fn log(&mut self, metric: Metric) -> Result<&mut File, FolderError> {
        match self.logs.entry(metric) {
            std::collections::btree_map::Entry::Occupied(log) => Ok(log.into_mut()),
            std::collections::btree_map::Entry::Vacant(vacant) => {
                let path = self.path.join(log_name(metric));
                let open = || -> io::Result<File> {
                    let mut log = OpenOptions::new()
                        .create(true)
                        .write(true)
                        .truncate(true)
                        .open(&path)?;
                    log.write_all(&histogram_log::header(metric, self.started)?)?;
                    Ok(log)
                };
                Ok(vacant.insert(open().map_err(writing(&path))?))
            }
        }
    }
}

/// Interval logs keep milliseconds, so a cell is found again by those in which its intervals began.
fn parts(cell: &Cell) -> Parts {
    let start_ms = cell.started_ns / 1_000_000;
    cell.parts.unwrap_or(Parts {
        first_ms: start_ms,
        last_ms: start_ms,
    })
}

fn log_name(metric: Metric) -> String {
    format!("{metric}.hlog")
}

/// A row's name holds slashes, which no file name does.
fn percentiles_name(row: Row, metric: Metric) -> String {
    format!("{}.{metric}.hgrm", row.to_string().replace('/', "-"))
}

/// Writes beside the file and renames, so that a reader finds the old content or the new, and never a part.
fn replace_json(path: &Path, value: &impl Serialize) -> Result<(), FolderError> {
    let beside = path.with_extension("json.new");
    let write = || -> io::Result<()> {
        let mut file = BufWriter::new(File::create(&beside)?);
        serde_json::to_writer(&mut file, value)?;
        file.write_all(b"\n")?;
        file.into_inner()?.sync_all()
    };
    write().map_err(writing(&beside))?;
    fs::rename(&beside, path).map_err(writing(path))
}

#[cfg(test)]
mod tests;
