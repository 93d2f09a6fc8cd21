//! How busy a relay was at its busiest: one that is full for a moment and idle for the rest is at its end all the same.

/// The stretch of time over which a relay's work is told, in nanoseconds.
pub(crate) const WINDOW: u64 = 100_000_000;

/// The work of a thread in stretches of time, of which the busiest one is kept. Pure: moments come in as arguments.
#[derive(Clone, Debug, Default)]
pub(crate) struct Busy {
    window: u64,
    worked: u64,
    most: u64,
}

impl Busy {
    /// The thread worked from then to then, in nanoseconds of a clock that never goes back.
    pub(crate) fn works(&mut self, from: u64, to: u64) {
        let mut from = from;
        while from < to {
            let window = from / WINDOW;
            if window != self.window {
                (self.window, self.worked) = (window, 0);
            }
            let end = to.min((window + 1) * WINDOW);
            self.worked += end - from;
            self.most = self.most.max(self.worked);
            from = end;
        }
    }

    /// The share of its busiest stretch in which it worked.
    pub(crate) fn most(&self) -> f64 {
        self.most as f64 / WINDOW as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_rush_is_seen_and_idling_does_not_dilute_it() {
        let mut busy = Busy::default();
        assert_eq!(busy.most(), 0.0);
        // A tenth of each stretch, for ten seconds.
        for number in 0..100 {
            busy.works(number * WINDOW, number * WINDOW + WINDOW / 10);
        }
        assert!((busy.most() - 0.1).abs() < 1e-9);
        // Two thirds of one stretch and all of the next, in a single rush.
        busy.works(1_000 * WINDOW + WINDOW / 3, 1_002 * WINDOW);
        assert_eq!(busy.most(), 1.0);
        busy.works(2_000 * WINDOW, 2_000 * WINDOW + 1);
        assert_eq!(busy.most(), 1.0, "the busiest is kept");
    }
}
