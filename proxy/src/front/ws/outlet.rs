//! Writes a reply's events as messages of a lane.

use std::io;

use bytes::Bytes;
use tokenlag_channel::http::{Framing, ResponseHead};
use tokenlag_channel::ws::Text;
use tokenlag_dialect::SseEvent;
use tokenlag_dialect::responses::timing_event;
use tokenlag_probes::{Clock, MonoClock, Stamp};

use super::events::{self, ERROR_BODY};
use super::session::Session;
use super::timing::Stopwatch;
use crate::outlet::Outlet;

/// The client's end of one exchange.
pub(super) struct LaneOutlet<'a> {
    session: &'a Session,
    lane: Option<&'a str>,
    outbox: Vec<Text>,
    /// An upstream's error: its status and what came of its body.
    refusal: Option<(u16, Vec<u8>)>,
    /// An event could not be passed on: the client was told, and nothing more of this reply goes to it.
    spoilt: bool,
    /// The reply was passed on to its end.
    pub(super) ended: bool,
    stopwatch: Option<Stopwatch>,
}

impl<'a> LaneOutlet<'a> {
    /// With a stopwatch, the client is told what the response took.
    pub(super) fn new(
        session: &'a Session,
        lane: Option<&'a str>,
        stopwatch: Option<Stopwatch>,
    ) -> Self {
        Self {
            session,
            lane,
            outbox: Vec::new(),
            refusal: None,
            spoilt: false,
            ended: false,
            stopwatch,
        }
    }

    /// Puts in an event of the proxy's own, as JSON.
    pub(super) fn put(&mut self, event: &[u8]) {
        match events::in_lane(event, self.lane) {
            Some(text) => self.outbox.push(text),
            None => {
                self.spoilt = true;
                let failure = events::upstream_failed(
                    "upstream_protocol",
                    "the upstream sent an event that is not UTF-8",
                );
                self.outbox.push(events::failed(&failure, self.lane));
            }
        }
    }
}

impl Outlet for LaneOutlet<'_> {
    fn wants_events(&self) -> bool {
        true
    }

    fn start(&mut self, head: &ResponseHead, _framing: Framing, events: bool) {
        // A WebSocket has no status: what is no event stream is told as an error event.
        self.refusal = (!events).then(|| (head.status, Vec::new()));
    }

    fn upstream_read(&mut self, up_written: Option<Stamp>, at: Stamp) {
        if let Some(stopwatch) = &mut self.stopwatch {
            if let Some(written) = up_written {
                stopwatch.asked(written);
            }
            stopwatch.read(at);
        }
    }

    fn event(&mut self, event: SseEvent<'_>) {
        if self.spoilt {
            return;
        }
        // Clients read it before the terminal event: with that they stop reading.
        if let Some(stopwatch) = &mut self.stopwatch
            && stopwatch.event(&event)
        {
            let timing = stopwatch.timing(MonoClock.now());
            self.put(&timing_event(&timing));
        }
        self.put(event.data);
    }

    fn bytes(&mut self, bytes: &Bytes) {
        if let Some((_, body)) = &mut self.refusal {
            let room = ERROR_BODY - body.len();
            body.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    /// Clients stop reading with that event: the lane goes on.
    fn ends_with_terminal(&self) -> bool {
        true
    }

    fn end(&mut self) {
        self.ended = true;
        if let Some((status, body)) = self.refusal.take() {
            self.outbox.push(events::refusal(status, &body, self.lane));
        }
    }

    async fn flush(&mut self) -> io::Result<Stamp> {
        self.session.send(self.outbox.drain(..)).await
    }

    async fn gone(&mut self) {
        self.session.gone().await;
    }
}
