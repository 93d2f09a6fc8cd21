//! Waiting for a moment, to within tens of microseconds: a kernel timer first, a short yielding spin last.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokenlag_probes::{Clock, Stamp};
use tokio::net::unix::pipe;

/// How early the timer fires: what it takes to wake up, and no more, since the rest is spun away.
const EARLY: Duration = Duration::from_micros(80);

/// Tokio's timers tick in milliseconds: used where the kernel gives no timer, this much ahead.
const TICK: Duration = Duration::from_micros(1_200);

/// Waits until stamps of a monotonic clock.
///
/// The wait is as good as the host's scheduler; how late it really was is for the caller to record.
pub struct Pacer {
    timer: Option<Timer>,
}

impl Pacer {
    /// A pacer with a kernel timer of its own. Needs a tokio runtime with I/O.
    pub fn new() -> Self {
        Self {
            timer: Timer::new().ok(),
        }
    }

    /// Returns at `moment`, or at once where it has passed. Lets other tasks run meanwhile, so that reads that fall
    /// due during the wait are stamped in time.
    pub async fn until(&self, clock: &impl Clock, moment: Stamp) {
        let left = span(clock.now(), moment);
        if left > EARLY {
            match &self.timer {
                Some(timer) => timer.sleep(left - EARLY).await,
                None => coarse_sleep(left).await,
            }
        }
        while clock.now() < moment {
            tokio::task::yield_now().await;
        }
    }
}

impl Default for Pacer {
    fn default() -> Self {
        Self::new()
    }
}

/// A timerfd, and a second handle on it that the runtime polls. To the runtime it is the reading end of a pipe: all
/// that it does with one is to wait until it is readable, and to read.
struct Timer {
    timer: TimerFd,
    ticks: pipe::Receiver,
}

impl Timer {
    fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let handle = timer.as_fd().try_clone_to_owned()?;
        Ok(Self {
            ticks: pipe::Receiver::from_owned_fd_unchecked(handle)?,
            timer,
        })
    }

    async fn sleep(&self, span: Duration) {
        let expiration = Expiration::OneShot(TimeSpec::from_duration(span));
        if self
            .timer
            .set(expiration, TimerSetTimeFlags::empty())
            .is_err()
        {
            return coarse_sleep(span).await;
        }
        // Setting the timer anew clears what an abandoned wait left; a readiness that is stale all the same finds
        // nothing to read, and waits on.
        while self.ticks.readable().await.is_ok() {
            match self.ticks.try_read(&mut [0; 8]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => return,
            }
        }
    }
}

async fn coarse_sleep(span: Duration) {
    tokio::time::sleep(span.saturating_sub(TICK)).await;
}

fn span(from: Stamp, to: Stamp) -> Duration {
    Duration::from_nanos(u64::try_from(to.since(from)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use tokenlag_probes::MonoClock;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn never_early_and_seldom_late() {
        let clock = MonoClock;
        let pacer = Pacer::new();
        let mut late = Vec::new();
        for micros in [0, 10, 90, 200, 1_000, 1_300, 2_500, 5_000].repeat(4) {
            let moment = clock.now() + Duration::from_micros(micros);
            pacer.until(&clock, moment).await;
            late.push(clock.now().since(moment));
        }
        late.sort_unstable();
        assert!(late[0] >= 0, "{late:?}");
        // The median, since a busy host may steal any single wait.
        assert!(late[late.len() / 2] < 1_000_000, "{late:?}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_wait_that_was_given_up_does_not_disturb_the_next() {
        let clock = MonoClock;
        let pacer = Pacer::new();
        let soon = clock.now() + Duration::from_millis(3);
        let given_up = pacer.until(&clock, soon);
        tokio::time::timeout(Duration::from_millis(1), given_up)
            .await
            .ok();
        let later = clock.now() + Duration::from_millis(8);
        pacer.until(&clock, later).await;
        assert!(clock.now() >= later);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_moment_in_the_past_is_now() {
        let clock = MonoClock;
        let before = clock.now();
        Pacer::new().until(&clock, Stamp::from_nanos(1)).await;
        assert!(clock.now().since(before) < 500_000_000);
    }
}
