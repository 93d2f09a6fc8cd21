//! A closed loop: so many places, and at each of them one session after the other.
//!
//! A place is one task with all that its exchanges need at hand: a session costs no task of its own, and wakes nobody who would start
//! the next one.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokenlag_channel::Channel;
use tokenlag_probes::{Clock, MonoClock, Stamp};
use tokio::sync::Notify;

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
    home: RefCell<Vec<Home>>,
    arrived: Notify,
}

/// A session that is over, with the connections that nobody uses again.
pub(crate) type Home = (SessionEnd, Option<Channel>);

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
            arrived: Notify::new(),
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
        loop {
            self.gate.pass().await;
            let Some(name) = self.next() else { break };
            let prepared = session::prepare(&self.shared, &self.lane, name, self.plan.turns);
            let channel = kept.take().unwrap_or_else(|| self.channel());
            let session = session::run(
                &self.shared,
                &self.lane,
                prepared,
                &channel,
                &self.gate,
                &mut kit,
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
            self.home.borrow_mut().push((end, done));
            self.arrived.notify_one();
        }
        kept
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

    /// Returns once a session came home.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// The sessions that came home since the last time.
    pub(crate) fn take_home(&self) -> Vec<Home> {
        self.home.take()
    }
}
