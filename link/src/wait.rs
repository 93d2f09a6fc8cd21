//! Waiting for a moment as exactly as a thread can: asleep until shortly before, and the rest on the processor.

use std::os::fd::BorrowedFd;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::prctl::set_timerslack;
use nix::sys::time::TimeSpec;
use thread_priority::ThreadPriority;
use thread_priority::unix::{
    RealtimeThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

/// A thread wakes so long before the moment, and waits the rest out on the processor: the kernel wakes one some ten
/// microseconds late. In nanoseconds.
pub(crate) const SPIN: u64 = 40_000;

/// Makes the calling thread as punctual as it may be.
pub(crate) fn be_punctual() {
    // Without it the kernel may wake a thread 50 us late so as to wake several at once (prctl(2)).
    let _ = set_timerslack(1);
    // The thread runs before all that has no such priority (sched(7), SCHED_FIFO): a link is exact on a busy host too, where
    // others would be let finish their slice of some milliseconds first. Who may not do that has a link that is less exact
    // then, and the release error says so.
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let _ = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy);
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
