//! One lane of a connection: what goes on in it, and the events that came and were not taken.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokenlag_dialect::responses::ends_response;
use tokenlag_probes::Stamp;

use super::UNREAD;

/// An event, and the reads that carried it.
#[derive(Debug)]
pub(super) struct Event {
    /// Read with its first byte.
    pub(super) begun: Stamp,
    /// Read with its last byte.
    pub(super) at: Stamp,
    /// The connection's count of reads by then.
    pub(super) read: u64,
    pub(super) bytes: Bytes,
}

/// What goes on in a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Nothing.
    #[default]
    Idle,
    /// A response is under way, and somebody takes it.
    Answering,
    /// Its events were not taken, and it was cut off; who should have taken them does not know yet.
    CutOff {
        /// The server has ended the response.
        ended: bool,
    },
    /// A response is under way, and nobody takes it.
    GivenUp,
}

/// A lane.
#[derive(Debug, Default)]
pub(super) struct Lane {
    phase: Phase,
    /// It had an exchange.
    used: bool,
    events: VecDeque<Event>,
    /// Bytes of them.
    unread: usize,
    reader: Option<Waker>,
}

/// What an exchange finds in its lane.
#[derive(Debug)]
pub(super) enum Next {
    Event(Event),
    /// It read too slowly.
    CutOff,
}

impl Lane {
    /// Begins an exchange; false where one is under way.
    pub(super) fn begin(&mut self) -> bool {
        let is_idle = self.phase == Phase::Idle;
        if is_idle {
            self.phase = Phase::Answering;
            self.used = true;
        }
        is_idle
    }

    pub(super) fn was_used(&self) -> bool {
        self.used
    }

    pub(super) fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.phase == Phase::GivenUp
    }

    pub(super) fn is_answering(&self) -> bool {
        self.phase == Phase::Answering
    }

    /// Takes an event of the server; true where the lane became idle by it. What comes after a response is nobody's, as on a
    /// connection without lanes.
    pub(super) fn take(&mut self, event: Event) -> bool {
        match self.phase {
            Phase::Answering => {
                let length = event.bytes.len();
                if self.events.is_empty() || self.unread + length <= UNREAD {
                    self.unread += length;
                    self.events.push_back(event);
                } else {
                    let ended = ends_response(&event.bytes);
                    self.phase = Phase::CutOff { ended };
                    self.forget();
                }
                self.wake();
            }
            Phase::CutOff { ended } => {
                let ended = ended || ends_response(&event.bytes);
                self.phase = Phase::CutOff { ended };
            }
            Phase::GivenUp if ends_response(&event.bytes) => {
                self.phase = Phase::Idle;
                return true;
            }
            Phase::GivenUp | Phase::Idle => {}
        }
        false
    }

    /// The next event of the exchange.
    pub(super) fn poll_next(&mut self, context: &Context<'_>) -> Poll<Next> {
        if let Some(event) = self.events.pop_front() {
            self.unread -= event.bytes.len();
            return Poll::Ready(Next::Event(event));
        }
        if let Phase::CutOff { .. } = self.phase {
            return Poll::Ready(Next::CutOff);
        }
        let is_known = (self.reader.as_ref()).is_some_and(|it| it.will_wake(context.waker()));
        if !is_known {
            self.reader = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// Whether an event lies there that began before `at`.
    pub(super) fn began_before(&self, at: Stamp) -> bool {
        self.events.front().is_some_and(|event| event.begun < at)
    }

    /// Ends the exchange, `over` where the server works on it no more.
    pub(super) fn leave(&mut self, over: bool) {
        let over = over
            || match self.phase {
                Phase::CutOff { ended } => ended,
                _ => (self.events.iter()).any(|event| ends_response(&event.bytes)),
            };
        self.phase = match over {
            true => Phase::Idle,
            false => Phase::GivenUp,
        };
        self.forget();
        self.reader = None;
    }

    /// Lets the exchange look again.
    pub(super) fn wake(&mut self) {
        if let Some(reader) = &self.reader {
            reader.wake_by_ref();
        }
    }

    fn forget(&mut self) {
        self.events = VecDeque::new();
        self.unread = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(json: &'static str) -> Event {
        Event {
            begun: Stamp::from_nanos(1),
            at: Stamp::from_nanos(2),
            read: 1,
            bytes: Bytes::from_static(json.as_bytes()),
        }
    }

    const DELTA: &str = r#"{"type":"response.output_text.delta"}"#;
    const LAST: &str = r#"{"type":"response.completed"}"#;

    #[test]
    fn one_exchange_at_a_time() {
        let mut lane = Lane::default();
        assert!(lane.is_idle() && !lane.was_used());
        assert!(lane.begin() && !lane.begin());
        assert!(!lane.take(event(DELTA)));
        let nobody = Context::from_waker(Waker::noop());
        assert!(matches!(
            lane.poll_next(&nobody),
            Poll::Ready(Next::Event(_))
        ));
        assert!(lane.poll_next(&nobody).is_pending());
        lane.leave(true);
        // Of what comes afterwards nobody hears, and neither does the next exchange.
        assert!(!lane.take(event(DELTA)));
        assert!(lane.begin() && lane.was_used());
        assert!(lane.poll_next(&nobody).is_pending());
    }

    #[test]
    fn what_was_given_up_goes_on_until_the_server_has_ended_it() {
        let mut lane = Lane::default();
        lane.begin();
        lane.leave(false);
        assert!(lane.is_given_up() && !lane.begin());
        assert!(!lane.take(event(DELTA)));
        assert!(lane.take(event(LAST)));
        assert!(lane.is_idle());
        // The end lay there unread.
        lane.begin();
        lane.take(event(LAST));
        lane.leave(false);
        assert!(lane.is_idle());
    }
}
