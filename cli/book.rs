//! Keeping a run's books, between cells and outside of what is measured: fetch, join, record, write.

use std::collections::BTreeMap;
use std::rc::Rc;

use anyhow::Context;
use tokenlag_loadgen::{CellEnd, CellName, Lane, Observer};
use tokenlag_probes::{
    Cell, CellSample, Counters, Joined, JoinedExchange, Outcome, Recorder, Recorders, Report, Row,
    RunFolder, RunRecord, Stamp, Transport, Unjoined, Warning, clock, join,
};

use crate::admin::{Admin, Fetched};
use crate::cpu::Usage;
use crate::progress::Display;

/// Kinds of trouble that are told to the user, at most.
const TROUBLES_TOLD: usize = 5;

/// The books of a run.
pub struct Book {
    record: RunRecord,
    folder: RunFolder,
    recorders: Recorders,
    started: Stamp,
    proxy: Option<Proxy>,
    display: Rc<Display>,
    /// One cell's figures; emptied after each, so that its memory is used again.
    cell: Recorder,
    sample: CellSample,
    /// What generator and proxy had used when the cell began.
    before: [Option<Usage>; 2],
    lost: Lost,
    troubles: BTreeMap<(Row, String), u64>,
}

/// The proxy whose stamps are fetched.
pub struct Proxy {
    /// Its admin endpoint.
    pub admin: Admin,
    /// Its process, where it runs on this host.
    pub pid: Option<u32>,
}

/// What was planned and not done.
#[derive(Clone, Copy, Debug, Default)]
struct Lost {
    skipped: u64,
    not_started: u64,
    cancelled: u64,
}

impl Book {
    /// Books that begin now.
    pub fn open(
        record: RunRecord,
        folder: RunFolder,
        started: Stamp,
        proxy: Option<Proxy>,
        display: Rc<Display>,
    ) -> Self {
        Self {
            record,
            folder,
            recorders: Recorders::new(),
            started,
            proxy,
            display,
            cell: Recorder::new(),
            sample: CellSample::default(),
            before: [None; 2],
            lost: Lost::default(),
            troubles: BTreeMap::new(),
        }
    }

    /// Passes over what the proxy recorded so far.
    pub async fn skip_past(&mut self) -> anyhow::Result<()> {
        match &mut self.proxy {
            Some(proxy) => proxy.admin.skip().await,
            None => Ok(()),
        }
    }

    /// Closes the books: everything is on disk, and the report is made.
    pub fn close(mut self, whole: bool) -> anyhow::Result<(Report, Vec<String>)> {
        self.display.clear();
        self.note_lost();
        if whole {
            self.record.end(clock::wall_clock());
        }
        let told = self.told();
        let report = self.folder.finish(&self.record, &self.recorders)?;
        Ok((report, told))
    }

    /// What went wrong, in lines for the user, the most frequent first.
    fn told(&self) -> Vec<String> {
        let mut troubles: Vec<_> = self.troubles.iter().collect();
        troubles.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let mut lines: Vec<String> = troubles
            .iter()
            .take(TROUBLES_TOLD)
            .map(|((row, what), count)| format!("{row}: {count} x {what}"))
            .collect();
        if troubles.len() > TROUBLES_TOLD {
            lines.push(format!(
                "... and {} more kinds of trouble",
                troubles.len() - TROUBLES_TOLD
            ));
        }
        let Lost {
            skipped,
            not_started,
            cancelled,
        } = self.lost;
        for (count, what) in [
            (
                skipped,
                "turns were not begun, because an earlier turn of their session failed",
            ),
            (
                not_started,
                "sessions fell due and were not started, because no place was free in time",
            ),
            (
                cancelled,
                "exchanges were given up when the run was stopped",
            ),
        ] {
            if count > 0 {
                lines.push(format!("{count} {what}"));
            }
        }
        lines
    }

    fn note_lost(&mut self) {
        let Lost {
            skipped,
            not_started,
            cancelled,
        } = self.lost;
        let more = &mut self.record.calibration.more;
        for (name, count) in [
            ("turns_skipped", skipped),
            ("sessions_not_started", not_started),
            ("exchanges_given_up", cancelled),
        ] {
            if count > 0 {
                more.insert(name.to_owned(), count.into());
            }
        }
        if not_started > 0 {
            self.record.warnings.push(Warning {
                code: "arrivals_not_started".to_owned(),
                message: format!(
                    "{not_started} sessions fell due and were never started: the load was more than could be carried"
                ),
                remedy: "lower --request-rate, or raise --concurrency".to_owned(),
            });
        }
    }

