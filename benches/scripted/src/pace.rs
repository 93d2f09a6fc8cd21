//! How a thread of the instrument keeps its moments: with real-time priority where that is allowed, else with a spin.

use std::fmt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::prctl::set_timerslack;
use nix::unistd::gettid;

/// A sleeping thread of usual priority wakes late by some tens of microseconds; from here on it spins.
const SPIN: i64 = 60_000;
/// The shortest sleep: what is due within it leaves together, so that many streams do not keep a core busy with waking up.
const NAP: i64 = 25_000;
/// Above everything of usual priority, below the kernel's own threads.
const PRIORITY: &str = "10";

/// How a thread keeps its moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// It sleeps until shortly before each moment and spins the rest.
    #[default]
    Spin,
    /// It has real-time priority (`SCHED_FIFO`) and sleeps until each moment, at least 25 us: whatever else runs, it goes first,
    /// and takes little more time than its writes need.
    RealTime,
}

impl Pace {
    /// How long to sleep where so many nanoseconds are left; zero where the rest is spun away.
    pub(crate) fn sleep(self, left: i64) -> Duration {
        let left = match self {
            Self::Spin => left - SPIN,
            Self::RealTime if left > 0 => left.max(NAP),
            Self::RealTime => 0,
        };
        Duration::from_nanos(u64::try_from(left).unwrap_or(0))
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spin => "a spin before each moment",
            Self::RealTime => "real-time priority (SCHED_FIFO)",
        })
    }
}

/// Takes that pace for this thread, or the other one where it is not allowed.
pub(crate) fn take(wanted: Pace) -> Pace {
    // Without it the kernel rounds sleeps up by 50 us; where it refuses, lateness will tell.
    let _ = set_timerslack(1);
    match wanted {
        Pace::RealTime if real_time() => Pace::RealTime,
        _ => Pace::Spin,
    }
}

/// The call behind it is not to be had without unsafe code; the command is part of every Linux (util-linux).
fn real_time() -> bool {
    let status = Command::new("chrt")
        .args(["--fifo", "--pid", PRIORITY])
        .arg(gettid().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}
