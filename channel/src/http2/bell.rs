//! The waker that a connection's socket is given, which knows whether the socket has called since it was last read: until
//! then there is nothing to read, however often the connection is driven.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// The reader's side.
#[derive(Debug)]
pub(crate) struct Bell {
    rope: Arc<Rope>,
    waker: Waker,
    /// Whom it wakes; the rope has the same.
    reader: Option<Waker>,
    /// The last read found nothing, and left the bell with the socket.
    dry: bool,
}

/// The socket's side.
#[derive(Debug, Default)]
struct Rope {
    rung: AtomicBool,
    reader: Mutex<Option<Waker>>,
}

impl Bell {
    pub(crate) fn new() -> Self {
        let rope = Arc::<Rope>::default();
        Self {
            waker: Waker::from(Arc::clone(&rope)),
            rope,
            reader: None,
            dry: false,
        }
    }

    /// Reads with `read`, unless the last read found nothing and the socket has not called since.
    pub(crate) fn poll<T>(
        &mut self,
        context: &Context<'_>,
        read: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let known = self.reader.as_ref();
        if known.is_some_and(|known| known.will_wake(context.waker())) {
            if self.dry && !self.rope.rung.load(Ordering::Acquire) {
                return Poll::Pending;
            }
        } else {
            self.reader = Some(context.waker().clone());
            let mut reader = self
                .rope
                .reader
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            reader.clone_from(&self.reader);
        }
        // Before the read: what the socket says during it counts for the next one.
        self.rope.rung.swap(false, Ordering::AcqRel);
        let polled = read(&mut Context::from_waker(&self.waker));
        self.dry = polled.is_pending();
        polled
    }
}

impl Wake for Rope {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        // Not while it is locked: a task may be dropped as it is woken.
        let reader = self
            .reader
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(reader) = reader {
            reader.wake();
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

    /// Reads that find nothing, and leave the waker they were given.
    #[derive(Default)]
    struct Dry {
        reads: usize,
        waker: Option<Waker>,
    }

    impl Dry {
        fn read(&mut self, context: &mut Context<'_>) -> Poll<()> {
            self.reads += 1;
            self.waker = Some(context.waker().clone());
            Poll::Pending
        }
    }

    #[test]
    fn a_socket_that_has_nothing_is_left_alone_until_it_calls() {
        let (mut bell, mut socket) = (Bell::new(), Dry::default());
        let turns = Arc::<Turns>::default();
        let waker = Waker::from(Arc::clone(&turns));
        let context = Context::from_waker(&waker);
        for _ in 0..3 {
            assert!(
                bell.poll(&context, |context| socket.read(context))
                    .is_pending()
            );
        }
        assert_eq!(socket.reads, 1);
        socket.waker.take().unwrap().wake();
        assert_eq!(turns.0.load(Ordering::Relaxed), 1);
        for _ in 0..3 {
            assert!(
                bell.poll(&context, |context| socket.read(context))
                    .is_pending()
            );
        }
        assert_eq!(socket.reads, 2);
    }

    #[test]
    fn what_is_said_during_a_read_is_not_lost() {
        let (mut bell, mut reads) = (Bell::new(), 0);
        let waker = Waker::from(Arc::<Turns>::default());
        let context = Context::from_waker(&waker);
        for _ in 0..3 {
            let polled = bell.poll(&context, |context| {
                reads += 1;
                context.waker().wake_by_ref();
                Poll::<()>::Pending
            });
            assert!(polled.is_pending());
        }
        assert_eq!(reads, 3);
    }

    #[test]
    fn another_reader_is_the_one_who_is_woken() {
        let (mut bell, mut socket) = (Bell::new(), Dry::default());
        let (first, second) = (Arc::<Turns>::default(), Arc::<Turns>::default());
        for turns in [&first, &second] {
            let waker = Waker::from(Arc::clone(turns));
            let context = Context::from_waker(&waker);
            assert!(
                bell.poll(&context, |context| socket.read(context))
                    .is_pending()
            );
        }
        socket.waker.take().unwrap().wake();
        assert_eq!(first.0.load(Ordering::Relaxed), 0);
        assert_eq!(second.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_there_is_is_read_without_a_call() {
        let mut bell = Bell::new();
        let waker = Waker::from(Arc::<Turns>::default());
        let context = Context::from_waker(&waker);
        for number in 0..3 {
            assert_eq!(
                bell.poll(&context, |_| Poll::Ready(number)),
                Poll::Ready(number)
            );
        }
    }
}
