//! An open loop: sessions start as the schedule says, whether those before them are over or not.

use std::pin::pin;

use tokenlag_probes::{Clock, MonoClock, Stamp};
use tokio::task::yield_now;

use crate::cell::{Running, Sink};
use crate::drive::Kit;
use crate::pacing::Pacer;
use crate::session::{self, Prepared, SessionName};

/// Arrivals that are too late are counted so many at a time: replies under way are read in between.
const COUNTED_AT_ONCE: u64 = 256;

impl<S: Sink> Running<'_, S> {
    /// Starts sessions until none is left, or the cell's time is over.
    pub(crate) async fn start_as_due(&mut self) {
        let clock = MonoClock;
        let pacer = Pacer::new();
        let (seed, block) = (self.shared.prompts.seed, self.name.block);
        let Some(mut schedule) = self.plan.arrivals.schedule(seed, block) else {
            return;
        };
        let over = self.over();
        let is_over = |at: Stamp| over.is_some_and(|over| at >= over);
        let limit = self.plan.sessions.unwrap_or(u64::MAX);
        while self.end.sessions + self.end.not_started < limit {
            let due = self.end.started + schedule.next_arrival();
            if is_over(due) {
                break;
            }
            if is_over(clock.now()) {
                // The rest of those that were due is counted, until one lies beyond the end.
                if !self.too_late().await {
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
            let has_time = clock.now() < due;
            self.wait(pacer.until(&clock, due)).await;
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
            } else if !self.too_late().await {
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
    fn prepare(&self, due: Stamp) -> Prepared {
        let name = SessionName {
            phase: self.name.phase,
            block: self.name.block,
            session: self.end.sessions as u32,
            serial: self.name.first_serial + self.end.sessions,
            due: Some(due),
        };
        session::prepare(&self.shared, &self.lane, name, self.plan.turns, None)
    }

    fn start(&mut self, prepared: Prepared) {
        self.end.sessions += 1;
        let (shared, lane) = (self.shared.clone(), self.lane.clone());
        let (channel, gate) = (self.channel(), self.gate.clone());
        let turns = self.plan.turns;
        // The runtime moves a task's future many times before it stays; a boxed one it does not copy.
        self.sessions.spawn_local(Box::pin(async move {
            let mut kit = Kit::new(&shared.stop, shared.limits.exchange);
            let mut exchanges = session::room(turns);
            let session = session::run(
                &shared,
                &lane,
                prepared,
                &channel,
                &gate,
                &mut kit,
                &mut exchanges,
            );
            let end = session.await;
            (exchanges, end, channel)
        }));
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
}
