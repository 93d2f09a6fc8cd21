//! One round trip to the other end's clock, the reply that brings its stamps, and the fastest of many.

use serde::{Deserialize, Serialize};

use crate::clock::Stamp;

/// The latest stamp that is believed, in nanoseconds: 292 years after the clock's origin.
const LATEST: u64 = i64::MAX as u64;
/// The longest name of a clock.
const LONGEST_NAME: usize = 256;

/// What the proxy's `/clock` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockReply {
    /// When the read returned that completed the request, by the proxy's clock.
    pub received: Stamp,
    /// Before the reply was written.
    pub replied: Stamp,
    /// The name of its clock; see [`clock_name`](crate::clock::clock_name).
    #[serde(default)]
    pub clock: Option<String>,
}

/// Why a reply of `/clock` tells no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClockReplyError {
    /// Not the JSON that was expected.
    #[error("it is not an object with the whole numbers `received` and `replied`: {0}")]
    Json(String),
    /// A stamp that no clock shows.
    #[error("its stamp of {0} ns is more than 292 years after the clock's origin")]
    TooLate(u64),
    /// The reply was sent before the request came.
    #[error("its clock went back by {0} ns between the request and the reply")]
    Backwards(u64),
    /// The name of its clock is too long.
    #[error("the name of its clock has {0} bytes, more than {LONGEST_NAME}")]
    Name(usize),
}

impl ClockReply {
    /// Reads the body of a reply.
    ///
    /// # Errors
    /// It is no such reply, or tells times that no clock shows one after the other.
    pub fn parse(body: &[u8]) -> Result<Self, ClockReplyError> {
        let reply: Self = serde_json::from_slice(body)
            .map_err(|error| ClockReplyError::Json(error.to_string()))?;
        let latest = reply.received.max(reply.replied).as_nanos();
        if latest > LATEST {
            return Err(ClockReplyError::TooLate(latest));
        }
        if reply.replied < reply.received {
            let by = reply.received.as_nanos() - reply.replied.as_nanos();
            return Err(ClockReplyError::Backwards(by));
        }
        match reply.clock.as_ref().map_or(0, String::len) {
            length if length > LONGEST_NAME => Err(ClockReplyError::Name(length)),
            _ => Ok(reply),
        }
    }
}

/// The four stamps of one round trip: two of our clock around two of the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundTrip {
    /// Before the write of the request, by our clock.
    pub sent: Stamp,
    /// The read that completed it, by the other clock.
    pub received: Stamp,
    /// Before the write of the reply, by the other clock.
    pub replied: Stamp,
    /// The read with the reply's first byte, by our clock.
    pub arrived: Stamp,
}

impl RoundTrip {
    /// How long request and reply were under way together, in nanoseconds; negative where the stamps contradict each other.
    pub fn delay_ns(&self) -> i64 {
        let ours = span(self.sent, self.arrived);
        clamped(ours - span(self.received, self.replied))
    }

    /// How far the other clock is ahead of ours if both ways took as long, in nanoseconds.
    pub fn offset_ns(&self) -> i64 {
        clamped((span(self.sent, self.received) + span(self.arrived, self.replied)) / 2)
    }

    /// The offset is no farther from [`offset_ns`](Self::offset_ns) than this, in nanoseconds, however unlike the two ways are.
    pub fn half_ns(&self) -> u64 {
        self.delay_ns().max(0).unsigned_abs().div_ceil(2)
    }

    /// The middle of it by our clock.
    pub fn moment(&self) -> Stamp {
        self.sent.midpoint(self.arrived)
    }

    /// The middle of it by the other clock.
    pub fn their_moment(&self) -> Stamp {
        self.received.midpoint(self.replied)
    }

    /// Each end's stamps are in order, and the other end had the request for no longer than we waited.
    pub fn is_possible(&self) -> bool {
        self.sent <= self.arrived && self.received <= self.replied && self.delay_ns() >= 0
    }

    /// All four stamps are in order, as they are where the clock is one.
    pub fn allows_one_clock(&self) -> bool {
        self.sent <= self.received && self.received <= self.replied && self.replied <= self.arrived
    }
}

/// The fastest of some round trips that were made one right after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockBatch {
    /// How many there were.
    pub round_trips: u32,
    /// The fastest of them: it waited least on its way, so it bounds the offset best.
    pub fastest: RoundTrip,
}

impl ClockBatch {
    /// The middle of the fastest by our clock.
    pub fn moment(&self) -> Stamp {
        self.fastest.moment()
    }

    /// The fastest of those whose stamps are possible; `None` where there is none.
    pub fn of(round_trips: impl IntoIterator<Item = RoundTrip>) -> Option<Self> {
        let mut count = 0u32;
        let possible = round_trips.into_iter().inspect(|_| count += 1);
        let fastest = possible
            .filter(RoundTrip::is_possible)
            .min_by_key(RoundTrip::delay_ns)?;
        Some(Self {
            round_trips: count,
            fastest,
        })
    }
}

fn span(from: Stamp, to: Stamp) -> i128 {
    i128::from(to.as_nanos()) - i128::from(from.as_nanos())
}

pub(super) fn clamped(nanos: i128) -> i64 {
    nanos.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}
