//! Two clocks: how far the proxy's is ahead of ours, how well that is known, and what of the run's figures hangs on it.
//!
//! A round trip to the proxy bounds the offset from both sides: what it read there came after it was sent here, and what it
//! sent there came before it was read here (David L. Mills, RFC 5905, section 8, has the same four stamps). The middle is
//! the estimate and half of the round trip the bound, however unlike the two ways are. The fastest of many is taken before
//! and after each cell, and between two of them the offset is a straight line, so that drift is followed through the run.

mod estimate;
mod round_trip;
mod shift;

use serde::{Deserialize, Serialize};

pub use estimate::{ClockEstimate, ClockRelation};
pub use round_trip::{ClockBatch, ClockReply, ClockReplyError, RoundTrip};
pub use shift::ClockSpan;

use crate::clock::Stamp;

/// What is known of the two ends' clocks: raw, as `run.json` keeps it. Every estimate is made of it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClockRecord {
    /// The name of the load generator's clock; see [`clock_name`](crate::clock::clock_name). `None` where the system does not tell.
    pub ours: Option<String>,
    /// The name of the proxy's.
    pub theirs: Option<String>,
    /// The run's start by our clock: cells count from it.
    pub started: Stamp,
    /// Round trips, in the order in which they were made; one batch alone where the clock is one.
    pub batches: Vec<ClockBatch>,
}

impl ClockRecord {
    /// Whether it is one clock. Two ends that give it the same name are not believed where a round trip speaks against it:
    /// a machine that was copied while it ran has its twin's name.
    pub fn relation(&self) -> ClockRelation {
        let same_name = self.ours.is_some() && self.ours == self.theirs;
        let may_be_one = (self.batches.iter()).all(|batch| batch.fastest.allows_one_clock());
        match same_name && may_be_one {
            true => ClockRelation::Same,
            false => ClockRelation::Estimated,
        }
    }

    /// The two ends stamp with clocks of their own.
    pub fn is_estimated(&self) -> bool {
        self.relation() == ClockRelation::Estimated
    }
}

#[cfg(test)]
mod report_tests;
#[cfg(test)]
mod tests;
