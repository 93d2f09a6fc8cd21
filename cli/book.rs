//! Keeping a run's books: what cells leave is fetched, joined and given to the thread that writes it down.

use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokenlag_loadgen::{BaseUrl, CellEnd, CellName, Lane, Observer, Sink};
use tokenlag_probes::{
    Clock, Counters, Exchange, Joined, JoinedExchange, MonoClock, Outcome, Report, Row, Sockets,
    StampSource, TraceId, Transport, Unjoined, clock, join,
};

use crate::admin::{Admin, Fetched};
use crate::clocks::Clocks;
use crate::kept::Kept;
use crate::ledger::{Closing, Ledger};
use crate::legs::{Between, Legs};
use crate::link::Emulated;
use crate::lost::Lost;
use crate::price::Account;
use crate::profile::{Carrier, End, Profiler, RowProfile, Spent};
use crate::progress::Display;
use crate::rig::{Alarm, Sidecar};
use crate::writer::{Entry, Failed, Writer};

/// How long the last stamps may take to come once the run is stopped.
const LAST_FETCH: Duration = Duration::from_millis(500);

/// The books of a run.
pub struct Book {
    desk: Desk,
    handing: Handing,
    /// The cell's exchanges, where they are handed over at its end.
    kept: Kept,
    rows: usize,
    proxy: Option<Proxy>,
    /// The pairs' ways between their proxies.
    legs: Legs,
    display: Rc<Display>,
    alarm: Alarm,
    /// What generator and proxy had used when the cell began.
    before: Account,
    lost: Lost,
    /// The intervals are as narrow as they were to become.
    enough: bool,
    /// Samples both ends, where that was asked for.
    profiler: Option<Profiler>,
}

/// When exchanges are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handing {
    /// When their cell is over: cells are short, and nothing else happens while they last.
    BetweenCells,
    /// As they come, beside the load: a cell may last for hours.
    AsTheyCome,
}

/// Who has the ledger.
enum Desk {
    /// The thread that writes.
    Open(Writer),
    /// Nobody writes any more.
    Closed(Box<Ledger>),
    /// It changes hands.
    Between,
}

/// The proxy whose stamps are fetched.
pub struct Proxy {
    /// Its admin endpoint.
    pub admin: Admin,
    /// Its clock and ours, once they were compared.
    pub clocks: Option<Clocks>,
    /// Its process, where it was started here.
    pub pid: Option<u32>,
    /// The processes that stand before it in pairs.
    pub sidecars: Vec<Sidecar>,
}

impl Proxy {
    /// The processes that carry a row's traffic; none where that of this proxy is not known.
    fn carrying(&self, row: Row) -> Vec<u32> {
        let sidecars = self.sidecars.iter().filter(|it| it.is_for(row));
        let beside = sidecars.map(|it| it.pid);
        match self.pid {
            Some(pid) if row.transport != Transport::Direct => beside.chain([pid]).collect(),
            _ => Vec::new(),
        }
    }

