//! How far a run is: counted by sessions, read by whoever draws it.

use std::cell::Cell;

/// Exchanges finished so far, warm-ups included.
#[derive(Debug, Default)]
pub struct Progress {
    complete: Cell<u64>,
    failed: Cell<u64>,
}

impl Progress {
    /// Notes one exchange's end.
    pub(crate) fn finished(&self, complete: bool) {
        let count = if complete {
            &self.complete
        } else {
            &self.failed
        };
        count.set(count.get() + 1);
    }

    /// Exchanges that completed.
    pub fn complete(&self) -> u64 {
        self.complete.get()
    }

    /// Exchanges that did not.
    pub fn failed(&self) -> u64 {
        self.failed.get()
    }
}
