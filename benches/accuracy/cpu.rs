//! CPU time and cores of the threads of this process.

use std::fs;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike;
use nix::unistd::Pid;

/// CPU time in nanoseconds of the calling thread.
pub fn of_this_thread() -> u64 {
    of(UsageWho::RUSAGE_THREAD)
}

/// CPU time in nanoseconds of the whole process, threads that ended included.
pub fn of_the_process() -> u64 {
    of(UsageWho::RUSAGE_SELF)
}

fn of(who: UsageWho) -> u64 {
    getrusage(who).map_or(0, |usage| {
        let spent = usage.user_time() + usage.system_time();
        spent.num_nanoseconds().unsigned_abs()
    })
}

/// CPU time in nanoseconds of the live threads whose names begin so.
pub fn of_threads(prefix: &str) -> u64 {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else {
        return 0;
    };
    let spent = |task: fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        let schedstat = fs::read_to_string(task.path().join("schedstat")).ok()?;
        let nanos: u64 = schedstat.split_whitespace().next()?.parse().ok()?;
        name.starts_with(prefix).then_some(nanos)
    };
    tasks.flatten().filter_map(spent).sum()
}

/// Cores that may be used, and who has which: the last is the instrument's, as the command gives it to the backend.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    all: CpuSet,
    pub count: usize,
    pub generator: usize,
    pub proxy: usize,
    pub instrument: usize,
}

impl Cores {
    pub fn of_this_process() -> Result<Self, String> {
        let failed = |error: nix::Error| format!("the cores cannot be told: {error}");
        let all = sched_getaffinity(Pid::from_raw(0)).map_err(failed)?;
        let each: Vec<usize> = (0..CpuSet::count())
            .filter(|&core| all.is_set(core).unwrap_or(false))
            .collect();
        let (first, last) = match each[..] {
            [first, .., last] => (first, last),
            [only] => (only, only),
            [] => return Err("there is no core to run on".to_owned()),
        };
        Ok(Self {
            all,
            count: each.len(),
            generator: first,
            proxy: if each.len() > 2 { each[1] } else { first },
            instrument: last,
        })
    }

    /// Gives this thread, and those that it will start, all cores.
    pub fn bind_to_all(&self) {
        // Where it is refused, the figures are those of a machine that shares.
        let _ = sched_setaffinity(Pid::from_raw(0), &self.all);
    }
}

/// Binds this thread, and those that it will start, to one core.
pub fn bind(core: usize) {
    let mut set = CpuSet::new();
    if set.set(core).is_ok() {
        let _ = sched_setaffinity(Pid::from_raw(0), &set);
    }
}

/// A thousand streams through the proxy are four thousand sockets in one process.
pub fn raise_open_files() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Where it is refused, the connections that fail say so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}