    /// Where those processes say what they used.
    fn admins(&self, row: Row) -> Vec<BaseUrl> {
        let sidecars = self.sidecars.iter().filter(|it| it.is_for(row));
        let beside = sidecars.map(|it| it.admin.clone());
        match self.pid {
            Some(_) if row.transport != Transport::Direct => {
                beside.chain([self.admin.base().clone()]).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Book {
    /// Books over `ledger`, whose run has so many `rows`.
    pub fn open(
        ledger: Ledger,
        rows: usize,
        handing: Handing,
        proxy: Option<Proxy>,
        display: Rc<Display>,
        alarm: Alarm,
        profiler: Option<Profiler>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            desk: Desk::Open(Writer::start(ledger)?),
            handing,
            kept: Kept::default(),
            rows,
            legs: Legs::of(proxy.as_ref().map_or(&[], |proxy| &proxy.sidecars)),
            proxy,
            display,
            alarm,
            before: Account::default(),
            lost: Lost::default(),
            enough: false,
            profiler,
        })
    }

    /// What was sampled up to now, and what of it was cut short, in lines for the user.
    pub fn take_profiles(&mut self) -> (Vec<RowProfile>, Vec<String>) {
        let profiler = self.profiler.take();
        profiler.map_or_else(Default::default, Profiler::into_rows)
    }

    /// Closes the books: everything is on disk, and the report is made.
    pub fn close(
        mut self,
        whole: bool,
        link: Option<Emulated>,
    ) -> anyhow::Result<(Report, Vec<String>)> {
        self.display.clear();
        let told = self.lost.told();
        // Why the writing ended, if it did, was said when it was found.
        let (mut ledger, _) = self.take_ledger()?;
        let record = ledger.record_mut();
        self.lost.note(record);
        if let Some(link) = link {
            record.link = Some(link.did);
            record.warnings.extend(link.doubts);
        }
        if whole {
            record.end(clock::wall_clock());
        }
        Ok((ledger.finish()?, told))
    }

    /// The ledger, and what the thread that had it failed of.
    fn take_ledger(&mut self) -> anyhow::Result<(Ledger, anyhow::Result<()>)> {
        match std::mem::replace(&mut self.desk, Desk::Between) {
            Desk::Open(writer) => writer.finish(),
            Desk::Closed(ledger) => Ok((*ledger, Ok(()))),
            Desk::Between => bail!("the run's books are closed"),
        }
    }

    /// Why the thread that writes has ended.
    fn failure(&mut self) -> anyhow::Error {
        match self.take_ledger() {
            Ok((ledger, written)) => {
                self.desk = Desk::Closed(Box::new(ledger));
                let unknown = || anyhow::anyhow!("the run can no longer be written");
                written.err().unwrap_or_else(unknown)
            }
            Err(error) => error,
        }
    }

    fn give(&mut self, entry: Entry) -> Result<(), Failed> {
        match &self.desk {
            Desk::Open(writer) => writer.give(entry),
            Desk::Closed(_) | Desk::Between => Err(Failed),
        }
    }

    /// The row's turn begins: what generator and the row's proxies used before it.
    async fn open_account(&mut self, lane: &Lane) {
        let row = lane.row;
        let proxy = self.proxy.as_ref();
        let pids = proxy.map_or_else(Vec::new, |proxy| proxy.carrying(row));
        let admins = proxy.map_or_else(Vec::new, |proxy| proxy.admins(row));
        let opened = Account::opened(&pids, &admins, lane.endpoint.dial.stamping.watch());
        let opened = self.alarm.stop.or_within(LAST_FETCH, opened).await;
        self.before = opened.unwrap_or_default();
    }

    /// The row's turn is over: enters what it cost, and gives what the sockets on its way did below their bytes, and the CPU time of
    /// each end.
    async fn close_account(&mut self, lane: &Lane, counters: &mut Counters) -> (Sockets, Spent) {
        let row = lane.row;
        let proxy = self.proxy.as_ref();
        let pids = proxy.map_or_else(Vec::new, |proxy| proxy.carrying(row));
        let after = Account::now(&pids, lane.endpoint.dial.stamping.watch());
        let admins = proxy.map_or_else(Vec::new, |proxy| proxy.admins(row));
        let closed = after.clone().closed(&admins);
        let closed = self.alarm.stop.or_within(LAST_FETCH, closed).await;
        let after = closed.unwrap_or(after);
        let sockets = after.enter_since(&self.before, counters);
        let spent = Spent {
            client_ns: counters.client_cpu_ns,
            proxies: after.proxies_since(&self.before).unwrap_or_default(),
        };
        (sockets, spent)
    }

    fn counters(lane: &Lane, end: &CellEnd) -> Counters {
        let channels = end.counters;
        let encrypted = lane.endpoint.dial.tls.is_some();
        let by_kernel = lane.endpoint.dial.stamping.source() == StampSource::Kernel;
        let if_stamped = |count: u64| by_kernel.then_some(count);
        let if_encrypted = |count: u64| encrypted.then_some(count);
        let is_quic = lane.row.transport.is_encrypted_always();
        let if_quic = |count: u64| is_quic.then_some(count);
        Counters {
            wire_bytes_sent: Some(channels.bytes_sent),
            wire_bytes_received: Some(channels.bytes_received),
            channel_bytes_sent: Some(channels.channel_bytes_sent),
            channel_bytes_received: Some(channels.channel_bytes_received),
            reads: Some(channels.reads),
            kernel_stamps: if_stamped(end.wakeups.stamped()),
            kernel_stamps_missing: if_stamped(end.wakeups.unstamped),
            kernel_stamps_forgotten: if_stamped(end.wakeups.forgotten),
            writes: Some(channels.writes),
            connections_opened: Some(channels.connections_opened),
            // A connection counts as opened when its handshake is over.
            handshakes_made: if_encrypted(channels.connections_opened),
            handshakes_resumed: if_encrypted(channels.handshakes_resumed),
            early_data_accepted: if_encrypted(channels.early_data_accepted),
            packets_lost: if_quic(channels.datagrams.lost),
            congestion_events: if_quic(channels.datagrams.congestion_events),
            congestion_windows: if_quic(channels.datagrams.congestion_windows),
            ..Counters::default()
        }
    }

    /// The proxies that carry a row.
    fn carriers(&self, row: Row) -> Vec<Carrier> {
        let Some(proxy) = &self.proxy else {
            return Vec::new();
        };
        let beside = proxy.sidecars.iter().filter(|it| it.is_for(row));
        let sidecar = |it: &Sidecar| Carrier {
            end: End::Sidecar,
            admin: it.admin.clone(),
            pid: Some(it.pid),
        };
        let mut carriers: Vec<Carrier> = beside.map(sidecar).collect();
        if row.transport != Transport::Direct {
            carriers.push(Carrier {
                end: End::Proxy,
                admin: proxy.admin.base().clone(),
                pid: proxy.pid,
            });
        }
        carriers
    }

    /// What went between the row's sidecars; `None` where there are none, or they do not tell before the run is stopped.
    async fn between_sidecars(&mut self, row: Row) -> anyhow::Result<Option<Between>> {
        let end = self.legs.end(row, complete(self.kept.exchanges()));
        let ended = self.alarm.stop.or_within(LAST_FETCH, end).await;
        Ok(ended.transpose()?.flatten())
    }

    /// The row's turn begins, or is over: asks the proxy for the time, where its clock is not ours.
    async fn ask_the_time(&mut self, row: Row, is_over: bool) -> anyhow::Result<()> {
        let clocks = self.proxy.as_mut().and_then(|it| it.clocks.as_mut());
        let Some(clocks) = clocks.filter(|_| row.transport != Transport::Direct) else {
            return Ok(());
        };
        let asked = async {
            match is_over {
                true => clocks.cell_ended().await,
                false => clocks.cell_starts().await,
            }
        };
        // A run that is stopped has what was known before.
        let asked = self.alarm.stop.or_within(LAST_FETCH, asked).await;
        asked.transpose().map(|_| ())
    }

    /// Joins a cell's exchanges with the proxy's records of them, where the row goes through a proxy that we can ask.
    async fn joined(&mut self, row: Row, end: &CellEnd) -> anyhow::Result<Joined> {
        self.kept.within()?;
        let mut exchanges = self.kept.take();
        if self.handing == Handing::AsTheyCome {
            // They are written down already: what is kept was for counting.
            exchanges.clear();
        }
        match &mut self.proxy {
            Some(proxy) if row.transport != Transport::Direct => {
                let fetch = proxy.admin.fetch(complete(&exchanges));
                let fetched = self.alarm.stop.or_within(LAST_FETCH, fetch).await;
                let Fetched { hops, evicted } = fetched.transpose()?.unwrap_or_default();
                let mut joined = join(exchanges, hops, evicted);
                if let Some(clocks) = &proxy.clocks {
                    clocks.move_onto_ours(&mut joined, end.started, end.ended);
                }
                Ok(joined)
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
}

/// Notes how long each delta was in the sidecar beside the load generator; what went between the two is left.
fn note_sidecar(mut between: Between, joined: &mut Joined) -> Counters {
    for JoinedExchange { exchange, .. } in &mut joined.exchanges {
        let spans = between.sidecar.remove(&exchange.trace);
        exchange.sidecar = Some(spans.unwrap_or_default());
    }
    between.counters
}

/// What is left of exchanges that are written down already: as much as their tokens are counted by.
fn counted(exchanges: &[Exchange]) -> Vec<Exchange> {
    let counted = exchanges.iter().map(|it| {
        let mut counted = Exchange::begin(it.trace, it.place, it.intended, it.dispatched, 0);
        counted.usage = it.usage;
        counted.outcome = it.outcome;
        if it.usage.is_none() {
            counted.tokens.clone_from(&it.tokens);
        }
        counted
    });
    counted.collect()
}

/// The exchanges that the proxies have in their books too, or will have in a moment.
fn complete(exchanges: &[Exchange]) -> HashSet<TraceId> {
    let complete = exchanges
        .iter()
        .filter(|exchange| exchange.outcome == Outcome::Complete);
    complete.map(|exchange| exchange.trace).collect()
}

impl Sink for Book {
    fn finished(&mut self, exchanges: Vec<Exchange>) {
        match self.handing {
            Handing::BetweenCells => {
                // The cell's end will say why.
                if self.kept.add(exchanges).is_err() {
                    self.alarm.stopper.stop();
                }
            }
            Handing::AsTheyCome if exchanges.is_empty() => {}
            Handing::AsTheyCome => {
                if self.profiler.is_some() && self.kept.add(counted(&exchanges)).is_err() {
                    self.alarm.stopper.stop();
                }
                // The cell's end will say why; until then there is no use in going on.
                if self.give(Entry::Finished(exchanges)).is_err() {
                    self.alarm.stopper.stop();
                }
            }
        }
    }

    fn spent(&mut self) -> Vec<Exchange> {
        match &self.desk {
            Desk::Open(writer) => writer.spent(),
            Desk::Closed(_) | Desk::Between => Vec::new(),
        }
    }
}

impl Observer for Book {
    type Error = anyhow::Error;

    async fn cell_starts(&mut self, lane: &Lane, name: &CellName) -> anyhow::Result<()> {
        let carriers = self.carriers(lane.row);
        self.display
            .stage(&format!("block {} {}", name.block + 1, lane.row));
        let asked = self.ask_the_time(lane.row, false).await;
        asked.context("the run cannot go on")?;
        let starts = Entry::CellStarts {
            row: lane.row,
            block: name.block,
            order: name.order,
            at: MonoClock.now(),
        };
        self.give(starts).map_err(|Failed| self.failure())?;
        let begin = self.legs.begin(lane.row);
        // A run that is stopped measures nothing more.
        let begun = self.alarm.stop.or_within(LAST_FETCH, begin).await;
        begun.transpose()?;
        if let Some(profiler) = &mut self.profiler {
            let begun = self
                .alarm
                .stop
                .or_within(LAST_FETCH, profiler.begin(&carriers));
            let begun = begun.await;
            begun.transpose().context("the run cannot go on")?;
        }
        self.open_account(lane).await;
        // What has to be asked has been: the client is sampled while the row has its turn alone.
        if let Some(profiler) = &mut self.profiler {
            let gone = self.alarm.stop.or_within(LAST_FETCH, profiler.go());
            gone.await.transpose().context("the run cannot go on")?;
        }
        Ok(())
    }

    async fn cell_ended(
        &mut self,
        lane: &Lane,
        name: &CellName,
        end: CellEnd,
    ) -> anyhow::Result<()> {
        let row = lane.row;
        let mut counters = Self::counters(lane, &end);
        if let Some(profiler) = &mut self.profiler {
            let halted = self.alarm.stop.or_within(LAST_FETCH, profiler.halt());
            halted.await.transpose().context("the run cannot go on")?;
        }
        let (sockets, spent) = self.close_account(lane, &mut counters).await;
        let carriers = self.carriers(row);
        if let Some(profiler) = &mut self.profiler {
            let over = profiler.end(row, self.kept.exchanges(), &carriers, &spent);
            let over = self.alarm.stop.or_within(LAST_FETCH, over).await;
            over.transpose().context("the run cannot go on")?;
        }
        self.lost.add(row, &end);
        let asked = self.ask_the_time(row, true).await;
        asked.context("the run cannot go on")?;
        let leg = self
            .between_sidecars(row)
            .await
            .context("the run cannot go on")?;
        let mut joined = self
            .joined(row, &end)
            .await
            .context("the run cannot go on")?;
        let leg = leg.map(|between| note_sidecar(between, &mut joined));
        let clocks = self.proxy.as_mut().and_then(|it| it.clocks.as_mut());
        let closing = Closing {
            started: end.started,
            ended: end.ended,
            counters,
            wakeups: end.wakeups,
            leg,
            sockets,
            unjoined: joined.unjoined,
            missing: end.skipped + end.cancelled + end.not_started,
            clocks: clocks.map_or_else(Vec::new, Clocks::news),
            checkpoint: name.order as usize + 1 == self.rows,
        };
        let mut written = self.give(Entry::Joined(joined.exchanges));
        if let (Ok(()), Desk::Open(writer)) = (&written, &self.desk) {
            written = writer
                .end_cell(closing)
                .await
                .map(|enough| self.enough = enough);
        }
        written.map_err(|Failed| self.failure())
    }

    fn is_enough(&self) -> bool {
        match &self.profiler {
            Some(profiler) => profiler.is_enough(),
            None => self.enough,
        }
    }
}
