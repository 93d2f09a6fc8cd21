//! Wakes the task of a connection, and knows what for: whoever has just written, or waits alone, drives it in its stead, and
//! then the task need not.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

/// Every wake reaches the task.
const LOUD: u8 = 0;
/// No wake reaches the task: the connection is about to be driven.
const HUSHED: u8 = 1;
/// Wakes reach the task, and tell of nothing that came from the peer.
const LETTING_GO: u8 = 2;

/// No wake reaches the task: nothing is left to do that has no time until the connection is driven anyway.
const AT_REST: u8 = 3;

/// Whom to wake.
#[derive(Debug, Default)]
struct Whom {
    task: Option<Waker>,
    /// Drives the connection instead of the task while it waits.
    guest: Option<Waker>,
}

/// What the library and the socket wake instead of the task.
#[derive(Debug)]
pub(crate) struct Nudge {
    whom: Mutex<Whom>,
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
            whom: Mutex::default(),
            mode: AtomicU8::new(LOUD),
            due: AtomicBool::new(true),
            news: AtomicBool::new(true),
        })
    }

    /// Notes whom to wake.
    pub(crate) fn is_for(&self, task: &Waker) {
        note(&mut self.whom().task, task);
    }

    /// Notes who is to be woken instead, and drives the connection then, until [`Self::leave`] or [`Self::part`].
    pub(crate) fn host(&self, guest: &Waker) {
        note(&mut self.whom().guest, guest);
    }

    /// The guest waits no more: what is left to do is the task's again.
    pub(crate) fn leave(&self) {
        let guest = self.whom().guest.take();
        if guest.is_some() && self.due.load(Ordering::Acquire) {
            self.wake_task();
        }
    }

    /// There is more to do than the guest may see to: the task drives the connection again, and the guest is told.
    pub(crate) fn part(&self) {
        let guest = self.whom().guest.take();
        if let Some(guest) = guest {
            self.wake_task();
            guest.wake();
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
        let waker = {
            let whom = self.whom();
            whom.guest.as_ref().or(whom.task.as_ref()).cloned()
        };
        // Not while it is locked: a task may be dropped as it is woken.
        if let Some(waker) = waker {
            waker.wake();
        }
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

    fn whom(&self) -> MutexGuard<'_, Whom> {
        // A waker is whole whoever panicked meanwhile.
        self.whom.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note(known: &mut Option<Waker>, waker: &Waker) {
    if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
        *known = Some(waker.clone());
    }
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
        self.due.store(true, Ordering::Release);
        if !matches!(mode, HUSHED | AT_REST) {
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
        nudge.is_for(&Arc::clone(&turns).into());
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
        let guest = Arc::<Turns>::default();
        nudge.host(&Arc::clone(&guest).into());
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
    }

    #[test]
    fn a_guest_that_is_no_longer_alone_is_told_and_the_task_has_its_turn() {
        let (nudge, waker, turns) = watched();
        nudge.part();
        let guest = Arc::<Turns>::default();
        nudge.host(&Arc::clone(&guest).into());
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
