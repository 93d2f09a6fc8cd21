//! What a run records, as it goes to disk: recorders, manifest and folder. Knows of no processes and no runtime.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use tokenlag_probes::record::Parts;
use tokenlag_probes::{
    Cell, CellSample, CellStatistics, Clock, ClockBatch, Counters, Metric, MonoClock, Recorder,
    Recorders, Report, Row, RunFolder, RunRecord, Seen, Sockets, Stamp, TakenWakeups, Tallies,
    Unjoined,
};

/// How long a cell goes on until what it left so far is put on disk.
const CHECKPOINT: Duration = Duration::from_secs(2);
/// The manifest is replaced as a whole and grows with each cell, so a run of very many would come to do little else: what a
/// replacement took is let pass so many times before the next.
const SPARING: u32 = 20;

/// A run's record, and the folder that it goes to.
pub struct Ledger {
    record: RunRecord,
    folder: RunFolder,
    recorders: Recorders,
    started: Stamp,
    /// The figures since the last interval was logged; emptied after each, so that its memory is used again.
    part: Recorder,
    /// The figures of the whole cell.
    sample: CellSample,
    open: Option<Open>,
    /// The manifest is not replaced again before.
    rests_until: Stamp,
}

/// The cell that goes on.
struct Open {
    cell: Cell,
    started: Stamp,
    part_started: Stamp,
    /// The manifest names it already.
    listed: bool,
}

/// What is known of a cell when it is over.
pub struct Closing {
    /// When its first session could start.
    pub started: Stamp,
    /// When its last one was home.
    pub ended: Stamp,
    /// Bytes, connections, CPU time.
    pub counters: Counters,
    /// How long what came lay in the kernel, where it was stamped there.
    pub wakeups: TakenWakeups,
    /// What went between the sidecars of a pair.
    pub leg: Option<Counters>,
    /// What the sockets on the row's way did below their bytes.
    pub sockets: Sockets,
    /// What had no partner at the proxy.
    pub unjoined: Unjoined,
    /// Turns that were planned and left no exchange: skipped after a failure, or given up.
    pub missing: u64,
    /// Round trips to the proxy's clock that the manifest has not.
    pub clocks: Vec<ClockBatch>,
    /// Replace the manifest too.
    pub checkpoint: bool,
}

impl Ledger {
    /// An empty one of a run that began at `started`.
    pub fn new(record: RunRecord, folder: RunFolder, started: Stamp) -> Self {
        Self {
            record,
            folder,
            recorders: Recorders::new(),
            started,
            part: Recorder::new(),
            sample: CellSample::default(),
            open: None,
            rests_until: started,
        }
    }

    /// The manifest.
    pub fn record_mut(&mut self) -> &mut RunRecord {
        &mut self.record
    }

    /// A cell starts.
    pub fn cell_starts(&mut self, row: Row, block: u32, order: u32, at: Stamp) {
        self.part.reset();
        self.sample.reset();
        self.open = Some(Open {
            cell: Cell {
                block,
                row,
                order,
                started_ns: nanos(self.started, at),
                duration_ns: 0,
                parts: None,
                statistics: CellStatistics::default(),
                logged: BTreeMap::new(),
                tallies: Tallies::default(),
                counters: Counters::default(),
                leg: None,
                sockets: Sockets::default(),
            },
            started: at,
            part_started: at,
            listed: false,
        });
    }

