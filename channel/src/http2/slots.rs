//! Room for exchanges on a connection: one slot for each stream that the peer allows at once.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::live::Live;

/// Exchanges that are counted where the peer sets no bound.
const MOST: usize = 1 << 16;

/// What the peer allows, as whoever drives the connection learns it.
#[derive(Debug, Default)]
pub(crate) struct Allowed {
    streams: AtomicUsize,
    closed: AtomicBool,
    changed: Notify,
}

impl Allowed {
    /// So many streams at once. Exchanges that hold a slot keep it; the library makes those wait that are too many by then.
    pub(crate) fn set(&self, streams: usize) {
        self.streams.store(streams.min(MOST), Ordering::Release);
        self.changed.notify_waiters();
    }

    /// The connection is over.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

/// The slots of a connection. Taken and given back without waiting, they are a count; those who find none stand in line.
#[derive(Debug)]
pub(crate) struct Slots {
    allowed: Arc<Allowed>,
    taken: Cell<usize>,
    waiting: Cell<usize>,
}

impl Slots {
    pub(crate) fn new(allowed: Arc<Allowed>) -> Self {
        Self {
            allowed,
            taken: Cell::default(),
            waiting: Cell::default(),
        }
    }

    /// Slots that are taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.get()
    }

    /// Whether the connection is over.
    pub(crate) fn is_closed(&self) -> bool {
        self.allowed.is_closed()
    }

    fn has_room(&self) -> bool {
        self.taken.get() < self.allowed.streams.load(Ordering::Acquire) && !self.is_closed()
    }

    /// Tells whoever is the next in line, where there is room.
    fn tell_next(&self) {
        if self.waiting.get() > 0 && self.has_room() {
            self.allowed.changed.notify_one();
        }
    }
}

/// Room for one exchange on a connection.
#[derive(Debug)]
pub(crate) struct Slot(pub(crate) Rc<Live>);

impl Slot {
    /// A slot, where one is free and nobody waits for it.
    pub(crate) fn take(live: &Rc<Live>) -> Option<Self> {
        let slots = &live.slots;
        (slots.waiting.get() == 0 && slots.has_room()).then(|| Self::of(live))
    }

    /// Waits for a slot; `None` where the connection takes no more exchanges.
    pub(crate) async fn wait(live: &Rc<Live>) -> Option<Self> {
        let slots = &live.slots;
        let _waits = Waits::on(slots);
        // Those who came first go first.
        let mut behind = slots.waiting.get() > 1;
        loop {
            // What is said from here on is not missed.
            let said = slots.allowed.changed.notified();
            if slots.is_closed() {
                return None;
            }
            if !behind && slots.has_room() {
                return Some(Self::of(live));
            }
            said.await;
            behind = false;
        }
    }

    fn of(live: &Rc<Live>) -> Self {
        let taken = &live.slots.taken;
        taken.set(taken.get() + 1);
        Self(Rc::clone(live))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let slots = &self.0.slots;
        slots.taken.set(slots.taken.get() - 1);
        slots.tell_next();
    }
}

/// One who waits, until this is dropped: with a slot, or without one that it may have been told of.
struct Waits<'a>(&'a Slots);

impl<'a> Waits<'a> {
    fn on(slots: &'a Slots) -> Self {
        slots.waiting.set(slots.waiting.get() + 1);
        Self(slots)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
        self.0.tell_next();
    }
}
