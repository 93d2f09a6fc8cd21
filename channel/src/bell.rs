//! The waker that a connection's socket is given, which knows whether the socket has called since it was last read: until
//! then there is nothing to read, however often whoever reads has a turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// The reader's side.
#[derive(Debug)]
pub(crate) struct Bell {
    rope: Arc<Rope>,
    waker: Waker,
    /// The last read found nothing, and left the bell with the socket.
    dry: bool,
}

/// The socket's side.
#[derive(Debug)]
struct Rope {
    rung: AtomicBool,
    /// Whoever reads with another waker reads as if there were no bell.
    reader: Waker,
}

impl Bell {
    /// One that wakes `reader`, which is kept as it is: a clone of it need not look like it.
    pub(crate) fn new(reader: Waker) -> Self {
        let rope = Arc::new(Rope {
            rung: AtomicBool::new(false),
            reader,
        });
        Self {
            waker: Waker::from(Arc::clone(&rope)),
            rope,
            dry: false,
        }
    }

    /// Whether it is that reader who is woken.
    pub(crate) fn wakes(&self, reader: &Waker) -> bool {
        self.rope.reader.will_wake(reader)
    }

    /// The socket was read without the bell since: it may not have it any more.
    pub(crate) fn take_off(&mut self) {
        self.dry = false;
    }

    /// Reads with `read`, unless the last read found nothing and the socket has not called since.
    pub(crate) fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        read: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        if !self.wakes(context.waker()) {
            self.take_off();
            return read(context);
        }
        if self.dry && !self.rope.rung.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        // Before the read: what the socket says during it counts for the next one.
        if self.rope.rung.load(Ordering::Relaxed) {
            self.rope.rung.swap(false, Ordering::AcqRel);
        }
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
        self.reader.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who is woken, and whether since somebody asked.
    #[derive(Default)]
    struct Reader(AtomicBool);

    impl Reader {
        fn was_woken(&self) -> bool {
            self.0.swap(false, Ordering::AcqRel)
        }
    }

    impl Wake for Reader {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Release);
        }
    }

    fn hung() -> (Bell, Arc<Reader>, Waker) {
        let reader = Arc::<Reader>::default();
        let waker = Waker::from(Arc::clone(&reader));
        (Bell::new(waker.clone()), reader, waker)
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
        let ((mut bell, reader, waker), mut socket) = (hung(), Dry::default());
        let mut context = Context::from_waker(&waker);
        let mut poll = |socket: &mut Dry| bell.poll(&mut context, |context| socket.read(context));
        for _ in 0..3 {
            assert!(poll(&mut socket).is_pending());
        }
        assert_eq!(socket.reads, 1);
        assert!(!reader.was_woken());
        socket.waker.take().unwrap().wake();
        assert!(reader.was_woken(), "there is something to read");
        for _ in 0..3 {
            assert!(poll(&mut socket).is_pending());
        }
        assert_eq!(socket.reads, 2);
    }

    #[test]
    fn what_is_said_during_a_read_is_not_lost() {
        let ((mut bell, _, waker), mut reads) = (hung(), 0);
        let mut context = Context::from_waker(&waker);
        for _ in 0..3 {
            let polled = bell.poll(&mut context, |context| {
                reads += 1;
                context.waker().wake_by_ref();
                Poll::<()>::Pending
            });
            assert!(polled.is_pending());
        }
        assert_eq!(reads, 3);
    }

    #[test]
    fn another_reader_is_woken_itself_and_leaves_no_bell_behind() {
        let ((mut bell, reader, waker), mut socket) = (hung(), Dry::default());
        let mut context = Context::from_waker(&waker);
        for _ in 0..2 {
            let mut nobody = Context::from_waker(Waker::noop());
            assert!(
                bell.poll(&mut context, |context| socket.read(context))
                    .is_pending()
            );
            assert!(
                bell.poll(&mut nobody, |context| socket.read(context))
                    .is_pending()
            );
        }
        assert_eq!(socket.reads, 4);
        socket.waker.take().unwrap().wake();
        assert!(!reader.was_woken());
    }

    #[test]
    fn who_read_without_the_bell_may_have_taken_it_off() {
        let ((mut bell, _, waker), mut socket) = (hung(), Dry::default());
        let mut context = Context::from_waker(&waker);
        for _ in 0..2 {
            assert!(
                bell.poll(&mut context, |context| socket.read(context))
                    .is_pending()
            );
            bell.take_off();
        }
        assert_eq!(socket.reads, 2);
    }

    #[test]
    fn what_there_is_is_read_without_a_call() {
        let (mut bell, _, waker) = hung();
        let mut context = Context::from_waker(&waker);
        for number in 0..3 {
            assert_eq!(
                bell.poll(&mut context, |_| Poll::Ready(number)),
                Poll::Ready(number)
            );
        }
    }
}
