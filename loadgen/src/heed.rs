//! What ends an exchange before its time: the run's stop, and the exchange's own limit.
//!
//! To wait for either anew costs more than most of what is done meanwhile, so the wait is kept from one exchange to the next; and since
//! work is polled for every token, each is asked when it moved and not each time.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokenlag_probes::{Clock, MonoClock, Stamp};
use tokio::task::unconstrained;
use tokio::time::{Sleep, sleep};

use crate::stop::Stop;

/// Why work was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The run was stopped.
    Stopped,
    /// It took longer than it may.
    TooLate,
}

/// One task's eye on the stop and the clock, for all that it does one after the other.
pub struct Heed {
    stop: Stop,
    raised: Pin<Box<dyn Future<Output = ()>>>,
    limit: Duration,
    sleep: Pin<Box<Sleep>>,
    /// When the sleep ends, as the project's own clock tells it. It is never later than a limit that is waited for.
    fires: Stamp,
    /// Who is woken by both.
    waiting: Option<Waker>,
}

impl Heed {
    /// Heeds `stop`, and for each exchange so long a limit. Needs a runtime with timers.
    pub fn new(stop: &Stop, limit: Duration) -> Self {
        let raised = stop.clone();
        Self {
            stop: stop.clone(),
            // Not held back by the runtime: once it was asked, it waits.
            raised: Box::pin(unconstrained(async move { raised.raised().await })),
            limit,
            sleep: Box::pin(sleep(limit)),
            fires: MonoClock.now() + limit,
            waiting: None,
        }
    }

    /// How long an exchange may take.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Does `work`, unless and until the run is stopped: then `None`. It is pinned where it lies, and so not moved.
    pub async fn unless_stopped<T>(
        &mut self,
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        poll_fn(|context| {
            if self.stop.is_raised() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(Some(done));
            }
            // Whoever waits next waits as another.
            self.waiting = None;
            self.raised.as_mut().poll(context).map(|()| None)
        })
        .await
    }

    /// Does `work`, which `began` a moment ago, within the limit.
    ///
    /// # Errors
    /// It was given up.
    pub async fn in_time<T>(
        &mut self,
        began: Stamp,
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, Cut> {
        let until = began + self.limit;
        poll_fn(|context| {
            if self.stop.has_moved() && self.stop.is_raised() {
                return Poll::Ready(Err(Cut::Stopped));
            }
            match work.as_mut().poll(context) {
                Poll::Ready(done) => Poll::Ready(Ok(done)),
                Poll::Pending => self.poll_cut(until, context).map(Err),
            }
        })
        .await
    }

    fn poll_cut(&mut self, until: Stamp, context: &mut Context<'_>) -> Poll<Cut> {
        let is_waiting = (self.waiting.as_ref()).is_some_and(|it| it.will_wake(context.waker()));
        if is_waiting && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        if !is_waiting && self.raised.as_mut().poll(context).is_ready() {
            return Poll::Ready(Cut::Stopped);
        }
        while pin!(unconstrained(self.sleep.as_mut()))
            .poll(context)
            .is_ready()
        {
            if self.fires >= until {
                return Poll::Ready(Cut::TooLate);
            }
            // It was set for an exchange that is over.
            let later = u64::try_from(until.since(self.fires)).unwrap_or(0);
            let deadline = self.sleep.deadline() + Duration::from_nanos(later);
            self.sleep.as_mut().reset(deadline);
            self.fires = until;
        }
        if !is_waiting {
            self.waiting = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::task::{LocalSet, yield_now};

    use super::*;
    use crate::stop::stop;

    const LIMIT: Duration = Duration::from_millis(20);

    fn now() -> Stamp {
        MonoClock.now()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn work_that_waits_is_given_up_and_work_that_is_done_is_not() {
        let (_stopper, stop) = stop();
        let mut heed = Heed::new(&stop, LIMIT);
        for _ in 0..3 {
            assert_eq!(heed.in_time(now(), pin!(ready(7))).await, Ok(7));
            let began = now();
            let endless = pin!(pending::<()>());
            assert_eq!(heed.in_time(began, endless).await, Err(Cut::TooLate));
            assert!(now().since(began) >= LIMIT.as_nanos() as i64);
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_wait_that_was_set_for_an_earlier_exchange_ends_no_later_one() {
        let (_stopper, stop) = stop();
        let mut heed = Heed::new(&stop, LIMIT);
        for _ in 0..6 {
            let soon = pin!(sleep(LIMIT / 2));
            assert_eq!(heed.in_time(now(), soon).await, Ok(()));
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn work_that_never_rests_is_given_up_too() {
        let (_stopper, stop) = stop();
        let busy = pin!(async {
            loop {
                yield_now().await;
            }
        });
        let mut heed = Heed::new(&stop, LIMIT);
        assert_eq!(heed.in_time::<()>(now(), busy).await, Err(Cut::TooLate));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_stop_ends_what_goes_on_and_lets_nothing_begin() {
        let (stopper, stop) = stop();
        let mut heed = Heed::new(&stop, Duration::from_secs(60));
        let work = async {
            // Others were waited for before, by the same task.
            assert_eq!(heed.in_time(now(), pin!(yield_now())).await, Ok(()));
            let stopping = pin!(async {
                for _ in 0..100 {
                    yield_now().await;
                }
                tokio::task::spawn_local(async move { stopper.stop() });
                pending::<()>().await;
            });
            assert_eq!(heed.in_time(now(), stopping).await, Err(Cut::Stopped));
            let never = pin!(async { panic!("it began") });
            assert_eq!(heed.in_time::<()>(now(), never).await, Err(Cut::Stopped));
            assert_eq!(heed.unless_stopped(pin!(pending::<()>())).await, None);
        };
        LocalSet::new().run_until(work).await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn work_goes_on_in_another_task_and_where_nobody_is_left_to_stop_it() {
        let (stopper, stop) = stop();
        let mut heed = Heed::new(&stop, LIMIT);
        assert_eq!(heed.in_time(now(), pin!(yield_now())).await, Ok(()));
        drop(stopper);
        let elsewhere = async move {
            assert_eq!(heed.unless_stopped(pin!(yield_now())).await, Some(()));
            heed.in_time(now(), pin!(pending::<()>())).await
        };
        let moved = LocalSet::new()
            .run_until(async { tokio::task::spawn_local(elsewhere).await })
            .await;
        assert_eq!(moved.unwrap(), Err(Cut::TooLate));
    }
}
