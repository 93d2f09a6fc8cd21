//! One exchange in its lane, from its beginning to its end, whoever ends it.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;

use tokenlag_probes::Stamp;

use super::lane::Event;
use super::line::Live;
use super::seats::Seat;
use crate::ws::Text;
use crate::{ChannelError, Dial};

/// An exchange. Dropped before its end, it leaves the lane to the server until the response has ended there.
#[derive(Debug)]
pub(super) struct Exchange {
    live: Rc<Live>,
    seat: Rc<Seat>,
    /// Some of the request may have left.
    begun: Cell<bool>,
    /// All of it has.
    sent: Cell<bool>,
    /// The response has ended.
    over: Cell<bool>,
}

impl Exchange {
    /// Begins one in the lane of `seat`, once no other is under way there.
    ///
    /// # Errors
    /// The connection ended meanwhile, or the lane did not become free in time.
    pub(super) async fn begin(live: Rc<Live>, seat: Rc<Seat>) -> Result<Self, ChannelError> {
        // Nearly always at once: only clones of one session's channel have a lane in common.
        if !live.line.lane(seat.lane).begin() {
            let freed = pin!(Self::freed(&live, &seat));
            let waited = live.timers.in_time(seat.dial().idle_timeout, freed).await;
            waited.map_err(|_| silent(seat.dial(), "free lane for the request"))??;
        }
        Ok(Self {
            live,
            seat,
            begun: Cell::default(),
            sent: Cell::default(),
            over: Cell::default(),
        })
    }

    async fn freed(live: &Live, seat: &Seat) -> Result<(), ChannelError> {
        loop {
            let freed = live.line.freed();
            if let Some(ended) = live.line.ended() {
                return Err(ended);
            }
            if live.line.lane(seat.lane).begin() {
                return Ok(());
            }
            freed.await;
        }
    }

    /// Sends the request; the stamp was taken before the write that carried the last of it.
    ///
    /// # Errors
    /// The connection ended, or the server takes nothing for too long.
    pub(super) async fn send(&self, text: Text) -> Result<Stamp, ChannelError> {
        let idle = self.seat.dial().idle_timeout;
        let line = &self.live.line;
        let sending = pin!(line.send(text, &self.begun));
        let no_room = || silent(self.seat.dial(), "room for the request");
        match self.live.timers.in_time(idle, sending).await {
            Ok(Ok(written)) => {
                self.sent.set(true);
                Ok(written)
            }
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::TimedOut => Err(no_room()),
            Ok(Err(error)) => Err(line.ended().unwrap_or_else(|| line.lost(&error))),
            Err(_) => Err(no_room()),
        }
    }

    /// Whether something of the answer was there before `at`.
    pub(super) fn began_before(&self, at: Stamp) -> bool {
        self.live.line.lane(self.seat.lane).began_before(at)
    }

    /// The next event of the lane.
    ///
    /// # Errors
    /// The connection ended, the server is silent, or what came was not read for too long.
    pub(super) async fn next(&self) -> Result<Event, ChannelError> {
        let idle = self.seat.dial().idle_timeout;
        let line = &self.live.line;
        let next = poll_fn(|context| line.poll_next(self.seat.lane, context));
        let next = self.live.timers.in_time(idle, next).await;
        next.map_err(|_| silent(self.seat.dial(), "further message"))?
    }

    /// The response has ended: the lane is free for the next.
    pub(super) fn finish(self) {
        self.over.set(true);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let line = &self.live.line;
        let untouched = !self.begun.get();
        line.leave(self.seat.lane, self.over.get() || untouched);
        if self.begun.get() && !self.sent.get() {
            line.leave_unfinished();
        }
    }
}

fn silent(dial: &Dial, what: &'static str) -> ChannelError {
    ChannelError::Timeout {
        address: dial.authority(),
        what,
        after: dial.idle_timeout,
    }
}
