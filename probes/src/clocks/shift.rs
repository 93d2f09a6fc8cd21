//! Moving the other end's stamps onto our clock.

use serde::{Deserialize, Serialize};

use crate::clock::Stamp;
use crate::exchange::HopExchange;

use super::ClockBatch;
use super::round_trip::clamped;

/// A stretch of a run between two batches of round trips, over which the offset is a straight line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockSpan {
    /// The batch before it.
    pub before: ClockBatch,
    /// The batch after it; the same one where there was none.
    pub after: ClockBatch,
}

impl ClockSpan {
    /// How far the other clock was ahead `at` a moment of ours, in nanoseconds. Outside of the stretch it is as at its end.
    pub fn offset_at_ours(&self, at: Stamp) -> i64 {
        self.offset(at, |batch| batch.moment())
    }

    /// The same `at` a moment of the other clock.
    pub fn offset_at_theirs(&self, at: Stamp) -> i64 {
        self.offset(at, |batch| batch.fastest.their_moment())
    }

    fn offset(&self, at: Stamp, moment: impl Fn(&ClockBatch) -> Stamp) -> i64 {
        let (from, to) = (moment(&self.before), moment(&self.after));
        let (first, last) = (
            self.before.fastest.offset_ns(),
            self.after.fastest.offset_ns(),
        );
        if to <= from {
            return first;
        }
        let whole = i128::from(to.as_nanos() - from.as_nanos());
        let gone = i128::from(at.clamp(from, to).as_nanos() - from.as_nanos());
        let by = i128::from(last) - i128::from(first);
        // Below 2^64 each: the product stays below 2^128 only if the offset moved by less than 2^63, or it is cut.
        let moved = by.checked_mul(gone).map_or(0, |product| product / whole);
        clamped(i128::from(first) + moved)
    }

    /// Moves the stamps of `hop` onto our clock.
    ///
    /// All but those of the deltas after the first are moved alike, by the offset at the first delta: differences among them
    /// stay as the proxy's clock took them, to the nanosecond, and the legs of the first token add up as on one clock. Each
    /// further delta is moved by the offset at its own moment: a long stream outlasts a drift that is small.
    pub fn move_onto_ours(&self, hop: &mut HopExchange) {
        let first = hop.up_token.first().or(hop.up_written.as_ref());
        let offset = self.offset_at_theirs(*first.unwrap_or(&hop.in_body));
        let once = [&mut hop.in_head, &mut hop.in_body];
        let maybe = [&mut hop.up_written, &mut hop.up_end];
        let mut alike: Vec<&mut Stamp> = once.into_iter().collect();
        alike.extend(maybe.into_iter().flatten());
        for stamps in [&mut hop.up_token, &mut hop.out_token] {
            let mut stamps = stamps.iter_mut();
            alike.extend(stamps.next());
            for stamp in stamps {
                *stamp = stamp.moved_by(self.offset_at_theirs(*stamp).wrapping_neg());
            }
        }
        for stamp in alike {
            *stamp = stamp.moved_by(offset.wrapping_neg());
        }
    }
}
