//! What the sockets of one side did below their bytes, added up by the sockets themselves: now and then as they write, and as they end.

use std::cell::Cell;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokenlag_probes::{SocketCounts, Stamp};

use crate::segments::Segments;

/// Between two looks at the queues of all sockets that are watched together lies so much at least. A look is a system call of a
/// microsecond; a token takes ten and more.
const APART: Duration = Duration::from_millis(20);

/// Totals of sockets that are watched together, whatever threads they are on. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct SocketWatch(Arc<Totals>);

#[derive(Debug, Default)]
struct Totals {
    /// Nobody looks again before.
    due: AtomicU64,
    counts: Mutex<SocketCounts>,
}

impl SocketWatch {
    /// What was booked up to now. Of sockets that are open, what they did since they were last looked at may be missing.
    pub fn so_far(&self) -> SocketCounts {
        self.counts().clone()
    }

    pub(crate) fn counts(&self) -> MutexGuard<'_, SocketCounts> {
        // Nothing panics under the lock.
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody should look, who is then the one that does.
    pub(crate) fn is_due(&self, now: Stamp) -> bool {
        let now = now.as_nanos();
        let due = self.0.due.load(Relaxed);
        now >= due
            && self
                .0
                .due
                .compare_exchange(due, now + APART.as_nanos() as u64, Relaxed, Relaxed)
                .is_ok()
    }
}

/// A TCP connection that books what it does below its bytes.
#[derive(Debug)]
pub(crate) struct Watched {
    watch: SocketWatch,
    booked: Cell<Booked>,
}

/// What was booked already.
#[derive(Clone, Copy, Debug, Default)]
struct Booked {
    segments: Segments,
    reads: u64,
    writes: u64,
}

impl Watched {
    /// One of which nothing is booked yet.
    pub(crate) fn by(watch: &SocketWatch) -> Self {
        Self {
            watch: watch.clone(),
            booked: Cell::default(),
        }
    }

    /// Whether this connection is to look at its queue now.
    pub(crate) fn is_due(&self, now: Stamp) -> bool {
        self.watch.is_due(now)
    }

    /// Books what `connection` did since it was booked last, after so many reads and writes in all; and samples its send queue
    /// where it is said how many bytes were `written` to it.
    pub(crate) fn book(
        &self,
        connection: &impl AsFd,
        (reads, writes): (u64, u64),
        written: Option<u64>,
    ) {
        let found = Segments::of(connection);
        let before = self.booked.get();
        let segments = found.unwrap_or(before.segments);
        self.booked.set(Booked {
            segments,
            reads,
            writes,
        });
        let since = |now: u32, then: u32| u64::from(now.wrapping_sub(then));
        let retransmitted = since(segments.retransmitted, before.segments.retransmitted);
        let mut counts = self.watch.counts();
        counts.reads += reads - before.reads;
        counts.writes += writes - before.writes;
        counts.packets_sent += since(segments.sent, before.segments.sent);
        counts.packets_received += since(segments.received, before.segments.received);
        counts.packets_retransmitted += retransmitted;
        if let Some((found, written)) = found.zip(written) {
            counts.unsent.take(found.unsent.into());
            counts.queued.take(found.queued(written));
            counts.windows.take(found.window);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_looks_and_the_others_wait() {
        let watch = SocketWatch::default();
        let at = Stamp::from_nanos;
        assert!(watch.is_due(at(5)));
        assert!(!watch.clone().is_due(at(6)));
        assert!(!watch.is_due(at(4) + APART));
        assert!(watch.is_due(at(5) + APART));
    }
}
