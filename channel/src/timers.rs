//! Limits of time on what one connection's exchanges wait for, again and again.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokenlag_probes::{Clock, MonoClock, Stamp};
use tokio::task::coop::has_budget_remaining;
use tokio::time::{Sleep, sleep};

use crate::bounds::TooLate;

/// Timers that are not stopped when a wait is over but serve the next one: nearly every wait ends long before its limit,
/// and to enter a timer and take it out again costs more than most of them. One that fires too early for its wait is set
/// anew. There are as many as waits at a time.
#[derive(Debug, Default)]
pub(crate) struct Timers(RefCell<Vec<Timer>>);

#[derive(Debug)]
struct Timer {
    sleep: Pin<Box<Sleep>>,
    /// As the project's own clock tells it.
    fires: Stamp,
    /// Who is woken then.
    wakes: Option<Waker>,
}

/// One wait; its timer goes back in the end.
#[derive(Debug)]
pub(crate) struct Wait<'a> {
    timers: &'a Timers,
    limit: Duration,
    /// From when the wait began in earnest.
    until: Option<Stamp>,
    timer: Option<Timer>,
}

impl Timers {
    /// A wait that has not begun yet.
    pub(crate) fn wait(&self, limit: Duration) -> Wait<'_> {
        Wait {
            timers: self,
            limit,
            until: None,
            timer: None,
        }
    }

    /// Waits so long for `wanted`. What is there at once needs no timer.
    ///
    /// # Errors
    /// It was not over in time.
    pub(crate) async fn in_time<T>(
        &self,
        limit: Duration,
        mut wanted: impl Future<Output = T> + Unpin,
    ) -> Result<T, TooLate> {
        let mut wait = self.wait(limit);
        poll_fn(|context| match Pin::new(&mut wanted).poll(context) {
            Poll::Ready(found) => Poll::Ready(Ok(found)),
            Poll::Pending => wait.poll_over(context).map(|()| Err(TooLate)),
        })
        .await
    }
}

impl Wait<'_> {
    /// Ready once it has lasted too long. It begins as this is first asked.
    pub(crate) fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let until = *self.until.get_or_insert_with(|| MonoClock.now() + limit);
        let timer = self.timer.get_or_insert_with(|| {
            let kept = self.timers.0.borrow_mut().pop();
            kept.unwrap_or_else(|| Timer {
                sleep: Box::pin(sleep(limit)),
                fires: until,
                wakes: None,
            })
        });
        if timer.fires > until {
            timer.set(until);
        }
        while timer.poll(context).is_ready() {
            if timer.fires >= until {
                return Poll::Ready(());
            }
            timer.set(until);
        }
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.timers.0.borrow_mut().extend(self.timer.take());
    }
}

impl Timer {
    /// Whether it fired. Who is woken by it already is not entered again, as whoever waits for one token after the other would be.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let waker = context.waker();
        let knows = self.wakes.as_ref().is_some_and(|it| it.will_wake(waker));
        if knows && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        // A task that is to make way for others is told to wait, and to ask again.
        let asked = has_budget_remaining();
        let fired = self.sleep.as_mut().poll(context);
        self.wakes = (asked && fired.is_pending()).then(|| waker.clone());
        fired
    }

    fn set(&mut self, fires: Stamp) {
        let off = fires.since(self.fires);
        let off_by = Duration::from_nanos(off.unsigned_abs());
        let deadline = self.sleep.deadline();
        let deadline = match off < 0 {
            true => deadline - off_by,
            false => deadline + off_by,
        };
        self.sleep.as_mut().reset(deadline);
        self.fires = fires;
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(20);

    fn now() -> Stamp {
        MonoClock.now()
    }

    #[tokio::test]
    async fn what_is_there_needs_no_timer_and_what_is_not_is_given_up_after_its_limit() {
        let timers = Timers::default();
        assert_eq!(timers.in_time(LIMIT, ready(7)).await, Ok(7));
        assert!(timers.0.borrow().is_empty());
        let began = now();
        assert_eq!(timers.in_time(LIMIT, pending::<()>()).await, Err(TooLate));
        assert!(now().since(began) >= LIMIT.as_nanos() as i64);
        assert_eq!(timers.0.borrow().len(), 1);
    }

    #[tokio::test]
    async fn a_timer_that_was_set_for_an_earlier_wait_ends_no_later_one() {
        let timers = Timers::default();
        for _ in 0..5 {
            let soon = Box::pin(sleep(LIMIT / 2));
            assert_eq!(timers.in_time(LIMIT, soon).await, Ok(()));
        }
        let began = now();
        assert_eq!(timers.in_time(LIMIT, pending::<()>()).await, Err(TooLate));
        assert!(now().since(began) >= LIMIT.as_nanos() as i64);
        assert_eq!(timers.0.borrow().len(), 1, "one wait at a time, one timer");
    }

    #[tokio::test]
    async fn a_timer_that_was_set_for_longer_is_set_for_less() {
        let timers = Timers::default();
        let soon = Box::pin(sleep(LIMIT / 2));
        let hour = Duration::from_secs(3600);
        assert_eq!(timers.in_time(hour, soon).await, Ok(()));
        assert_eq!(timers.in_time(LIMIT, pending::<()>()).await, Err(TooLate));
    }

    #[tokio::test]
    async fn waits_at_a_time_have_a_timer_each() {
        let timers = Timers::default();
        let (one, other) = tokio::join!(
            timers.in_time(LIMIT, pending::<()>()),
            timers.in_time(2 * LIMIT, Box::pin(sleep(LIMIT + LIMIT / 2))),
        );
        assert_eq!((one, other), (Err(TooLate), Ok(())));
        assert_eq!(timers.0.borrow().len(), 2);
    }
}