    fn usages(&self) -> [Option<Usage>; 2] {
        let proxy = self.proxy.as_ref().and_then(|proxy| proxy.pid);
        [Usage::of(std::process::id()), proxy.and_then(Usage::of)]
    }

    fn counters(&self, row: Row, channels: tokenlag_channel::Counters) -> Counters {
        let after = self.usages();
        let spent = |who: usize| Some(after[who]?.since(&self.before[who]?));
        let (client, proxy) = (
            spent(0),
            spent(1).filter(|_| row.transport != Transport::Direct),
        );
        Counters {
            wire_bytes_sent: Some(channels.bytes_sent),
            wire_bytes_received: Some(channels.bytes_received),
            reads: Some(channels.reads),
            writes: Some(channels.writes),
            connections_opened: Some(channels.connections_opened),
            client_cpu_ns: client.map(|(cpu, ..)| cpu),
            client_run_queue: client.map(|(_, queue, _)| queue),
            client_context_switches: client.map(|(.., switches)| switches),
            proxy_cpu_ns: proxy.map(|(cpu, ..)| cpu),
            proxy_run_queue: proxy.map(|(_, queue, _)| queue),
            proxy_context_switches: proxy.map(|(.., switches)| switches),
            ..Counters::default()
        }
    }

    /// Joins a cell's exchanges with the proxy's records of them, where the row goes through a proxy that we can ask.
    async fn joined(&mut self, row: Row, end: &mut CellEnd) -> anyhow::Result<Joined> {
        let exchanges = std::mem::take(&mut end.exchanges);
        match &mut self.proxy {
            Some(proxy) if row.transport != Transport::Direct => {
                let complete = exchanges
                    .iter()
                    .filter(|exchange| exchange.outcome == Outcome::Complete);
                let wanted = complete.map(|exchange| exchange.trace).collect();
                let Fetched { hops, evicted } = proxy.admin.fetch(wanted).await?;
                Ok(join(exchanges, hops, evicted))
            }
            _ => Ok(Joined {
                exchanges: exchanges
                    .into_iter()
                    .map(|exchange| JoinedExchange {
                        exchange,
                        hop: None,
                    })
                    .collect(),
                unjoined: Unjoined::default(),
                foreign: 0,
            }),
        }
    }

    fn enter(&mut self, joined: &Joined) {
        self.cell.reset();
        self.sample.reset();
        for JoinedExchange { exchange, hop } in &joined.exchanges {
            self.cell.finish(exchange, hop.as_ref());
            self.sample.finish(exchange, hop.as_ref());
        }
        self.cell.note_unjoined(&joined.unjoined);
    }

    fn write(&mut self, cell: Cell, joined: &Joined, checkpoint: bool) -> anyhow::Result<()> {
        let row = cell.row;
        self.folder.append_exchanges(row, &joined.exchanges)?;
        self.folder.append_cell(&cell, &self.cell)?;
        self.recorders.entry(row).or_default().merge(&self.cell);
        self.record.cells.push(cell);
        if checkpoint {
            self.folder.checkpoint(&self.record)?;
        }
        Ok(())
    }
}

impl Observer for Book {
    type Error = anyhow::Error;

    async fn cell_starts(&mut self, lane: &Lane, name: &CellName) -> anyhow::Result<()> {
        self.display
            .stage(&format!("block {} {}", name.block + 1, lane.row));
        self.before = self.usages();
        Ok(())
    }

    async fn cell_ended(
        &mut self,
        lane: &Lane,
        name: &CellName,
        mut end: CellEnd,
    ) -> anyhow::Result<()> {
        let row = lane.row;
        let counters = self.counters(row, end.counters);
        self.lost.skipped += end.skipped;
        self.lost.not_started += end.not_started;
        self.lost.cancelled += end.cancelled;
        for (trouble, count) in std::mem::take(&mut end.troubles) {
            *self.troubles.entry((row, trouble)).or_default() += count;
        }
        let joined = self
            .joined(row, &mut end)
            .await
            .context("the run cannot go on")?;
        self.enter(&joined);
        let nanos = |from: Stamp, to: Stamp| u64::try_from(to.since(from)).unwrap_or(0);
        let cell = Cell {
            block: name.block,
            row,
            order: name.order,
            started_ns: nanos(self.started, end.started),
            duration_ns: nanos(end.started, end.ended),
            statistics: self.sample.statistics(),
            tallies: self.cell.tallies().clone(),
            counters,
        };
        let last_of_block = name.order as usize + 1 == self.record.rows.len();
        self.write(cell, &joined, last_of_block)
    }
}
