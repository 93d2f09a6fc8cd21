//! What the proxy's process used up to now, as `/usage` says it.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use tokenlag_channel::SocketWatch;
use tokenlag_probes::{ProcessUsage, ProxyUsage};

/// What the proxy's sockets did below their bytes, side by side.
#[derive(Clone, Debug)]
pub(crate) struct Watches {
    /// Those to clients.
    pub(crate) door: SocketWatch,
    /// Those to upstreams.
    pub(crate) upstream: SocketWatch,
}

impl Watches {
    /// All that `/usage` says. `None` where the system does not tell what the process used.
    pub(crate) fn with_process(&self, allocations: Option<fn() -> u64>) -> Option<ProxyUsage> {
        let (door, upstream) = (self.door.so_far(), self.upstream.so_far());
        Some(ProxyUsage {
            process: so_far(allocations)?,
            door: Some(door),
            upstream: Some(upstream),
        })
    }
}

/// `allocations` counts them, where that was built in. `None` where the system does not tell.
pub(crate) fn so_far(allocations: Option<fn() -> u64>) -> Option<ProcessUsage> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let nanos = |time: TimeVal| u64::try_from(time.num_nanoseconds()).unwrap_or(0);
    Some(ProcessUsage {
        user_ns: nanos(usage.user_time()),
        system_ns: nanos(usage.system_time()),
        allocations: allocations.map(|count| count()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_and_allocations_are_told_where_somebody_counts_them() {
        let before = so_far(None).unwrap();
        assert_eq!(before.allocations, None);
        let mut sum = 0u64;
        let spent = loop {
            for i in 0..1_000_000u64 {
                sum = std::hint::black_box(sum.wrapping_add(i));
            }
            let spent = so_far(None).unwrap().since(&before);
            if spent.user_ns > 0 {
                break spent;
            }
        };
        assert!(spent.share(100).is_some());
        assert_eq!(so_far(Some(|| 7)).unwrap().allocations, Some(7));
    }
}
