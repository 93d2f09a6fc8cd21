//! CPU time of the threads of this process.

use std::fs;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike;

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

/// Cores that may be used.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A thousand streams through the proxy are four thousand sockets in one process.
pub fn raise_open_files() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Where it is refused, the connections that fail say so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}
