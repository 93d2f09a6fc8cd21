//! CPU time, waits for a core and context switches of a process, from /proc.

use std::fs;
use std::path::Path;

use nix::unistd::gettid;
use tokenlag_probes::RunQueue;

/// What a process used up to now, over all its threads that are alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    cpu_ns: u64,
    run_queue: RunQueue,
    context_switches: u64,
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
        let context_switches = status
            .lines()
            .filter_map(|line| line.split_once("ctxt_switches:"))
            .filter_map(|(_, count)| count.trim().parse::<u64>().ok())
            .sum();
        Some(Self {
            cpu_ns,
            run_queue: RunQueue {
                delay_ns,
                timeslices,
            },
            context_switches,
        })
    }

    fn add(&mut self, other: &Self) {
        self.cpu_ns += other.cpu_ns;
        self.run_queue.add(&other.run_queue);
        self.context_switches += other.context_switches;
    }

    /// What was used since `earlier`: CPU time, waits, context switches.
    pub fn since(&self, earlier: &Self) -> (u64, RunQueue, u64) {
        let run_queue = RunQueue {
            delay_ns: self
                .run_queue
                .delay_ns
                .saturating_sub(earlier.run_queue.delay_ns),
            timeslices: self
                .run_queue
                .timeslices
                .saturating_sub(earlier.run_queue.timeslices),
        };
        (
            self.cpu_ns.saturating_sub(earlier.cpu_ns),
            run_queue,
            self.context_switches
                .saturating_sub(earlier.context_switches),
        )
    }
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
        let (cpu_ns, ..) = Usage::of(pid).unwrap().since(&before);
        assert!(cpu_ns > 0);
        let (cpu_ns, ..) = Usage::of_this_thread().unwrap().since(&before_here);
        assert!(cpu_ns > 0);
        assert_eq!(Usage::of(u32::MAX), None);
        let both = Usage::of_all([pid, pid]).unwrap();
        assert!(both.cpu_ns >= 2 * before.cpu_ns);
        assert_eq!(Usage::of_all([pid, u32::MAX]), None);
    }
}
