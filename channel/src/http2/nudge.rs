//! Wakes the task of a connection, and knows what for: whoever has just written, or waits alone, drives it in its stead, and
//! then the task need not.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{RawWakerVTable, Wake, Waker};

/// Every wake reaches the task.
const LOUD: u8 = 0;
/// No wake reaches the task: the connection is about to be driven.
const HUSHED: u8 = 1;
/// Wakes reach the task, and tell of nothing that came from the peer.
const LETTING_GO: u8 = 2;

/// No wake reaches the task: nothing is left to do that has no time until the connection is driven anyway.
const AT_REST: u8 = 3;

/// Whom a nudge wakes, as its own side last told it: the lock is taken only where it is another, and nearly always it is not.
/// The nudge keeps that waker, so that none of another task has its address. (A waker need not look like its own clone: the
/// compiler makes several tables of one kind.)
#[derive(Debug, Default)]
pub(crate) struct Known(Option<(usize, &'static RawWakerVTable)>);

/// What the library and the socket wake instead of the task.
#[derive(Debug)]
pub(crate) struct Nudge {
    task: Mutex<Option<Waker>>,
    /// Drives the connection instead of the task while it waits. It is kept while nobody does so: the next one is most
    /// likely the same.
    guest: Mutex<Option<Waker>>,
    /// Whether there is a guest. Only the connection's own side changes that.
    hosts: AtomicBool,
    mode: AtomicU8,
    /// The connection is to be driven.
    due: AtomicBool,
    /// And that since something happened which is not our own doing.
    news: AtomicBool,
}

impl Nudge {
    /// A connection that is to be driven as soon as its task has its first turn.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            task: Mutex::default(),
            guest: Mutex::default(),
            hosts: AtomicBool::new(false),
            mode: AtomicU8::new(LOUD),
            due: AtomicBool::new(true),
            news: AtomicBool::new(true),
        })
    }

    /// Notes whom to wake, where it is not whom it has `known`.
    pub(crate) fn is_for(&self, task: &Waker, known: &mut Known) {
        note(&self.task, task, known);
    }

    /// Notes who is to be woken instead, and drives the connection then, until [`Self::leave`] or [`Self::part`]; `known` is
    /// who was last.
    pub(crate) fn host(&self, guest: &Waker, known: &mut Known) {
        note(&self.guest, guest, known);
        if !self.hosts.load(Ordering::Relaxed) {
            self.hosts.store(true, Ordering::Release);
        }
    }

    /// The guest waits no more: what is left to do is the task's again.
    pub(crate) fn leave(&self) {
        // Whoever makes it due meanwhile finds no guest, or is found here: both are in one order with what they look at next.
        if self.hosts.load(Ordering::Relaxed) {
            self.hosts.store(false, Ordering::SeqCst);
            if self.due.load(Ordering::SeqCst) {
                self.wake_task();
            }
        }
    }

    /// There is more to do than the guest may see to: the task drives the connection again, and the guest is told.
    pub(crate) fn part(&self) {
        if self.hosts.load(Ordering::Relaxed) {
            self.hosts.store(false, Ordering::SeqCst);
            self.wake_task();
            wake(&self.guest);
        }
    }

    /// Whether the connection is to be driven. Whoever asks is about to do so.
    pub(crate) fn take_due(&self) -> bool {
        self.mode.store(LOUD, Ordering::Release);
        self.news.store(false, Ordering::Release);
        self.due.swap(false, Ordering::AcqRel)
    }

    /// Whether the connection is to be driven.
    pub(crate) fn is_due(&self) -> bool {
        self.due.load(Ordering::Acquire)
    }

    /// Whether there is something to be read, or was when somebody looked.
    pub(crate) fn has_news(&self) -> bool {
        self.news.load(Ordering::Acquire)
    }

    /// The connection is to be driven once more by the one who has just done so.
    pub(crate) fn again(&self) {
        self.due.store(true, Ordering::Release);
    }

    /// Gives the task, or its guest, a turn, whether the connection is to be driven or not.
    pub(crate) fn wake_task(&self) {
        wake(match self.hosts.load(Ordering::SeqCst) {
            true => &self.guest,
            false => &self.task,
        });
    }

    /// Spares the task its turn for what is done until the connection is driven or this is dropped.
    pub(crate) fn hush(&self) -> Kept<'_> {
        Kept::new(self, HUSHED)
    }

    /// For a stream of which nothing more is wanted: the library wants to tidy up after it, which has time until the
    /// connection is driven anyway or the task has its turn. Where the stream was the last thing that went on here, nothing
    /// is to be tidied up that matters before something happens, and the task is spared its turn.
    pub(crate) fn let_go(&self, last: bool) -> Kept<'_> {
        Kept::new(self, if last { AT_REST } else { LETTING_GO })
    }
}

#[inline]
fn note(whom: &Mutex<Option<Waker>>, waker: &Waker, known: &mut Known) {
    let (data, table) = (waker.data().addr(), waker.vtable());
    let is_it = |(last, its): (_, &RawWakerVTable)| last == data && std::ptr::eq(its, table);
    if !known.0.is_some_and(is_it) {
        known.0 = Some((data, table));
        change(whom, waker);
    }
}

#[cold]
fn change(whom: &Mutex<Option<Waker>>, waker: &Waker) {
    let last = locked(whom).replace(waker.clone());
    // Not while it is locked: it may be the last of its task.
    drop(last);
}

