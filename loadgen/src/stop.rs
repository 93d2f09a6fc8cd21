//! A flag that ends a run at once: raised by Ctrl-C, by a child's death, by a disk that is full.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::unconstrained;

/// The side that raises the flag. Dropping it raises nothing.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// The side that heeds it.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// A flag that is down, and its two sides.
pub fn stop() -> (Stopper, Stop) {
    let (raise, heed) = watch::channel(false);
    (Stopper(raise), Stop(heed))
}

impl Stopper {
    /// Raises the flag, for good.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// The flag is up.
    pub fn is_raised(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when the flag goes up; never, if nobody can raise it any more.
    pub async fn raised(&self) {
        let mut heed = self.0.clone();
        if heed.wait_for(|&raised| raised).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Does `work`, unless and until the flag is up: then `None`, and the work is dropped. Work whose future is large is better
    /// pinned before: it is not moved then.
    pub async fn or<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        // Not held back by the runtime: once it was asked, it waits.
        let mut raised = pin!(unconstrained(self.raised()));
        let mut waiting: Option<Waker> = None;
        poll_fn(|context| {
            // Work is polled for every token. Whoever waits for the flag is woken by it, and asks again only when it moved.
            let is_waiting = (waiting.as_ref()).is_some_and(|it| it.will_wake(context.waker()));
            if !is_waiting || self.has_moved() {
                if raised.as_mut().poll(context).is_ready() {
                    return Poll::Ready(None);
                }
                waiting = Some(context.waker().clone());
            }
            work.as_mut().poll(context).map(Some)
        })
        .await
    }

    /// It may be up: cheaper to ask than whether it is.
    pub(crate) fn has_moved(&self) -> bool {
        self.0.has_changed().unwrap_or(true)
    }

    /// Does `work` to its end, for which it has `grace` once the flag is up: then `None`, and the work is dropped.
    pub async fn or_within<T>(&self, grace: Duration, work: impl Future<Output = T>) -> Option<T> {
        let given_up = async {
            self.raised().await;
            tokio::time::sleep(grace).await;
        };
        tokio::select! {
            biased;
            done = work => Some(done),
            () = given_up => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn work_is_dropped_once_the_flag_is_up() {
        let (stopper, stop) = stop();
        assert_eq!(stop.or(async { 1 }).await, Some(1));
        stopper.stop();
        assert!(stop.is_raised());
        assert_eq!(stop.or(std::future::pending::<u8>()).await, None);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_flag_ends_work_that_was_polled_often_and_then_waits() {
        let (stopper, stop) = stop();
        let work = async {
            for _ in 0..1_000 {
                tokio::task::yield_now().await;
            }
            tokio::task::spawn_local(async move { stopper.stop() });
            std::future::pending::<()>().await;
        };
        let local = tokio::task::LocalSet::new();
        assert_eq!(local.run_until(stop.or(work)).await, None);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn work_goes_on_where_nobody_is_left_to_raise_the_flag() {
        let (stopper, stop) = stop();
        let work = async {
            drop(stopper);
            tokio::task::yield_now().await;
            7
        };
        assert_eq!(stop.or(work).await, Some(7));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn work_that_may_end_has_a_little_time() {
        let (stopper, stop) = stop();
        let short = Duration::from_millis(20);
        let work = || tokio::time::sleep(short / 4);
        assert_eq!(stop.or_within(short, work()).await, Some(()));
        stopper.stop();
        assert_eq!(stop.or_within(short, work()).await, Some(()));
        let endless = std::future::pending::<()>();
        assert_eq!(stop.or_within(short, endless).await, None);
    }
}
