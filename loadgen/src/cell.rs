//! One cell: one row's turn in one block. Sessions start as the schedule says, side by side, and all come home.

use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokenlag_channel::{Channel, Counters};
use tokenlag_probes::{Clock, Exchange, MonoClock, Outcome, Stamp};
use tokio::task::{JoinError, JoinSet, LocalSet, yield_now};
use tokio::time::timeout;

use crate::arrivals::Arrivals;
use crate::gate::Gate;
use crate::pacing::Pacer;
use crate::prompt::Phase;
use crate::schedule::Arrival;
use crate::session::{self, Lane, Prepared, SessionEnd, SessionName, Shared};

/// How long the farewell of a channel may take.
const FAREWELL: Duration = Duration::from_millis(500);
/// Arrivals that are too late are counted so many at a time: replies under way are read in between.
const COUNTED_AT_ONCE: u64 = 256;

/// Which connections sessions use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// Each session opens its own.
    PerSession,
    /// A session takes one that an earlier session left, if there is any.
    Pooled,
    /// All sessions of a cell send over one channel at the same time: one connection where it carries exchanges side by
    /// side, elsewhere a common pool with as many as were needed at once.
    Shared,
}

/// What a cell does.
#[derive(Clone, Copy, Debug)]
pub struct CellPlan {
    /// When sessions start.
    pub arrivals: Arrivals,
    /// Sessions that may run at the same time; further arrivals wait, and their waiting is measured.
    pub concurrency: usize,
    /// Sessions in all; `None`: as many as start within `duration`.
    pub sessions: Option<u64>,
    /// Nothing starts after so long.
    pub duration: Option<Duration>,
    /// Turns of each session.
    pub turns: u32,
    /// Whose connections are used.
    pub connections: Connections,
}

/// Which cell this is.
#[derive(Clone, Copy, Debug)]
pub struct CellName {
    /// Recorded or not.
    pub phase: Phase,
    /// The block.
    pub block: u32,
    /// The cell's turn within its block.
    pub order: u32,
    /// The number of its first session among all of the run's.
    pub first_serial: u64,
}

/// What a cell leaves.
#[derive(Debug, Default)]
pub struct CellEnd {
    /// When its first session could start.
    pub started: Stamp,
    /// When its last one was home.
    pub ended: Stamp,
    /// All finished exchanges, unless a [`Sink`] took them as they came.
    pub exchanges: Vec<Exchange>,
    /// What its channels did.
    pub counters: Counters,
    /// How long what came lay in the kernel, where it was stamped there.
    pub wakeups: tokenlag_probes::TakenWakeups,
    /// Sessions started.
    pub sessions: u64,
    /// Turns not begun because an earlier turn of their session failed.
    pub skipped: u64,
    /// Exchanges given up when the run was stopped.
    pub cancelled: u64,
    /// Arrivals that fell due, and for which there was no place, or no time to prepare them, before the cell's time was over.
    pub not_started: u64,
    /// What went wrong, in words, and how often.
    pub troubles: BTreeMap<String, u64>,
}

/// Who takes what sessions leave, while their cell goes on.
pub trait Sink {
    /// Takes a session's finished exchanges. It is called on the thread that measures: nothing may be computed or
    /// written here.
    fn session_ended(&mut self, exchanges: Vec<Exchange>);
}

impl Sink for Vec<Exchange> {
    fn session_ended(&mut self, exchanges: Vec<Exchange>) {
        self.extend(exchanges);
    }
}

/// Different troubles that are told apart; a run in which everything fails differently needs no more to be understood.
const TROUBLES: usize = 16;

impl CellEnd {
    fn take(&mut self, end: SessionEnd) {
        self.skipped += u64::from(end.skipped);
        self.cancelled += u64::from(end.cancelled);
        if let Some(trouble) = end.trouble
            && (self.troubles.len() < TROUBLES || self.troubles.contains_key(&trouble))
        {
            *self.troubles.entry(trouble).or_default() += 1;
        }
    }

    /// Exchanges that completed.
    pub fn completed(&self) -> usize {
        let complete = |exchange: &&Exchange| exchange.outcome == Outcome::Complete;
        self.exchanges.iter().filter(complete).count()
    }
}

/// Runs one cell to its end, or until the run is stopped, and keeps its exchanges. Needs a current-thread runtime.
pub async fn run(shared: Rc<Shared>, lane: Rc<Lane>, plan: CellPlan, name: CellName) -> CellEnd {
    let mut exchanges = Vec::new();
    let end = run_into(shared, lane, plan, name, &mut exchanges).await;
    CellEnd { exchanges, ..end }
}

/// The same for a cell of any length: each session's exchanges are `sink`'s as soon as it is home.
pub async fn run_into(
    shared: Rc<Shared>,
    lane: Rc<Lane>,
    plan: CellPlan,
    name: CellName,
    sink: &mut impl Sink,
) -> CellEnd {
    let running = Running {
        shared,
        lane,
        plan,
        name,
        sink,
        sessions: JoinSet::new(),
        gate: Rc::default(),
        idle: Vec::new(),
        shared_channel: None,
        farewells: JoinSet::new(),
        end: CellEnd::default(),
    };
    // A local set of its own: when the cell is over, nothing of it runs on.
    LocalSet::new().run_until(running.run()).await
}

struct Running<'a, S> {
    shared: Rc<Shared>,
    lane: Rc<Lane>,
    plan: CellPlan,
    name: CellName,
    sink: &'a mut S,
    sessions: JoinSet<(SessionEnd, Channel)>,
    /// Before what sessions have to do between turns.
    gate: Rc<Gate>,
    /// Channels that are idle and may be used again.
    idle: Vec<Channel>,
    /// The one that all sessions use, where they share.
    shared_channel: Option<Channel>,
    farewells: JoinSet<()>,
    end: CellEnd,
}

