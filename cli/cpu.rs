//! CPU time, waits for a core and context switches of a process, from /proc.

use std::fs;
use std::path::Path;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::unistd::gettid;
use tokenlag_probes::{ProcessUsage, RunQueue};

/// What a process used up to now, over all its threads that are alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in nanoseconds, user and system.
    pub cpu_ns: u64,
    /// Waits for a core.
    pub run_queue: RunQueue,
    /// Context switches that a thread asked for: it had to wait for something.
    pub voluntary_switches: u64,
    /// Those that it did not ask for: another was given its core.
    pub involuntary_switches: u64,
}

impl Usage {
    /// Of the process `pid`; `None` where /proc does not tell.
    pub fn of(pid: u32) -> Option<Self> {
        let mut usage = Self::default();
        for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
            // A thread that ended since is no error.
            if let Some(thread) = Self::of_thread(&task.path()) {
                usage.add(&thread);
            }
        }
        Some(usage)
    }

    /// Of several processes together; `None` where /proc does not tell of one of them.
    pub fn of_all(pids: impl IntoIterator<Item = u32>) -> Option<Self> {
        let mut sum = Self::default();
        for pid in pids {
            sum.add(&Self::of(pid)?);
        }
        Some(sum)
    }

    /// Of the calling thread alone: what others of this process do beside it is none of what it measures.
    pub fn of_this_thread() -> Option<Self> {
        Self::of_thread(Path::new(&format!("/proc/self/task/{}", gettid())))
    }

    fn of_thread(task: &Path) -> Option<Self> {
        let schedstat = fs::read_to_string(task.join("schedstat")).ok()?;
        let mut fields = schedstat.split_whitespace().map(|field| field.parse().ok());
        let (cpu_ns, delay_ns, timeslices) = (fields.next()??, fields.next()??, fields.next()??);
        let status = fs::read_to_string(task.join("status")).unwrap_or_default();
        let switches = |kind: &str| -> u64 {
            let mut counts = status.lines().filter_map(|line| line.strip_prefix(kind));
            let count = counts.next().and_then(|count| count.trim().parse().ok());
            count.unwrap_or(0)
        };
        Some(Self {
            cpu_ns,
            run_queue: RunQueue {
                delay_ns,
                timeslices,
            },
            voluntary_switches: switches("voluntary_ctxt_switches:"),
            involuntary_switches: switches("nonvoluntary_ctxt_switches:"),
        })
    }

    fn add(&mut self, other: &Self) {
        self.cpu_ns += other.cpu_ns;
        self.run_queue.add(&other.run_queue);
        self.voluntary_switches += other.voluntary_switches;
        self.involuntary_switches += other.involuntary_switches;
    }

    /// What was used since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let since = |now: u64, then: u64| now.saturating_sub(then);
        Self {
            cpu_ns: since(self.cpu_ns, earlier.cpu_ns),
            run_queue: self.run_queue.since(&earlier.run_queue),
            voluntary_switches: since(self.voluntary_switches, earlier.voluntary_switches),
            involuntary_switches: since(self.involuntary_switches, earlier.involuntary_switches),
        }
    }

    /// Context switches of both kinds.
    pub fn switches(&self) -> u64 {
        self.voluntary_switches + self.involuntary_switches
    }
}

/// User and system time of the calling thread apart; `None` where the system does not tell.
pub fn modes_of_this_thread() -> Option<ProcessUsage> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).ok()?;
    let nanos = |time: nix::sys::time::TimeVal| u64::try_from(time.num_nanoseconds()).unwrap_or(0);
    Some(ProcessUsage {
        user_ns: nanos(usage.user_time()),
        system_ns: nanos(usage.system_time()),
        allocations: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows() {
        let pid = std::process::id();
        let before = Usage::of(pid).unwrap();
        let before_here = Usage::of_this_thread().unwrap();
        let mut sum = 0u64;
        for i in 0..20_000_000u64 {
            sum = std::hint::black_box(sum.wrapping_add(i));
        }
        assert!(Usage::of(pid).unwrap().since(&before).cpu_ns > 0);
        let here = Usage::of_this_thread().unwrap().since(&before_here);
        assert!(here.cpu_ns > 0);
        let modes = modes_of_this_thread().unwrap();
        assert!(modes.user_ns + modes.system_ns >= here.cpu_ns / 2);
        assert_eq!(Usage::of(u32::MAX), None);
        let both = Usage::of_all([pid, pid]).unwrap();
        assert!(both.cpu_ns >= 2 * before.cpu_ns);
        assert_eq!(Usage::of_all([pid, u32::MAX]), None);
    }
    #[test]
    fn a_thread_that_waits_switches_by_its_own_will() {
        let before = Usage::of_this_thread().unwrap();
        for _ in 0..20 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let spent = Usage::of_this_thread().unwrap().since(&before);
        assert!(spent.voluntary_switches >= 20, "{spent:?}");
        assert_eq!(
            spent.switches(),
            spent.voluntary_switches + spent.involuntary_switches
        );
    }
}
