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

    /// Of `all` cores those on which what runs beside the measuring (an emulated link's relay, perf) disturbs least: nobody's, or
    /// else the backend's, which stamps nothing. `None`: nobody is bound to one, or the load generator could not be spared.
    pub fn beside(self, all: &[usize]) -> Option<Vec<usize>> {
        let Self {
            generator,
            proxy,
            sidecar,
            backend,
        } = self;
        generator?;
        let stamping = [generator, proxy, sidecar];
        let but = |taken: &[Option<usize>]| -> Vec<usize> {
            let is_free = |core: &&usize| !taken.contains(&Some(**core));
            all.iter().filter(is_free).copied().collect()
        };
        [
            but(&[stamping.as_slice(), &[backend]].concat()),
            but(&stamping),
            but(&[generator]),
        ]
        .into_iter()
        .find(|cores| !cores.is_empty())
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
    bind_process(0, &[core])
}

/// Has the process `pid` (its first thread, and those that it will start) run on these cores alone; 0: the calling thread.
pub fn bind_process(pid: u32, cores: &[usize]) -> nix::Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core)?;
    }
    sched_setaffinity(Pid::from_raw(pid.cast_signed()), &set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_beside_keeps_off_who_stamps() {
        let pinned = |cores: [usize; 4]| {
            let [generator, proxy, sidecar, backend] = cores.map(Some);
            Pinning {
                generator,
                proxy,
                sidecar,
                backend,
            }
        };
        for (cores, taken, expected) in [
            (2, [0, 0, 0, 1], Some(vec![1])),
            (4, [0, 1, 2, 3], Some(vec![3])),
            (8, [0, 1, 2, 7], Some(vec![3, 4, 5, 6])),
            (1, [0, 0, 0, 0], None),
        ] {
            let all: Vec<usize> = (0..cores).collect();
            assert_eq!(pinned(taken).beside(&all), expected, "{taken:?}");
        }
        assert_eq!(Pinning::default().beside(&[0, 1]), None);
    }
}
