//! Signs of life: a peer that was silent for long is pinged, and given up where it should not stay silent. And messages that
//! take too long to come.

use std::cell::Cell;
use std::time::Duration;

use tokenlag_channel::ws::WebSocket;
use tokenlag_probes::{Clock, MonoClock, Stamp};
use tokio::time::sleep;

use super::limits::UNANSWERED_PINGS;

/// How long a peer was silent.
#[derive(Debug)]
pub(super) struct Pulse {
    /// Between two beats.
    every: Duration,
    /// When the peer was last heard, as far as was looked.
    heard: Stamp,
    /// When it was last looked.
    looked: Stamp,
    missed: u32,
}

/// So many beats went by without a sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Beat(u32);

impl Beat {
    /// All pings that a peer may leave unanswered went by; else it is to be pinged.
    pub(super) fn is_too_many(self) -> bool {
        self.0 > UNANSWERED_PINGS
    }
}

impl Pulse {
    pub(super) fn new(every: Duration) -> Self {
        let now = MonoClock.now();
        Self {
            every,
            heard: now,
            looked: now,
            missed: 0,
        }
    }

    /// Returns when another beat went by without anything read of the peer. May be cancelled without loss.
    pub(super) async fn missed(&mut self, socket: &WebSocket) -> Beat {
        loop {
            let wait = self.look(socket.read_at(), MonoClock.now());
            if wait.is_zero() {
                return Beat(self.missed);
            }
            sleep(wait).await;
        }
    }

    /// How long until the next beat, given when the peer was last heard; zero where one went by.
    fn look(&mut self, heard: Stamp, now: Stamp) -> Duration {
        if heard > self.heard {
            self.heard = heard;
            self.looked = heard;
            self.missed = 0;
        }
        let silent = Duration::from_nanos(now.since(self.looked).max(0) as u64);
        let wait = self.every.saturating_sub(silent);
        if wait.is_zero() {
            self.looked = now;
            self.missed += 1;
        }
        wait
    }
}

/// Whether a peer is read: what it began while it was left to wait is no fault of its own.
#[derive(Debug, Default)]
pub(super) struct Reading(Cell<Option<Stamp>>);

impl Reading {
    /// It is read from now on, unless it was already.
    pub(super) fn goes_on(&self) {
        if self.0.get().is_none() {
            self.0.set(Some(MonoClock.now()));
        }
    }

    /// It is left to wait.
    pub(super) fn pauses(&self) {
        self.0.set(None);
    }

    /// Since when it is read; `None` while it waits.
    pub(super) fn since(&self) -> Option<Stamp> {
        self.0.get()
    }
}

/// Returns when a message that the peer began is not whole after being read for so long.
pub(super) async fn overdue(socket: &WebSocket, reading: &Reading, limit: Duration) {
    loop {
        let wait = left(socket.begun_at(), reading.since(), MonoClock.now(), limit);
        if wait.is_zero() {
            return;
        }
        sleep(wait).await;
    }
}

/// How long a message may still take: a peer is read on only between two messages, so the one that is not whole was begun
/// before the reading went on, or is read since it began.
fn left(begun: Option<Stamp>, read_since: Option<Stamp>, now: Stamp, limit: Duration) -> Duration {
    match (begun, read_since) {
        (Some(begun), Some(since)) => {
            let taken = now.since(begun.max(since)).max(0) as u64;
            limit.saturating_sub(Duration::from_nanos(taken))
        }
        _ => limit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Stamp {
        Stamp::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn a_message_has_its_time_while_it_is_read() {
        let limit = Duration::from_secs(300);
        let left = |begun, since, now| left(begun, since, at(now), limit).as_secs();
        assert_eq!(left(None, Some(at(1)), 1000), 300);
        assert_eq!(left(Some(at(100)), Some(at(1)), 150), 250);
        assert_eq!(left(Some(at(100)), Some(at(1)), 400), 0);
        // Left to wait, and read again after that.
        assert_eq!(left(Some(at(100)), None, 1000), 300);
        assert_eq!(left(Some(at(100)), Some(at(900)), 1000), 200);
    }

    #[test]
    fn silence_is_counted_in_beats_and_forgotten_at_a_sign_of_life() {
        let seconds = Duration::from_secs;
        let mut pulse = Pulse {
            every: seconds(30),
            heard: at(100),
            looked: at(100),
            missed: 0,
        };
        assert_eq!(pulse.look(at(100), at(110)), seconds(20));
        assert_eq!(pulse.look(at(105), at(120)), seconds(15));
        assert_eq!(pulse.look(at(105), at(135)), Duration::ZERO);
        assert!(!Beat(pulse.missed).is_too_many());
        assert_eq!(pulse.look(at(105), at(140)), seconds(25));
        assert_eq!(pulse.look(at(136), at(140)), seconds(26));
        for (now, too_many) in [(166, false), (196, false), (226, true)] {
            assert_eq!(pulse.look(at(136), at(now)), Duration::ZERO);
            assert_eq!(Beat(pulse.missed).is_too_many(), too_many, "{now}");
        }
    }
}