    /// Takes exchanges of the cell that goes on.
    pub fn enter<'a>(
        &mut self,
        exchanges: impl IntoIterator<Item = impl Into<Seen<'a>>>,
    ) -> anyhow::Result<()> {
        let open = self.open.as_ref().context("no cell was begun")?;
        let (part, sample) = (&mut self.part, &mut self.sample);
        let booked = self
            .folder
            .book_exchanges(open.cell.row, exchanges, part, sample);
        Ok(booked?)
    }

    /// Puts the lines of exchanges on disk that wait for others.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.folder.flush()?)
    }

    /// Puts on disk what the cell left so far, if it has been a while.
    pub fn checkpoint_if_due(&mut self) -> anyhow::Result<()> {
        let now = MonoClock.now();
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        let due = nanos(open.part_started, now) >= CHECKPOINT.as_nanos() as u64;
        if !due || now < self.rests_until || self.part.tallies().exchanges() == 0 {
            return Ok(());
        }
        open.cell.duration_ns = nanos(open.started, now);
        self.log_part(now)?;
        self.list();
        self.replace_manifest()
    }

    /// Puts the manifest on disk as it stands.
    fn replace_manifest(&mut self) -> anyhow::Result<()> {
        let before = MonoClock.now();
        self.folder.checkpoint(&self.record)?;
        let after = MonoClock.now();
        self.rests_until = after + Duration::from_nanos(nanos(before, after)) * SPARING;
        Ok(())
    }

    /// The cell is over, and all of its exchanges were entered.
    pub fn cell_ended(&mut self, closing: Closing) -> anyhow::Result<()> {
        self.part.note_unjoined(&closing.unjoined);
        for &(nanos, reads) in &closing.wakeups.spans {
            for _ in 0..reads {
                self.part.record(Metric::Wakeup, nanos as i64);
                self.sample.record(Metric::Wakeup, nanos as i64);
            }
        }
        let run = self.started;
        let open = self.open.as_mut().context("no cell was begun")?;
        // What was logged already keeps the start that it was logged with.
        if open.cell.parts.is_none() {
            open.part_started = closing.started;
        }
        open.cell.started_ns = nanos(run, closing.started);
        open.cell.duration_ns = nanos(closing.started, closing.ended);
        open.cell.counters = closing.counters;
        open.cell.leg = closing.leg;
        open.cell.sockets = closing.sockets;
        if let Some(clocks) = &mut self.record.clocks {
            clocks.batches.extend(closing.clocks);
        }
        let in_parts = open.listed;
        self.log_part(closing.ended)?;
        self.state_figures(closing.missing);
        if let Some(open) = self.open.as_mut().filter(|_| !in_parts) {
            open.cell.parts = None;
        }
        self.list();
        self.open = None;
        match closing.checkpoint && MonoClock.now() >= self.rests_until {
            true => self.replace_manifest(),
            // It is done at a later cell's end, or at the run's.
            false => Ok(()),
        }
    }

    /// Everything is on disk; makes the report.
    pub fn finish(self) -> anyhow::Result<Report> {
        Ok(self.folder.finish(&self.record, &self.recorders)?)
    }

    /// Logs the figures since the last interval as one of their own.
    fn log_part(&mut self, now: Stamp) -> anyhow::Result<()> {
        let open = self.open.as_mut().context("no cell was begun")?;
        let start = Duration::from_nanos(nanos(self.started, open.part_started));
        let span = Duration::from_nanos(nanos(open.part_started, now));
        self.folder
            .append_interval(open.cell.row, start, span, &self.part)?;
        self.recorders
            .entry(open.cell.row)
            .or_default()
            .merge(&self.part);
        open.cell.tallies.add(self.part.tallies());
        for metric in Metric::ALL {
            let count = self.part.histogram(metric).count();
            if count > 0 {
                *open.cell.logged.entry(metric).or_default() += count;
            }
        }
        let start_ms = start.as_millis() as u64;
        let first_ms = open.cell.parts.map_or(start_ms, |parts| parts.first_ms);
        open.cell.parts = Some(Parts {
            first_ms,
            last_ms: start_ms,
        });
        open.part_started = now;
        self.part.reset();
        Ok(())
    }

    /// Gives the cell its statistics, for the comparison with other rows' cells of its block. One of which a part is
    /// missing has none: its first turns stand for no later ones.
    fn state_figures(&mut self, missing: u64) {
        let Some(open) = &mut self.open else { return };
        let tallies = &open.cell.tallies;
        if missing + tallies.errors() + tallies.cancelled == 0 {
            open.cell.statistics = self.sample.statistics();
            open.cell.logged.clear();
        }
    }

    /// Names the cell in the manifest, as it stands.
    fn list(&mut self) {
        let Some(open) = &mut self.open else { return };
        if open.listed {
            self.record.cells.pop();
        }
        open.listed = true;
        self.record.cells.push(open.cell.clone());
    }
}