fn wake(whom: &Mutex<Option<Waker>>) {
    let waker = locked(whom).clone();
    // Not while it is locked: a task may be dropped as it is woken.
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn locked(whom: &Mutex<Option<Waker>>) -> MutexGuard<'_, Option<Waker>> {
    // A waker is whole whoever panicked meanwhile.
    whom.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wake for Nudge {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mode = self.mode.load(Ordering::Acquire);
        if !matches!(mode, LETTING_GO | AT_REST) {
            self.news.store(true, Ordering::Release);
        }
        if matches!(mode, HUSHED | AT_REST) {
            self.due.store(true, Ordering::Release);
        } else {
            self.due.store(true, Ordering::SeqCst);
            self.wake_task();
        }
    }
}

/// A mode, until this is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Kept<'a> {
    nudge: &'a Nudge,
    mode: u8,
}

impl<'a> Kept<'a> {
    fn new(nudge: &'a Nudge, mode: u8) -> Self {
        nudge.mode.store(mode, Ordering::Release);
        Self { nudge, mode }
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.nudge.mode.store(LOUD, Ordering::Release);
        // Nobody drove the connection after all.
        if self.mode == HUSHED && self.nudge.due.load(Ordering::Acquire) {
            self.nudge.wake_task();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Turns(AtomicUsize);

    impl Wake for Turns {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn watched() -> (Arc<Nudge>, Waker, Arc<Turns>) {
        let (nudge, turns) = (Nudge::new(), Arc::<Turns>::default());
        nudge.is_for(&Arc::clone(&turns).into(), &mut Known::default());
        assert!(nudge.take_due(), "nobody has driven it yet");
        (Arc::clone(&nudge), nudge.into(), turns)
    }

    fn count(turns: &Turns) -> usize {
        turns.0.load(Ordering::Relaxed)
    }

    #[test]
    fn a_wake_makes_it_due_until_it_is_driven() {
        let (nudge, waker, turns) = watched();
        assert!(!nudge.take_due());
        waker.wake_by_ref();
        assert!(nudge.has_news());
        assert_eq!(count(&turns), 1);
        assert!(nudge.take_due());
        assert!(!nudge.has_news() && !nudge.take_due());
    }

    #[test]
    fn what_is_driven_at_once_costs_the_task_no_turn() {
        let (nudge, waker, turns) = watched();
        let hush = nudge.hush();
        waker.wake_by_ref();
        assert!(nudge.take_due());
        drop(hush);
        assert_eq!(count(&turns), 0);
        // What comes while it is driven is not lost.
        let hush = nudge.hush();
        waker.wake_by_ref();
        assert!(nudge.take_due());
        waker.wake_by_ref();
        assert!(count(&turns) > 0);
        drop(hush);
        assert!(nudge.take_due());
    }

    #[test]
    fn what_is_not_driven_after_all_is_left_to_the_task() {
        let (nudge, waker, turns) = watched();
        let hush = nudge.hush();
        waker.wake_by_ref();
        drop(hush);
        assert_eq!(count(&turns), 1);
        assert!(nudge.take_due());
    }

    #[test]
    fn letting_go_is_no_news_and_is_not_forgotten() {
        let (nudge, waker, turns) = watched();
        let letting_go = nudge.let_go(false);
        waker.wake_by_ref();
        drop(letting_go);
        assert!(!nudge.has_news());
        assert_eq!(count(&turns), 1);
        waker.wake_by_ref();
        assert!(nudge.has_news() && nudge.take_due());
    }

    #[test]
    fn a_guest_is_woken_instead_of_the_task_until_it_leaves() {
        let (nudge, waker, turns) = watched();
        let (guest, mut known) = (Arc::<Turns>::default(), Known::default());
        nudge.host(&Arc::clone(&guest).into(), &mut known);
        waker.wake_by_ref();
        assert_eq!((count(&turns), count(&guest)), (0, 1));
        // It left without having driven the connection.
        nudge.leave();
        assert_eq!((count(&turns), count(&guest)), (1, 1));
        assert!(nudge.take_due());
        nudge.leave();
        assert_eq!(count(&turns), 1);
        waker.wake_by_ref();
        assert_eq!((count(&turns), count(&guest)), (2, 1));
        // It is back, and then another one is there.
        nudge.host(&Arc::clone(&guest).into(), &mut known);
        waker.wake_by_ref();
        assert_eq!((count(&turns), count(&guest)), (2, 2));
        let other = Arc::<Turns>::default();
        nudge.host(&Arc::clone(&other).into(), &mut known);
        waker.wake_by_ref();
        assert_eq!((count(&turns), count(&guest), count(&other)), (2, 2, 1));
    }

    #[test]
    fn a_guest_that_is_no_longer_alone_is_told_and_the_task_has_its_turn() {
        let (nudge, waker, turns) = watched();
        nudge.part();
        let guest = Arc::<Turns>::default();
        nudge.host(&Arc::clone(&guest).into(), &mut Known::default());
        nudge.part();
        assert_eq!((count(&turns), count(&guest)), (1, 1));
        waker.wake_by_ref();
        assert_eq!((count(&turns), count(&guest)), (2, 1));
    }

    #[test]
    fn the_last_stream_costs_the_task_no_turn_and_leaves_the_connection_due() {
        let (nudge, waker, turns) = watched();
        let letting_go = nudge.let_go(true);
        waker.wake_by_ref();
        drop(letting_go);
        assert_eq!(count(&turns), 0);
        assert!(!nudge.has_news());
        waker.wake_by_ref();
        assert_eq!(count(&turns), 1);
        assert!(nudge.has_news() && nudge.take_due());
    }
}
