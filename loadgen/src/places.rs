//! A closed loop: so many places, and at each of them one session after the other.
//!
//! A place is one task with all that its exchanges need at hand: a session costs no task of its own, and wakes nobody who would start
//! the next one.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokenlag_channel::Channel;
use tokenlag_probes::{Clock, Exchange, MonoClock, Stamp};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::cell::{CellName, CellPlan, Connections};
use crate::drive::Kit;
use crate::gate::Gate;
use crate::session::{self, Lane, SessionEnd, SessionName, Shared};

/// What the places of a cell share.
pub(crate) struct Places {
    shared: Rc<Shared>,
    lane: Rc<Lane>,
    plan: CellPlan,
    name: CellName,
    /// Nothing starts from then on.
    over: Option<Stamp>,
    /// Before the making of each request.
    gate: Rc<Gate>,
    /// Over which all send, where they share one.
    channel: Option<Channel>,
    /// Sessions begun.
    begun: Cell<u64>,
    home: RefCell<Home>,
    /// Exchanges that are over, for their memory.
    spent: RefCell<Vec<Exchange>>,
    /// The first is there, of those that come home together.
    first: Notify,
    /// Enough are.
    enough: Notify,
}

/// Sessions that come home together are so many at most: whoever takes them is woken once for all of them.
const TOGETHER: usize = 64;
/// Their exchanges have about so many deltas at most.
const DELTAS_TOGETHER: usize = 1 << 13;
/// How long the first of them waits for others, at most.
const GATHERING: Duration = Duration::from_millis(5);

/// Sessions that are over.
#[derive(Default)]
pub(crate) struct Home {
    /// Their finished exchanges.
    pub(crate) exchanges: Vec<Exchange>,
    /// How each of them ended, with the connections that nobody uses again.
    pub(crate) ends: Vec<(SessionEnd, Option<Channel>)>,
    /// Deltas of the exchanges.
    deltas: usize,
}

impl Home {
    /// Room for as many as came home last time.
    fn with_room_of(other: &Self) -> Self {
        Self {
            exchanges: Vec::with_capacity(other.exchanges.len()),
            ends: Vec::with_capacity(other.ends.len()),
            deltas: 0,
        }
    }
}

impl Places {
    /// Places of the cell that `name` names, at which nobody is yet.
    pub(crate) fn new(
        (shared, lane, gate): (&Rc<Shared>, &Rc<Lane>, &Rc<Gate>),
        plan: CellPlan,
        name: CellName,
        over: Option<Stamp>,
        channel: Option<Channel>,
    ) -> Self {
        Self {
            shared: shared.clone(),
            lane: lane.clone(),
            plan,
            name,
            over,
            gate: gate.clone(),
            channel,
            begun: Cell::new(0),
            home: RefCell::default(),
            spent: RefCell::default(),
            first: Notify::new(),
            enough: Notify::new(),
        }
    }

    /// How many there are: none that no session would come to.
    pub(crate) fn count(&self) -> u64 {
        let places = self.plan.concurrency as u64;
        self.plan.sessions.map_or(places, |most| most.min(places))
    }

    /// Runs sessions at one place until none is left. Gives back a channel that is open still.
    pub(crate) async fn occupy(self: Rc<Self>) -> Option<Channel> {
        let mut kit = Kit::new(&self.shared.stop, self.shared.limits.exchange);
        let mut kept = None;
        let mut exchanges = session::room(self.plan.turns);
        loop {
            self.gate.pass().await;
            let Some(name) = self.next() else { break };
            let spent = self.spent.borrow_mut().pop();
            let prepared = session::prepare(&self.shared, &self.lane, name, self.plan.turns, spent);
            let channel = kept.take().unwrap_or_else(|| self.channel());
            let session = session::run(
                &self.shared,
                &self.lane,
                prepared,
                &channel,
                &self.gate,
                &mut kit,
                &mut exchanges,
            );
            let end = session.await;
            let done = match self.plan.connections {
                Connections::PerSession => Some(channel),
                Connections::Pooled => {
                    kept = Some(channel);
                    None
                }
                // Others may still use it.
                Connections::Shared => None,
            };
            self.come_home(&mut exchanges, end, done);
        }
        kept
    }

    fn come_home(&self, exchanges: &mut Vec<Exchange>, end: SessionEnd, done: Option<Channel>) {
        let mut home = self.home.borrow_mut();
        if home.ends.is_empty() {
            self.first.notify_one();
        }
        let deltas = exchanges.iter().map(|it| it.tokens.len());
        home.deltas += deltas.sum::<usize>();
        // A connection is not left open longer than it is used.
        let waits_for_none = done.is_some();
        home.exchanges.append(exchanges);
        home.ends.push((end, done));
        if waits_for_none || home.ends.len() == TOGETHER || home.deltas >= DELTAS_TOGETHER {
            self.enough.notify_one();
        }
    }

    /// The channel of a session that starts.
    fn channel(&self) -> Channel {
        let shared = self.channel.as_ref();
        shared.map_or_else(|| self.lane.channel(), Channel::for_session)
    }

    /// The next session; `None` where none may begin any more.
    fn next(&self) -> Option<SessionName> {
        let number = self.begun.get();
        let most = self.plan.sessions.unwrap_or(u64::MAX);
        let is_over = self.over.is_some_and(|over| MonoClock.now() >= over);
        if number >= most || is_over || self.shared.stop.is_raised() {
            return None;
        }
        self.begun.set(number + 1);
        Some(SessionName {
            phase: self.name.phase,
            block: self.name.block,
            session: number as u32,
            serial: self.name.first_serial + number,
            due: None,
        })
    }

    /// Sessions that began.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.get()
    }

    /// Returns when sessions came home: once they are enough, or the first of them has waited for others.
    pub(crate) async fn arrived(&self) {
        self.first.notified().await;
        let _ = timeout(GATHERING, self.enough.notified()).await;
    }

    /// Begins exchanges in the memory of those that `spent` gives, where there are none left of those that it gave before.
    pub(crate) fn reuse(&self, spent: impl FnOnce() -> Vec<Exchange>) {
        let mut left = self.spent.borrow_mut();
        if left.is_empty() {
            *left = spent();
        }
    }

    /// The sessions that came home since the last time.
    pub(crate) fn take_home(&self) -> Home {
        let mut home = self.home.borrow_mut();
        let room = Home::with_room_of(&home);
        std::mem::replace(&mut home, room)
    }
}
