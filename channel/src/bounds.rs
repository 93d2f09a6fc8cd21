//! What a request that is read whole may cost: its size, its time, and the memory of all of them together.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use tokenlag_probes::{Clock, MonoClock, Stamp};
use tokio::time::{Sleep, sleep};

use crate::ExchangeError;

/// How large a request may be, how long it may take, and how long its reply may wait for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeLimits {
    /// How long its head may take.
    pub head: Duration,
    /// How long nothing may come of its body.
    pub idle: Duration,
    /// How long it may take in all.
    pub whole: Duration,
    /// The longest body, in bytes.
    pub body: usize,
    /// How long the client may take no byte of the reply.
    pub stalled: Duration,
}

impl Default for ExchangeLimits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            whole: Duration::from_secs(600),
            body: 64 * 1024 * 1024,
            stalled: Duration::from_secs(120),
        }
    }
}

/// Times the reads of one request.
#[derive(Debug)]
pub(crate) struct Pace {
    limits: ExchangeLimits,
    began: Stamp,
}

impl Pace {
    /// Begins now.
    pub(crate) fn new(limits: ExchangeLimits) -> Self {
        Self::since(MonoClock.now(), limits)
    }

    /// Began when the first of the request came.
    pub(crate) fn since(began: Stamp, limits: ExchangeLimits) -> Self {
        Self { limits, began }
    }

    /// Begins anew.
    pub(crate) fn begin(&mut self, began: Stamp) {
        self.began = began;
    }

    /// Waits for a read as long as it may take. Until `head` is there, the head's limit holds.
    pub(crate) async fn wait<T>(
        &self,
        head: bool,
        read: impl Future<Output = T> + Unpin,
    ) -> Result<T, ExchangeError> {
        let mut passed = self.limits.idle;
        let left = || {
            let spent = MonoClock.now().since(self.began).max(0) as u64;
            let left = |limit: Duration| limit.saturating_sub(Duration::from_nanos(spent));
            let (limit, left) = if !head {
                (self.limits.head, left(self.limits.head))
            } else if left(self.limits.whole) < self.limits.idle {
                (self.limits.whole, left(self.limits.whole))
            } else {
                (self.limits.idle, self.limits.idle)
            };
            passed = limit;
            left
        };
        let read = within(left, read).await;
        read.map_err(|TooLate| ExchangeError::TooSlow(passed))
    }
}

/// Something was not over in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLate;

impl From<TooLate> for std::io::Error {
    fn from(TooLate: TooLate) -> Self {
        Self::new(std::io::ErrorKind::TimedOut, "it was not over in time")
    }
}

/// Waits so long for `wanted`. As tokio's `timeout`, but what is there at once needs no timer: most reads are.
/// What is waited for is pinned by the caller, since a future that is handed on is kept once more by each that takes it.
///
/// # Errors
/// It was not over in time.
pub(crate) async fn in_time<T>(
    limit: Duration,
    wanted: impl Future<Output = T> + Unpin,
) -> Result<T, TooLate> {
    within(|| limit, wanted).await
}

/// The same for a limit that is asked for once it matters.
async fn within<T>(
    limit: impl FnOnce() -> Duration,
    mut wanted: impl Future<Output = T> + Unpin,
) -> Result<T, TooLate> {
    let mut limit = Some(limit);
    // Apart from the future, which keeps no room for what is seldom there.
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|context| {
        if let Poll::Ready(found) = Pin::new(&mut wanted).poll(context) {
            return Poll::Ready(Ok(found));
        }
        if let Some(limit) = limit.take() {
            timer = Some(Box::pin(sleep(limit())));
        }
        match &mut timer {
            Some(timer) => timer.as_mut().poll(context).map(|()| Err(TooLate)),
            None => Poll::Pending,
        }
    })
    .await
}

/// Memory that the requests of a door may have together.
#[derive(Debug)]
pub struct Room {
    limit: usize,
    used: AtomicUsize,
}

impl Room {
    /// Room for so many bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicUsize::new(0),
        })
    }

    /// Bytes of it that are taken.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }
}

/// A part of a [`Room`], given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    room: Arc<Room>,
    bytes: usize,
}

impl Share {
    /// Nothing of it yet.
    pub fn new(room: &Arc<Room>) -> Self {
        Self {
            room: Arc::clone(room),
            bytes: 0,
        }
    }

    /// Gives all of it back.
    pub(crate) fn give_back(&mut self) {
        let taken = std::mem::take(&mut self.bytes);
        // Nearly always it is nothing, and all threads have the room.
        if taken > 0 {
            self.room.used.fetch_sub(taken, Relaxed);
        }
    }

    /// Takes `bytes` more. What did not fit is taken nevertheless, until the share is dropped.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), ExchangeError> {
        let used = self.room.used.fetch_add(bytes, Relaxed) + bytes;
        self.bytes += bytes;
        if used > self.room.limit {
            return Err(ExchangeError::NoRoom);
        }
        Ok(())
    }

    /// Takes `bytes` in all, more or less than before.
    ///
    /// # Errors
    /// There is no room for so many more: the share stays as it was.
    pub fn resize(&mut self, bytes: usize) -> Result<(), ExchangeError> {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            self.room.used.fetch_sub(self.bytes - bytes, Relaxed);
        } else if self.room.used.fetch_add(more, Relaxed) + more > self.room.limit {
            self.room.used.fetch_sub(more, Relaxed);
            return Err(ExchangeError::NoRoom);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// How much it is.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> ExchangeLimits {
        ExchangeLimits {
            head: Duration::from_millis(1),
            idle: Duration::from_millis(2),
            whole: Duration::from_secs(3600),
            ..ExchangeLimits::default()
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn each_part_of_a_request_has_its_time() {
        let pace = Pace::new(limits());
        let never = std::future::pending::<()>;
        let slow = |limit| Err(ExchangeError::TooSlow(Duration::from_millis(limit)));
        assert_eq!(pace.wait(false, never()).await, slow(1));
        assert_eq!(pace.wait(true, never()).await, slow(2));
        assert_eq!(pace.wait(true, std::future::ready(7)).await, Ok(7));
        let whole = Pace::new(ExchangeLimits {
            whole: Duration::from_millis(1),
            ..limits()
        });
        assert_eq!(whole.wait(true, never()).await, slow(1));
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let room = Room::new(10);
        let mut first = Share::new(&room);
        let mut second = Share::new(&room);
        assert_eq!(first.grow(6), Ok(()));
        assert_eq!(second.grow(4), Ok(()));
        assert_eq!(second.grow(1), Err(ExchangeError::NoRoom));
        drop(second);
        assert_eq!(first.grow(4), Ok(()));
        assert_eq!(room.used(), 10);
    }

    #[test]
    fn a_share_that_cannot_grow_stays_as_it_was() {
        let room = Room::new(10);
        let (mut first, mut second) = (Share::new(&room), Share::new(&room));
        assert_eq!(first.resize(8), Ok(()));
        assert_eq!(second.resize(3), Err(ExchangeError::NoRoom));
        assert_eq!((second.bytes(), room.used()), (0, 8));
        assert_eq!(first.resize(7), Ok(()));
        assert_eq!(second.resize(3), Ok(()));
        drop((first, second));
        assert_eq!(room.used(), 0);
    }
}