impl<S: Sink> Running<'_, S> {
    async fn run(mut self) -> CellEnd {
        // What came before the cell, as while warming up, is none of its own.
        self.lane.endpoint.dial.stamping.take();
        self.end.started = MonoClock.now();
        self.start_sessions().await;
        while self.come_home().await {}
        self.end.ended = MonoClock.now();
        self.end.wakeups = self.lane.endpoint.dial.stamping.take();
        let open = std::mem::take(&mut self.idle).into_iter();
        for channel in open.chain(self.shared_channel.take()) {
            self.close(channel);
        }
        while self.farewells.join_next().await.is_some() {}
        self.end
    }

    async fn start_sessions(&mut self) {
        let clock = MonoClock;
        let pacer = Pacer::new();
        let (seed, block) = (self.shared.prompts.seed, self.name.block);
        let mut schedule = self.plan.arrivals.schedule(seed, block);
        let over = self.plan.duration.map(|span| self.end.started + span);
        let is_over = |at: Stamp| over.is_some_and(|over| at >= over);
        let limit = self.plan.sessions.unwrap_or(u64::MAX);
        while self.end.sessions + self.end.not_started < limit {
            let due = match schedule.next_arrival() {
                Arrival::WhenFree => None,
                Arrival::At(offset) => Some(self.end.started + offset),
            };
            if due.is_some_and(is_over) {
                break;
            }
            if is_over(clock.now()) {
                // The rest of those that were due is counted, until one lies beyond the end.
                if due.is_none() || !self.too_late().await {
                    break;
                }
                continue;
            }
            // Whatever takes time is done before the arrival is due, and before a place is free.
            let prepared = self.prepare(due);
            while self.sessions.len() >= self.plan.concurrency {
                self.come_home().await;
            }
            // Whoever found a place in time starts, even if the wakeup comes after the cell's end.
            let has_time = due.is_some_and(|due| clock.now() < due);
            if let Some(due) = due {
                self.wait(pacer.until(&clock, due)).await;
            }
            // What ended just now leaves its place and its connection to the one that starts.
            while let Some(home) = self.sessions.try_join_next() {
                self.take_home(home);
            }
            if self.shared.stop.is_raised() {
                break;
            }
            if has_time || !is_over(clock.now()) {
                self.start(prepared);
                // It leaves now, and not once the next one is prepared.
                yield_now().await;
            } else if due.is_none() || !self.too_late().await {
                break;
            }
        }
    }

    /// Counts an arrival that can no longer start; `false`: the run was stopped, and no more need be counted.
    async fn too_late(&mut self) -> bool {
        self.end.not_started += 1;
        if self.end.not_started.is_multiple_of(COUNTED_AT_ONCE) {
            yield_now().await;
            while let Some(home) = self.sessions.try_join_next() {
                self.take_home(home);
            }
        }
        !self.shared.stop.is_raised()
    }

    /// The next session, ready to leave.
    fn prepare(&self, due: Option<Stamp>) -> Prepared {
        let name = SessionName {
            phase: self.name.phase,
            block: self.name.block,
            session: self.end.sessions as u32,
            serial: self.name.first_serial + self.end.sessions,
            due,
        };
        session::prepare(&self.shared, &self.lane, name, self.plan.turns)
    }

    fn start(&mut self, prepared: Prepared) {
        self.end.sessions += 1;
        let (shared, lane) = (self.shared.clone(), self.lane.clone());
        let (channel, gate) = (self.channel(), self.gate.clone());
        // The runtime moves a task's future many times before it stays; a boxed one it does not copy.
        self.sessions.spawn_local(Box::pin(async move {
            let end = session::run(&shared, &lane, prepared, &channel, &gate).await;
            (end, channel)
        }));
    }

    /// The channel of a session that starts.
    fn channel(&mut self) -> Channel {
        match self.plan.connections {
            Connections::PerSession => self.lane.channel(),
            Connections::Pooled => self.idle.pop().unwrap_or_else(|| self.lane.channel()),
            Connections::Shared => {
                let shared = &mut self.shared_channel;
                shared.get_or_insert_with(|| self.lane.channel()).clone()
            }
        }
    }

    /// Waits for the arrival that is due next, or for the stop; sessions that end meanwhile come home.
    async fn wait(&mut self, due: impl Future<Output = ()>) {
        let stop = self.shared.stop.clone();
        let mut over = pin!(stop.or(due));
        loop {
            tokio::select! {
                biased;
                _ = &mut over => return,
                Some(home) = self.sessions.join_next() => self.take_home(home),
            }
        }
    }

    /// Waits for one session's end; `false` when none is left.
    async fn come_home(&mut self) -> bool {
        let home = self.sessions.join_next().await;
        let any = home.is_some();
        home.into_iter().for_each(|home| self.take_home(home));
        any
    }

    fn take_home(&mut self, home: Result<(SessionEnd, Channel), JoinError>) {
        let (mut end, channel) = match home {
            Ok(home) => home,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // Nobody cancels a session.
            Err(_) => return,
        };
        self.sink.session_ended(std::mem::take(&mut end.exchanges));
        self.end.take(end);
        match self.plan.connections {
            Connections::Pooled => self.idle.push(channel),
            Connections::PerSession => self.close(channel),
            // Others may still use it.
            Connections::Shared => {}
        }
    }

    /// Says goodbye beside what goes on. A peer that does not answer in time is left without.
    fn close(&mut self, channel: Channel) {
        self.end.counters += channel.counters();
        while self.farewells.try_join_next().is_some() {}
        self.farewells.spawn_local(async move {
            let _ = timeout(FAREWELL, channel.close()).await;
        });
    }
}
