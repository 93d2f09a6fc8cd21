//! Waiting for a moment as exactly as a thread can: asleep until shortly before, and the rest on the processor.

use std::os::fd::BorrowedFd;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::prctl::set_timerslack;
use nix::sys::time::TimeSpec;
use thread_priority::unix::{
    RealtimeThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id, thread_schedule_policy_param,
};
use thread_priority::{ThreadPriority, ThreadPriorityValue};

/// The kernel wakes a thread some ten microseconds late, and one in a hundred times a hundred: a thread wakes so long before the
/// moment, and waits the rest out on the processor. The long wait is for moments that are rare. In nanoseconds.
const SPIN: u64 = 40_000;
const LONG: u64 = 120_000;
/// Long waits take half of a core at most, over some time: in nanoseconds of waiting, what was saved up for them at most.
const SAVED: u64 = 1_000_000;

/// How long a thread waits on the processor. Pure: the moment comes in as an argument.
#[derive(Debug, Default)]
pub(crate) struct Spinning {
    saved: u64,
    last: u64,
    is_spinning: bool,
}

impl Spinning {
    /// Whether the thread, which has nothing else to do at `now`, waits on the processor for what is due in `left`.
    pub(crate) fn waits(&mut self, now: u64, left: u64) -> bool {
        self.pass(now);
        let longest = match self.is_spinning || self.saved >= LONG {
            true => LONG,
            false => SPIN,
        };
        self.is_spinning = left <= longest;
        self.is_spinning
    }

    /// The thread does something else at `now`.
    pub(crate) fn rests(&mut self, now: u64) {
        self.pass(now);
        self.is_spinning = false;
    }

    /// How long it may sleep where what is due in `left` is not waited for yet.
    pub(crate) fn sleep(&self, left: u64) -> u64 {
        let early = left.saturating_sub(LONG);
        match early > 0 && self.saved + early / 2 >= LONG {
            true => early,
            false => left.saturating_sub(SPIN),
        }
    }

    fn pass(&mut self, now: u64) {
        let half = (now - self.last) / 2;
        self.last = now;
        self.saved = match self.is_spinning {
            true => self.saved.saturating_sub(half),
            false => (self.saved + half).min(SAVED),
        };
    }
}

/// Makes the calling thread as punctual as it may be.
pub(crate) fn be_punctual() {
    // Without it the kernel may wake a thread 50 us late so as to wake several at once (prctl(2)).
    let _ = set_timerslack(1);
    // The thread runs before all that has no such priority (sched(7), SCHED_FIFO): a link is exact on a busy host too, where
    // others would be let finish their slice of some milliseconds first. Who may not do that has a link that is less exact
    // then, and the release error says so.
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let _ = set_thread_priority_and_policy(thread_native_id(), above_the_others(), policy);
}

/// One above what the thread has as yet: a run that was started with real-time priority gives its own to all of its processes,
/// and among equals a packet would wait until the model sleeps.
fn above_the_others() -> ThreadPriority {
    match thread_schedule_policy_param(thread_native_id()) {
        Ok((ThreadSchedulePolicy::Realtime(_), own)) => {
            let above = u8::try_from(own.sched_priority + 1).unwrap_or(u8::MAX);
            let above = ThreadPriorityValue::try_from(above);
            above.map_or(ThreadPriority::Max, ThreadPriority::Crossplatform)
        }
        _ => ThreadPriority::Min,
    }
}

/// What sleeping ended with: which descriptors have something to be read, and which are broken.
#[derive(Debug)]
pub(crate) struct Woken<const N: usize> {
    pub(crate) ready: [bool; N],
    pub(crate) gone: [bool; N],
}

/// Sleeps until one of `wanted` can be read, or so many nanoseconds.
///
/// # Errors
/// The system's own.
pub(crate) fn sleep<const N: usize>(
    wanted: [BorrowedFd<'_>; N],
    nanos: Option<u64>,
) -> nix::Result<Woken<N>> {
    let mut fds = wanted.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    let limit = nanos
        .map(|nanos| TimeSpec::new((nanos / 1_000_000_000) as _, (nanos % 1_000_000_000) as _));
    match ppoll(&mut fds, limit, None) {
        Ok(_) => {}
        Err(nix::Error::EINTR) => {
            return Ok(Woken {
                ready: [false; N],
                gone: [false; N],
            });
        }
        Err(error) => return Err(error),
    }
    // A device that was deleted is ready at once, for ever, and never has a packet again.
    let gone = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
    Ok(Woken {
        ready: std::array::from_fn(|at| fds[at].any().unwrap_or(true)),
        gone: std::array::from_fn(|at| {
            let events = fds[at].revents();
            events.is_none_or(|events| events.intersects(gone))
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The share of the time that is waited on the processor where something is due every `gap` nanoseconds, and nothing else
    /// takes any time.
    fn share(gap: u64) -> f64 {
        let (mut now, mut spun) = (0, 0);
        let mut spinning = Spinning::default();
        for number in 1..=1_000 {
            let due = number * gap;
            while now < due {
                let left = due - now;
                let step = match spinning.waits(now, left) {
                    true => left.min(1_000),
                    false => spinning.sleep(left).max(1),
                };
                spun += if spinning.is_spinning { step } else { 0 };
                now += step;
            }
            spinning.rests(now);
        }
        spun as f64 / now as f64
    }

    #[test]
    fn rare_moments_are_waited_for_long_and_dense_ones_are_not() {
        let rare = share(10_000_000);
        assert!((rare - 0.012).abs() < 0.001, "{rare}");
        let dense = share(120_000);
        assert!((0.33..0.6).contains(&dense), "{dense}");
        assert!(share(300_000) < 0.5);
        assert_eq!(share(30_000), 1.0, "too dense for any sleep");
    }
}
