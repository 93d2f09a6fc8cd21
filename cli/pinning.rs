//! Which process runs on which core.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;

use crate::args::values::Pin;

/// A core for each process; `None`: where the system puts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pinning {
    /// The load generator.
    pub generator: Option<usize>,
    /// The proxy.
    pub proxy: Option<usize>,
    /// The proxies of pairs that stand beside the generator.
    pub sidecar: Option<usize>,
    /// The backend.
    pub backend: Option<usize>,
}

impl Pinning {
    /// The backend on the last core, so that its work never takes the path's time; generator and proxy on the first
    /// ones, on one and the same where there are but two. The second proxy of a pair has a core of its own where there are
    /// four, and shares the first proxy's elsewhere: what stamps the tokens keeps its core to itself as long as it can.
    pub fn choose(pin: Pin) -> Self {
        match (pin, &cores()[..]) {
            (Pin::Auto, [first, second, third, .., last]) => Self {
                generator: Some(*first),
                proxy: Some(*second),
                sidecar: Some(*third),
                backend: Some(*last),
            },
            (Pin::Auto, [first, second, last]) => Self {
                generator: Some(*first),
                proxy: Some(*second),
                sidecar: Some(*second),
                backend: Some(*last),
            },
            (Pin::Auto, [first, last]) => Self {
                generator: Some(*first),
                proxy: Some(*first),
                sidecar: Some(*first),
                backend: Some(*last),
            },
            _ => Self::default(),
        }
    }
}

/// The cores that this process may run on.
pub fn cores() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else {
        return Vec::new();
    };
    (0..CpuSet::count())
        .filter(|&core| set.is_set(core).unwrap_or(false))
        .collect()
}

/// Binds this thread, and those that it will start, to one core.
pub fn bind(core: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set)
}
