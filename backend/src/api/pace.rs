//! A limit on how fast the engine generates: the pace of a larger model, from a small one.

use std::num::NonZeroU32;
use std::time::Duration;

use tokenlag_probes::{Clock, MonoClock, Stamp};
use tokio::time::sleep;

/// Keeps steps that generate apart. Each sequence has one token of such a step, so that its rate is theirs.
#[derive(Debug)]
pub(super) struct Pace {
    step: Duration,
    /// When the next step that generates may begin.
    due: Stamp,
}

impl Pace {
    /// Each sequence has so many tokens a second at most.
    pub(super) fn new(tokens_per_second: NonZeroU32) -> Self {
        Self {
            step: Duration::from_secs(1) / tokens_per_second.get(),
            due: Stamp::default(),
        }
    }

    /// Waits until the next step may begin; `generated` where the last one did.
    ///
    /// Steps lie on a raster, so that a timer's own granularity of a millisecond delays single tokens and not their rate. After
    /// a pause, and after a step that took longer by itself, the raster begins anew.
    pub(super) async fn wait(&mut self, generated: bool) {
        if !generated {
            return;
        }
        let now = MonoClock.now();
        self.due = match self.due + self.step {
            due if due > now => due,
            _ => now + self.step,
        };
        let ahead = self.due.since(now);
        sleep(Duration::from_nanos(ahead.unsigned_abs())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn steps_that_generate_are_kept_apart_and_others_are_not() {
        let mut pace = Pace::new(NonZeroU32::new(200).unwrap());
        let begun = MonoClock.now();
        for _ in 0..10 {
            pace.wait(true).await;
            pace.wait(false).await;
        }
        let took = MonoClock.now().since(begun);
        assert!(took >= 50_000_000, "{took}");
        // Nothing is made up for: the first step after a pause has its whole time.
        std::thread::sleep(Duration::from_millis(20));
        let begun = MonoClock.now();
        pace.wait(true).await;
        pace.wait(true).await;
        let took = MonoClock.now().since(begun);
        assert!(took >= 10_000_000, "{took}");
    }
}
