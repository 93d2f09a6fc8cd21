//! Which core is whose, and what a thread may open.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

/// Who has which core: the program under test the first, alone; generator and origin the others, the last both where there
/// are two.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    pub tested: usize,
    pub generator: usize,
    pub origin: usize,
}

impl Cores {
    /// Of those that this process may use.
    pub fn of_this_process() -> Result<Self, String> {
        let failed = |error: nix::Error| format!("the cores cannot be told: {error}");
        let all = sched_getaffinity(Pid::from_raw(0)).map_err(failed)?;
        let each: Vec<usize> = (0..CpuSet::count())
            .filter(|&core| all.is_set(core).unwrap_or(false))
            .collect();
        match each[..] {
            [tested, generator, .., origin] => Ok(Self {
                tested,
                generator,
                origin,
            }),
            [tested, origin] => Ok(Self {
                tested,
                generator: origin,
                origin,
            }),
            _ => Err(
                "one core is not enough: what is tested needs one that nothing else is on"
                    .to_owned(),
            ),
        }
    }
}

/// Binds this thread, and those that it will start, to one core.
pub fn bind(core: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(core)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(|error| format!("a thread cannot be bound to core {core}: {error}"))
}

/// A thousand streams through a proxy are two thousand sockets in its process, which inherits this.
pub fn raise_open_files() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Where it is refused, the connections that fail say so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}
