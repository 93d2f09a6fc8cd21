//! One cell: one row's turn in one block. Sessions start as the schedule says, side by side, and all come home.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokenlag_channel::{Channel, Counters};
use tokenlag_probes::{Clock, Exchange, MonoClock, Outcome, Stamp};
use tokio::task::{JoinError, JoinSet, LocalSet};
use tokio::time::timeout;

use crate::arrivals::Arrivals;
use crate::gate::Gate;
use crate::places::Places;
use crate::prompt::Phase;
use crate::session::{Lane, SessionEnd, Shared};

/// How long the farewell of a channel may take.
const FAREWELL: Duration = Duration::from_millis(500);

/// Which connections sessions use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// Each session opens its own.
    PerSession,
    /// A session takes one that an earlier session left, if there is any.
    Pooled,
    /// All sessions of a cell send over one channel at the same time: one connection where it carries exchanges side by
    /// side (a WebSocket those of sixteen sessions), elsewhere a common pool with as many as were needed at once.
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
    /// Takes the finished exchanges of a session, or of several that ended together. It is called on the thread that measures:
    /// nothing may be computed or written here.
    fn finished(&mut self, exchanges: Vec<Exchange>);

    /// Some of what was taken, once nobody needs it any more: others are begun in its memory.
    fn spent(&mut self) -> Vec<Exchange> {
        Vec::new()
    }
}

impl Sink for Vec<Exchange> {
    fn finished(&mut self, exchanges: Vec<Exchange>) {
        self.extend(exchanges);
    }
}

/// What a session's task gives back: its finished exchanges, how it ended, and its channel.
pub(crate) type AtHome = (Vec<Exchange>, SessionEnd, Channel);

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

/// A cell that goes on.
pub(crate) struct Running<'a, S> {
    pub(crate) shared: Rc<Shared>,
    pub(crate) lane: Rc<Lane>,
    pub(crate) plan: CellPlan,
    pub(crate) name: CellName,
    sink: &'a mut S,
    /// Of an open loop.
    pub(crate) sessions: JoinSet<AtHome>,
    /// Before what sessions have to do between turns.
    pub(crate) gate: Rc<Gate>,
    /// Channels that are idle and may be used again.
    idle: Vec<Channel>,
    /// The one that all sessions use, where they share.
    shared_channel: Option<Channel>,
    farewells: JoinSet<()>,
    pub(crate) end: CellEnd,
}

impl<S: Sink> Running<'_, S> {
    async fn run(mut self) -> CellEnd {
        // What came before the cell, as while warming up, is none of its own.
        self.lane.endpoint.dial.stamping.take();
        self.end.started = MonoClock.now();
        match self.plan.arrivals {
            Arrivals::Closed => self.fill_places().await,
            _ => self.start_as_due().await,
        }
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

    /// When nothing starts any more.
    pub(crate) fn over(&self) -> Option<Stamp> {
        self.plan.duration.map(|span| self.end.started + span)
    }

    /// Runs a closed loop to its end.
    async fn fill_places(&mut self) {
        let common = (&self.shared, &self.lane, &self.gate);
        let shares = self.plan.connections == Connections::Shared;
        self.shared_channel = shares.then(|| self.lane.shared_channel());
        let places = Rc::new(Places::new(
            common,
            self.plan,
            self.name,
            self.over(),
            self.shared_channel.clone(),
        ));
        let mut occupied = JoinSet::new();
        for _ in 0..places.count() {
            // The runtime moves a task's future many times before it stays; a boxed one it does not copy.
            occupied.spawn_local(Box::pin(places.clone().occupy()));
        }
        loop {
            let left = tokio::select! {
                biased;
                () = places.arrived() => None,
                left = occupied.join_next() => Some(left),
            };
            let home = places.take_home();
            if !home.exchanges.is_empty() {
                self.sink.finished(home.exchanges);
                places.reuse(|| self.sink.spent());
            }
            for (end, done) in home.ends {
                self.end.take(end);
                done.into_iter().for_each(|channel| self.close(channel));
            }
            match left {
                None => {}
                Some(Some(left)) => self.idle.extend(returned(left).flatten()),
                Some(None) => break,
            }
        }
        self.end.sessions = places.begun();
    }

    /// The channel of a session that starts.
    pub(crate) fn channel(&mut self) -> Channel {
        match self.plan.connections {
            Connections::PerSession => self.lane.channel(),
            Connections::Pooled => self.idle.pop().unwrap_or_else(|| self.lane.channel()),
            Connections::Shared => {
                let shared = &mut self.shared_channel;
                let shared = shared.get_or_insert_with(|| self.lane.shared_channel());
                shared.for_session()
            }
        }
    }

    /// Waits for one session's end; `false` when none is left.
    pub(crate) async fn come_home(&mut self) -> bool {
        let home = self.sessions.join_next().await;
        let any = home.is_some();
        home.into_iter().for_each(|home| self.take_home(home));
        any
    }

    pub(crate) fn take_home(&mut self, home: Result<AtHome, JoinError>) {
        let Some((exchanges, end, channel)) = returned(home) else {
            return;
        };
        self.sink.finished(exchanges);
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
        // Others are measured still: what it did below its bytes its sockets book with their end.
        self.end.counters += channel.counted();
        while self.farewells.try_join_next().is_some() {}
        self.farewells.spawn_local(async move {
            let _ = timeout(FAREWELL, channel.close()).await;
        });
    }
}

/// What a task returned; its panic goes on here. Nobody cancels one.
fn returned<T>(task: Result<T, JoinError>) -> Option<T> {
    match task {
        Ok(returned) => Some(returned),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}
