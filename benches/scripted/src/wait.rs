//! Waiting for a moment: sleep most of it, spin the rest.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokenlag_probes::{Clock, MonoClock, Stamp};

/// A sleeping thread wakes late by some tens of microseconds; from here on it spins.
const SPIN_NANOS: i64 = 150_000;
/// How long it sleeps before it looks whether it should stop.
const LONGEST_SLEEP: Duration = Duration::from_millis(10);

/// Waits until `moment`; false where `stopping` was set before it came.
pub(crate) fn until(moment: Stamp, stopping: &AtomicBool) -> bool {
    loop {
        if stopping.load(Ordering::Relaxed) {
            return false;
        }
        let left = moment.since(MonoClock.now());
        if left <= 0 {
            return true;
        }
        if left > SPIN_NANOS {
            let sleep = Duration::from_nanos((left - SPIN_NANOS) as u64);
            std::thread::sleep(sleep.min(LONGEST_SLEEP));
        } else {
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_at_least_until_the_moment() {
        let running = AtomicBool::new(false);
        for micros in [0, 50, 400, 2_000] {
            let moment = MonoClock.now() + Duration::from_micros(micros);
            assert!(until(moment, &running));
            assert!(MonoClock.now() >= moment);
        }
    }

    #[test]
    fn it_gives_up_when_told_to_stop() {
        let moment = MonoClock.now() + Duration::from_secs(60);
        assert!(!until(moment, &AtomicBool::new(true)));
    }
}
