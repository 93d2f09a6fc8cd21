//! Time: the one file of the project that reads a clock.
//!
//! Everything else takes a [`Clock`], or a [`Stamp`] that somebody took; clippy's `disallowed-methods` says so.

#![expect(
    clippy::disallowed_methods,
    reason = "this is the file that reads the clock"
)]

use std::cell::Cell;
use std::ops::Add;
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A moment, in nanoseconds of `CLOCK_MONOTONIC`: one time base for all processes of one host.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Stamp(u64);

impl Stamp {
    /// A stamp that was taken elsewhere (another process of this host, a file).
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Signed nanoseconds from `earlier` to this stamp; negative where `earlier` is the later one.
    pub const fn since(self, earlier: Stamp) -> i64 {
        self.0.wrapping_sub(earlier.0) as i64
    }

    /// The stamp so many nanoseconds later, or earlier where they are negative. [`since`](Self::since) takes it back
    /// exactly, even where the clock's origin lies between.
    pub const fn moved_by(self, nanos: i64) -> Stamp {
        Stamp(self.0.wrapping_add_signed(nanos))
    }

    /// The moment in the middle of two.
    pub const fn midpoint(self, other: Stamp) -> Stamp {
        Stamp(self.0.midpoint(other.0))
    }
}

impl Add<Duration> for Stamp {
    type Output = Stamp;

    fn add(self, span: Duration) -> Stamp {
        Stamp(self.0 + span.as_nanos() as u64)
    }
}

/// Where stamps come from.
pub trait Clock {
    /// The moment of the call.
    fn now(&self) -> Stamp;
}

/// The host's monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct MonoClock;

impl Clock for MonoClock {
    fn now(&self) -> Stamp {
        let time =
            clock_gettime(ClockId::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC exists on every Linux");
        Stamp(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
    }
}

impl MonoClock {
    /// What one read of this clock costs, in nanoseconds: the mean over `reads` reads in a row.
    pub fn read_cost(self, reads: u32) -> f64 {
        let start = self.now();
        for _ in 1..reads {
            std::hint::black_box(self.now());
        }
        self.now().since(start) as f64 / f64::from(reads)
    }
}

/// The name of this process's `CLOCK_MONOTONIC`: the kernel's boot and the time namespace (time_namespaces(7)). Two processes
/// whose clock has one name read one clock. `None` where the system does not tell.
pub fn clock_name() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    // Kernels before 5.6 have no time namespaces: one clock a boot.
    let namespace = std::fs::read_link("/proc/self/ns/time").unwrap_or_default();
    Some(format!("{} {}", boot.trim(), namespace.display()))
}

/// Both clocks of the host at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BothClocks {
    /// The moment, by `CLOCK_MONOTONIC`.
    pub at: Stamp,
    /// How far `CLOCK_REALTIME` was ahead of it, in nanoseconds.
    pub lead: i64,
    /// Both were read within so many nanoseconds.
    pub within: u64,
}

impl MonoClock {
    /// The moment of the call, and how far the wall clock is ahead: it is read between two reads of this one.
    pub fn with_wall(self) -> BothClocks {
        let at = self.now();
        let wall = clock_gettime(ClockId::CLOCK_REALTIME).expect("CLOCK_REALTIME exists");
        let within = self.now().0.saturating_sub(at.0);
        let wall = wall.tv_sec() * 1_000_000_000 + wall.tv_nsec();
        BothClocks {
            at,
            lead: wall - (at.0 + within / 2) as i64,
            within,
        }
    }
}

/// A clock that a test moves by hand.
#[derive(Debug, Default)]
pub struct ManualClock(Cell<u64>);

impl ManualClock {
    /// A clock that stands at `nanos`.
    pub fn at(nanos: u64) -> Self {
        Self(Cell::new(nanos))
    }

    /// Moves the clock on.
    pub fn advance(&self, span: Duration) {
        self.0.set(self.0.get() + span.as_nanos() as u64);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Stamp {
        Stamp(self.0.get())
    }
}

/// The wall clock, for labels only (file names, `started_at`, `created`): never subtracted.
pub fn wall_clock() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_clock_never_goes_back() {
        let clock = MonoClock;
        let mut last = clock.now();
        for _ in 0..10_000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn spans_are_signed() {
        let clock = ManualClock::at(1_000);
        let first = clock.now();
        clock.advance(Duration::from_nanos(500));
        let second = clock.now();
        assert_eq!(second.since(first), 500);
        assert_eq!(first.since(second), -500);
        assert_eq!(first + Duration::from_nanos(500), second);
    }
}
