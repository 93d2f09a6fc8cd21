//! Why no sample comes of a process that uses CPU time, as far as the system tells.

use std::fmt;
use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;

/// So many samples must be due before it is said that none comes: a process that works in short bursts gets fewer than its CPU time
/// says, but not none of so many.
const MANY: f64 = 100.0;

/// What keeps samples from coming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// All threads have the sampler's signal blocked: they inherit that from who started the process.
    Blocked,
    /// There is a seccomp filter, which may refuse the timer.
    Filtered,
    /// The system does not say.
    Unknown,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blocked => {
                "all its threads have the signal SIGPROF blocked, as whoever started it had; start it from where the signal is not blocked"
            }
            Self::Filtered => {
                "no SIGPROF comes, and a seccomp filter is on it, which may refuse setitimer (ITIMER_PROF); allow that call"
            }
            Self::Unknown => {
                "no SIGPROF comes; see whether something here refuses or takes over setitimer (ITIMER_PROF)"
            }
        })
    }
}

impl Silence {
    /// What keeps samples of this process from coming, of which none came.
    pub fn of_this_process() -> Self {
        let own = Path::new("/proc/self");
        let filter = fs::read_to_string(own.join("status"));
        match filter.as_deref().map(|status| field(status, "Seccomp:")) {
            _ if is_blocked() => Self::Blocked,
            Ok(Some("2")) => Self::Filtered,
            _ => Self::Unknown,
        }
    }
}

/// Whether one sample at least would be there of so much CPU time, in nanoseconds, at `hertz` samples in a second of it.
pub fn is_clear(cpu_ns: u64, hertz: f64) -> bool {
    cpu_ns as f64 / 1e9 * hertz >= MANY
}

/// Whether no thread of this process takes the sampler's signal. Where the system does not tell, one does.
pub(crate) fn is_blocked() -> bool {
    let Ok(threads) = fs::read_dir("/proc/self/task") else {
        return false;
    };
    let mut masks = (threads.flatten())
        // One that has ended meanwhile has none.
        .filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok())
        .peekable();
    masks.peek().is_some() && masks.all(|status| blocks(&status))
}

/// Whether a thread with this `status` (proc_pid_status(5)) has SIGPROF blocked.
fn blocks(status: &str) -> bool {
    let mask = field(status, "SigBlk:").and_then(|mask| u64::from_str_radix(mask, 16).ok());
    mask.is_some_and(|mask| mask >> (Signal::SIGPROF as i32 - 1) & 1 == 1)
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::SigSet;

    use super::*;

    #[test]
    fn a_thread_that_blocks_the_signal_is_found() {
        let own = || fs::read_to_string("/proc/thread-self/status").unwrap();
        assert!(!blocks(&own()));
        let profiled = SigSet::from(Signal::SIGPROF);
        profiled.thread_block().unwrap();
        assert!(blocks(&own()));
        profiled.thread_unblock().unwrap();
        assert!(!blocks(&own()));
        for cut in ["", "SigBlk:", "SigBlk:\tx", "Name:\tSigBlk"] {
            assert!(!blocks(cut));
        }
    }

    #[test]
    fn none_of_a_hundred_is_clear() {
        assert!(is_clear(510_000_000, 199.0));
        assert!(!is_clear(490_000_000, 199.0));
        assert!(!is_clear(10_000_000_000, 1.0));
    }
}
