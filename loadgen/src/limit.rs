//! A limit of time on work that is polled for every token: the timer is asked when it fired, and not each time.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::task::unconstrained;
use tokio::time::sleep;

/// Does `work`; `None` where it is not done within `limit`. It is pinned where it lies, and so not moved.
pub(crate) async fn in_time<T>(
    limit: Duration,
    mut work: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    let mut timer = pin!(sleep(limit));
    let mut waiting: Option<Waker> = None;
    poll_fn(|context| {
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(Some(done));
        }
        let is_waiting = (waiting.as_ref()).is_some_and(|it| it.will_wake(context.waker()));
        if !is_waiting || timer.is_elapsed() {
            // Not held back by the runtime: once it was asked, it is set.
            let over = pin!(unconstrained(timer.as_mut())).poll(context);
            if over.is_ready() {
                return Poll::Ready(None);
            }
            waiting = Some(context.waker().clone());
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(20);

    #[tokio::test(flavor = "current_thread")]
    async fn work_that_waits_is_given_up_and_work_that_is_done_is_not() {
        assert_eq!(in_time(LIMIT, pin!(async { 7 })).await, Some(7));
        let endless = pin!(std::future::pending::<()>());
        assert_eq!(in_time(LIMIT, endless).await, None);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn work_that_never_rests_is_given_up_too() {
        let busy = pin!(async {
            loop {
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(in_time::<()>(LIMIT, busy).await, None);
    }
}
