//! CPU time, waits for a core and context switches of threads, from /proc.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::unistd::gettid;
use tokenlag_probes::{ProcessUsage, RunQueue};

/// The proxy's thread that takes its profile. It runs when nothing else wants its core, and a run that is not profiled has none:
/// it is the instrument's work and not the proxy's.
const INSTRUMENT: &str = "profile";

/// What a thread used up to now, or several in a stretch of time.
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

/// What the threads of processes used up to now, each by itself: a thread that ends takes its account with it, and must not take
/// what the others did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Threads(BTreeMap<u32, Usage>);

/// On which side of a stretch of time a thread reads what it used itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The CPU time is read last.
    Before,
    /// The CPU time is read first.
    After,
}

impl Threads {
    /// Of all threads of the processes `pids`, but those that take a profile; `None` where /proc does not tell of one process.
    pub fn of(pids: impl IntoIterator<Item = u32>) -> Option<Self> {
        let mut threads = BTreeMap::new();
        for pid in pids {
            for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
                let id = task.file_name().to_str().and_then(|id| id.parse().ok());
                let (Some(id), task) = (id, task.path()) else {
                    continue;
                };
                let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
                if name.trim_end() == INSTRUMENT {
                    continue;
                }
                // A thread that ended since is no error.
                if let Some(usage) = Usage::of_thread(&task, Side::After) {
                    threads.insert(id, usage);
                }
            }
        }
        Some(Self(threads))
    }

    /// What was used since `earlier` by the threads that are there now, from their beginning where they began since. What a thread
    /// did that has ended is missing.
    pub fn since(&self, earlier: &Self) -> Usage {
        let mut sum = Usage::default();
        for (id, now) in &self.0 {
            let then = earlier.0.get(id).copied().unwrap_or_default();
            sum.add(&now.since(&then));
        }
        sum
    }
}

impl Usage {
    /// Of the calling thread alone: what others of this process do beside it is none of what it measures.
    pub fn of_this_thread(side: Side) -> Option<Self> {
        Self::of_thread(Path::new(&format!("/proc/self/task/{}", gettid())), side)
    }

    fn of_thread(task: &Path, side: Side) -> Option<Self> {
        let status = || fs::read_to_string(task.join("status")).unwrap_or_default();
        let schedstat = || fs::read_to_string(task.join("schedstat")).ok();
        let (status, schedstat) = match side {
            Side::Before => {
                let status = status();
                (status, schedstat()?)
            }
            Side::After => {
                let schedstat = schedstat()?;
                (status(), schedstat)
            }
        };
        Self::parse(&schedstat, &status)
    }

    fn parse(schedstat: &str, status: &str) -> Option<Self> {
        let mut fields = schedstat.split_whitespace().map(|field| field.parse().ok());
        let (cpu_ns, delay_ns, timeslices) = (fields.next()??, fields.next()??, fields.next()??);
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

    /// Adds what `other` used.
    pub fn add(&mut self, other: &Self) {
        self.cpu_ns += other.cpu_ns;
        self.run_queue.add(&other.run_queue);
        self.voluntary_switches += other.voluntary_switches;
        self.involuntary_switches += other.involuntary_switches;
    }

    /// What the thread used since `earlier`.
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

    fn spin() {
        let mut sum = 0u64;
        for i in 0..20_000_000u64 {
            sum = std::hint::black_box(sum.wrapping_add(i));
        }
    }

    #[test]
    fn work_shows() {
        let pid = std::process::id();
        let before = Threads::of([pid]).unwrap();
        let before_here = Usage::of_this_thread(Side::Before).unwrap();
        spin();
        let here = Usage::of_this_thread(Side::After)
            .unwrap()
            .since(&before_here);
        assert!(here.cpu_ns > 0);
        assert!(Threads::of([pid]).unwrap().since(&before).cpu_ns >= here.cpu_ns);
        let modes = modes_of_this_thread().unwrap();
        assert!(modes.user_ns + modes.system_ns >= here.cpu_ns / 2);
        assert_eq!(Threads::of([u32::MAX]), None);
        assert_eq!(Threads::of([pid, u32::MAX]), None);
    }

    /// Threads by their number and CPU time.
    fn threads(of: &[(u32, u64)]) -> Threads {
        let usage = |&(id, cpu_ns): &(u32, u64)| {
            let usage = Usage {
                cpu_ns,
                voluntary_switches: cpu_ns / 10,
                ..Usage::default()
            };
            (id, usage)
        };
        Threads(of.iter().map(usage).collect())
    }

    #[test]
    fn a_thread_that_ends_takes_nothing_of_what_the_others_did() {
        let before = threads(&[(1, 1_000), (2, 9_000_000), (3, 50)]);
        let after = threads(&[(1, 1_600), (3, 50), (4, 70)]);
        let spent = after.since(&before);
        assert_eq!((spent.cpu_ns, spent.voluntary_switches), (670, 67));
        assert_eq!(after.since(&after), Usage::default());
        assert_eq!(threads(&[]).since(&before), Usage::default());
    }

    #[test]
    fn the_thread_that_takes_a_profile_is_not_counted() {
        let pid = std::process::id();
        let named = |name: &str| {
            let thread = std::thread::Builder::new().name(name.to_owned());
            let counted = move || {
                let own = gettid().as_raw().unsigned_abs();
                Threads::of([pid]).unwrap().0.contains_key(&own)
            };
            thread.spawn(counted).unwrap().join().unwrap()
        };
        assert!(named("proxy-0"));
        assert!(!named(INSTRUMENT));
    }

    #[test]
    fn a_thread_that_waits_switches_by_its_own_will() {
        let before = Usage::of_this_thread(Side::Before).unwrap();
        for _ in 0..20 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let spent = Usage::of_this_thread(Side::After).unwrap().since(&before);
        assert!(spent.voluntary_switches >= 20, "{spent:?}");
        assert_eq!(
            spent.switches(),
            spent.voluntary_switches + spent.involuntary_switches
        );
    }
}