fn nanos(from: Stamp, to: Stamp) -> u64 {
    u64::try_from(to.since(from)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use tokenlag_probes::{Exchange, JoinedExchange, Outcome, Place, TokenStamps, TraceId};

    use super::*;

    fn exchange(turn: u32) -> JoinedExchange {
        let at = Stamp::from_nanos;
        let place = Place {
            turn,
            ..Place::default()
        };
        let mut exchange = Exchange::begin(TraceId::from_bits(7), place, at(1_000), at(1_000), 0);
        exchange.end = Some(at(5_000));
        exchange.outcome = Outcome::Complete;
        JoinedExchange {
            exchange,
            hop: None,
        }
    }

    fn closing(started: Stamp, missing: u64) -> Closing {
        Closing {
            started,
            ended: started + Duration::from_micros(8),
            counters: Counters::default(),
            wakeups: TakenWakeups {
                spans: vec![(30_000, 2), (90_000, 1)],
                unstamped: 1,
                forgotten: 0,
            },
            leg: None,
            sockets: Sockets::default(),
            unjoined: Unjoined::default(),
            missing,
            clocks: Vec::new(),
            checkpoint: true,
        }
    }

    fn check(missing: u64, compared: bool) {
        let folder = tempfile::tempdir().unwrap();
        let rows = vec![Row::HTTP_FULL];
        let record = RunRecord::begin("compare", std::time::UNIX_EPOCH, rows);
        let kept = RunFolder::create(folder.path(), &record, TokenStamps::Drop).unwrap();
        let mut ledger = Ledger::new(record, kept, Stamp::from_nanos(1));
        let started = Stamp::from_nanos(500);
        ledger.cell_starts(Row::HTTP_FULL, 0, 0, started);
        ledger.enter(&[exchange(0)]).unwrap();
        ledger.enter(&[exchange(1)]).unwrap();
        ledger.cell_ended(closing(started, missing)).unwrap();
        let cell = &ledger.record.cells[0];
        assert_eq!(cell.statistics.get(Metric::Roundtrip).is_some(), compared);
        let row = ledger.finish().unwrap().channels.remove(0);
        assert_eq!(row.completed, 2);
        assert_eq!(row.metrics[&Metric::Roundtrip].count, 2);
        let wakeup = &row.metrics[&Metric::Wakeup];
        assert_eq!((wakeup.count, wakeup.p50 / 100), (3, 300));
        let back = RunFolder::open(folder.path()).unwrap();
        assert_eq!(back.report().channels[0].completed, 2);
        std::fs::remove_file(folder.path().join("roundtrip.hlog")).unwrap();
        let short = RunFolder::open(folder.path()).unwrap();
        assert_eq!(short.record.warnings.len(), 1, "the log that is gone");
    }

    #[test]
    fn a_cell_that_misses_turns_is_counted_and_not_compared() {
        check(0, true);
        check(1, false);
    }

    #[test]
    fn a_manifest_that_grows_is_replaced_less_often_and_is_whole_in_the_end() {
        use std::os::unix::fs::MetadataExt;

        const CELLS: u32 = 300;
        let folder = tempfile::tempdir().unwrap();
        let rows = vec![Row::HTTP_FULL];
        let record = RunRecord::begin("compare", std::time::UNIX_EPOCH, rows);
        let kept = RunFolder::create(folder.path(), &record, TokenStamps::Drop).unwrap();
        let mut ledger = Ledger::new(record, kept, Stamp::from_nanos(1));
        let manifest = folder.path().join("run.json");
        let mut inode = std::fs::metadata(&manifest).unwrap().ino();
        let mut replaced = Vec::new();
        for block in 0..CELLS {
            let started = Stamp::from_nanos(10_000_000 * u64::from(block + 1));
            ledger.cell_starts(Row::HTTP_FULL, block, 0, started);
            ledger.enter(&[exchange(0)]).unwrap();
            ledger.cell_ended(closing(started, 0)).unwrap();
            let now = std::fs::metadata(&manifest).unwrap().ino();
            if std::mem::replace(&mut inode, now) != now {
                replaced.push(block);
            }
        }
        assert_eq!(replaced.first(), Some(&0));
        assert!(replaced.len() < CELLS as usize / 2, "{replaced:?}");
        ledger.finish().unwrap();
        let back = RunFolder::open(folder.path()).unwrap();
        assert_eq!(back.record.cells.len(), CELLS as usize);
    }
}
