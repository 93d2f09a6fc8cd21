//! What the sockets of one side did below their bytes, added up by the sockets themselves: now and then as they write, when they
//! are asked, and as they end.

use std::cell::Cell;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
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
    /// Connections that need not be on the thread that asks; those that are gone are forgotten as others come.
    askable: Mutex<Vec<Weak<dyn Askable>>>,
}

/// A connection that books what it did since it was booked last, whichever thread asks it to.
pub(crate) trait Askable: std::fmt::Debug + Send + Sync {
    fn book(&self);
}

impl SocketWatch {
    /// What was done up to now. Of TCP connections that are open, what they did since they were last looked at may be missing.
    pub fn so_far(&self) -> SocketCounts {
        // Not under the lock: one that ends meanwhile books too.
        let open: Vec<_> = self.askable().iter().filter_map(Weak::upgrade).collect();
        open.iter().for_each(|connection| connection.book());
        self.counts().clone()
    }

    /// Has `connection` asked whenever somebody wants the figures.
    pub(crate) fn add(&self, connection: Weak<dyn Askable>) {
        let mut askable = self.askable();
        if askable.len() == askable.capacity() {
            askable.retain(|known| known.strong_count() > 0);
        }
        askable.push(connection);
    }

    fn askable(&self) -> MutexGuard<'_, Vec<Weak<dyn Askable>>> {
        let askable = &self.0.askable;
        askable.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Books a packet whenever it is asked.
    #[derive(Debug)]
    struct Always(SocketWatch);

    impl Askable for Always {
        fn book(&self) {
            self.0.counts().packets_sent += 1;
        }
    }

    #[test]
    fn who_can_be_asked_is_asked_while_it_is_there() {
        let watch = SocketWatch::default();
        let mut open = Vec::new();
        for number in 0..100 {
            let connection = Arc::new(Always(watch.clone()));
            let weak = Arc::downgrade(&connection);
            watch.add(weak);
            if number % 10 == 0 {
                open.push(connection);
            }
        }
        assert_eq!(watch.so_far().packets_sent, 10);
        assert!(
            watch.askable().len() < 100,
            "those that are gone are forgotten"
        );
        open.clear();
        assert_eq!(watch.so_far().packets_sent, 10);
    }

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
