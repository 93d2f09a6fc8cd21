//! Where a delta's lateness comes from: the time that each part of its way took, from its arrival at the proxy to its mark, added up
//! over deltas. Sums, not distributions: only of sums is the whole the sum of its parts.

use serde::{Deserialize, Serialize};

use crate::clock::Stamp;
use crate::exchange::{Exchange, HopExchange};

/// What became of a delta once it had come. Stamps, not spans: a span that is too long for its field, or below zero, would be
/// wrong unseen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handling {
    /// The return of the read that brought it; the delta's own stamp where that is the read's.
    pub read: Stamp,
    /// The runtime had come round to the exchange: what else it had to read and to poll, and what the channel had to take off (TLS,
    /// frames), lies before.
    pub reached: Stamp,
    /// The decoder had found it.
    pub decoded: Stamp,
}

impl Handling {
    /// Nanoseconds from the kernel's receipt at `came` to the return of the read; zero where the read itself is the stamp.
    pub fn wakeup(&self, came: Stamp) -> i64 {
        self.read.since(came)
    }

    /// Nanoseconds from the read's return until the exchange was reached.
    pub fn poll(&self) -> i64 {
        self.reached.since(self.read)
    }

    /// Nanoseconds that the decoder took.
    pub fn decode(&self) -> i64 {
        self.decoded.since(self.reached)
    }
}

/// The parts of the lateness of many deltas, in nanoseconds. Those are counted that have a `token_overhead`, so the second and later
/// ones of joined exchanges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lateness {
    /// Deltas.
    pub deltas: u64,
    /// Time in the proxy: `out_token - up_token`.
    pub proxy_ns: i64,
    /// Time in the sidecar beside the load generator, in a pair.
    pub sidecar_ns: i64,
    /// Time on the way: `token - out_token`, but for that in the sidecar beside the load generator.
    pub way_ns: i64,
    /// Deltas of which it is known what became of them once they had come.
    pub handled: u64,
    /// Time from receipt to read of those.
    pub wakeup_ns: i64,
    /// Time from the read until the runtime came round.
    pub poll_ns: i64,
    /// Time in the decoder.
    pub decode_ns: i64,
    /// Deltas that have a `token_overhead` and are in none of the sums: it is not known what became of them once they had come.
    pub left_out: u64,
    /// Deltas of pairs of which it is not known how long they were in the sidecar beside the load generator: that time is in
    /// the one on the way.
    pub sidecar_unknown: u64,
}

impl Lateness {
    /// That of one complete exchange.
    pub fn of(exchange: &Exchange, hop: Option<&HopExchange>) -> Self {
        let mut sum = Self::default();
        let Some(hop) = hop.filter(|hop| hop.up_written.is_some() && !hop.overlapped) else {
            return sum;
        };
        let stamps = hop.up_token.iter().zip(&hop.out_token);
        let stamped = exchange.tokens.iter().zip(stamps).enumerate().skip(1);
        // What is not known of every delta is not known of the exchange.
        if exchange.handling.len() != exchange.tokens.len() {
            sum.left_out = stamped.count() as u64;
            return sum;
        }
        let beside = |k: usize| exchange.sidecar.as_ref().map(|spans| spans.get(k).copied());
        for (k, (mark, (up, out))) in stamped {
            sum.deltas += 1;
            sum.handled += 1;
            let in_sidecar = beside(k).flatten().map_or(0, i64::from);
            sum.sidecar_unknown += u64::from(beside(k) == Some(None));
            // Sums of sane stamps do not overflow; those of others mean nothing, and may wrap around.
            sum.proxy_ns = sum.proxy_ns.wrapping_add(out.since(*up));
            sum.sidecar_ns = sum.sidecar_ns.wrapping_add(in_sidecar);
            let way = mark.at.since(*out).wrapping_sub(in_sidecar);
            sum.way_ns = sum.way_ns.wrapping_add(way);
            let handling = exchange.handling[k];
            sum.wakeup_ns = sum.wakeup_ns.wrapping_add(handling.wakeup(mark.at));
            sum.poll_ns = sum.poll_ns.wrapping_add(handling.poll());
            sum.decode_ns = sum.decode_ns.wrapping_add(handling.decode());
        }
        sum
    }

    /// Adds the deltas of `other`.
    pub fn add(&mut self, other: &Self) {
        self.deltas = self.deltas.saturating_add(other.deltas);
        self.proxy_ns = self.proxy_ns.saturating_add(other.proxy_ns);
        self.sidecar_ns = self.sidecar_ns.saturating_add(other.sidecar_ns);
        self.way_ns = self.way_ns.saturating_add(other.way_ns);
        self.left_out = self.left_out.saturating_add(other.left_out);
        self.sidecar_unknown = self.sidecar_unknown.saturating_add(other.sidecar_unknown);
        self.handled = self.handled.saturating_add(other.handled);
        self.wakeup_ns = self.wakeup_ns.saturating_add(other.wakeup_ns);
        self.poll_ns = self.poll_ns.saturating_add(other.poll_ns);
        self.decode_ns = self.decode_ns.saturating_add(other.decode_ns);
    }

    /// There are no deltas.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::metric::Metric;
    use crate::samples::{at, exchange, hop, values};

    /// Each delta read 1 after it came, reached 2 later, decoded 7 later.
    fn handled(exchange: &Exchange) -> Vec<Handling> {
        let marks = exchange.tokens.iter();
        marks
            .map(|mark| Handling {
                read: mark.at.moved_by(1),
                reached: mark.at.moved_by(3),
                decoded: mark.at.moved_by(10),
            })
            .collect()
    }

    #[test]
    fn the_parts_up_to_the_receipt_sum_to_the_overhead() {
        let mut exchange = exchange(1, &[2_000, 2_400, 2_900]);
        let hop = hop(1, &[1_900, 2_300, 2_600]);
        exchange.handling = handled(&exchange);
        let lateness = Lateness::of(&exchange, Some(&hop));
        let overhead: i64 = values(&exchange, Some(&hop), Metric::TokenOverhead)
            .iter()
            .sum();
        assert_eq!(lateness.proxy_ns + lateness.way_ns, overhead);
        assert_eq!((lateness.deltas, lateness.handled), (2, 2));
        assert_eq!((lateness.proxy_ns, lateness.way_ns), (20, 380));
        let handled = (lateness.wakeup_ns, lateness.poll_ns, lateness.decode_ns);
        assert_eq!(handled, (2, 4, 14));
        exchange.handling.pop();
        let unknown = Lateness::of(&exchange, Some(&hop));
        let left_out = Lateness {
            left_out: 2,
            ..Lateness::default()
        };
        assert_eq!(unknown, left_out);
    }

    #[test]
    fn neither_a_long_wait_nor_one_below_zero_is_cut_off() {
        const MINUTE: i64 = 60_000_000_000;
        let mut exchange = exchange(1, &[2_000, 2_400]);
        let hop = hop(1, &[1_900, 2_300]);
        exchange.handling = handled(&exchange);
        let last = exchange.tokens[1].at;
        exchange.handling[1] = Handling {
            read: last.moved_by(-5),
            reached: last.moved_by(MINUTE),
            decoded: last.moved_by(2 * MINUTE),
        };
        let lateness = Lateness::of(&exchange, Some(&hop));
        let handled = (lateness.wakeup_ns, lateness.poll_ns, lateness.decode_ns);
        assert_eq!(handled, (-5, MINUTE + 5, MINUTE));
        let parts = lateness.proxy_ns + lateness.way_ns + handled.0 + handled.1 + handled.2;
        assert_eq!(parts, last.moved_by(2 * MINUTE).since(at(2_300)));
    }

    #[test]
    fn what_a_delta_was_in_the_sidecar_beside_is_none_of_its_way() {
        let mut exchange = exchange(1, &[2_000, 2_400, 2_900]);
        let hop = hop(1, &[1_900, 2_300, 2_600]);
        exchange.handling = vec![Handling::default(); 3];
        let whole = Lateness::of(&exchange, Some(&hop));
        exchange.sidecar = Some(vec![9, 20, 30]);
        let split = Lateness::of(&exchange, Some(&hop));
        assert_eq!((split.sidecar_ns, split.way_ns), (50, whole.way_ns - 50));
        assert_eq!(split.sidecar_unknown, 0);
        exchange.sidecar = Some(vec![9, 20]);
        let partly = Lateness::of(&exchange, Some(&hop));
        assert_eq!((partly.sidecar_ns, partly.sidecar_unknown), (20, 1));
        assert_eq!(partly.sidecar_ns + partly.way_ns, whole.way_ns);
    }

    #[test]
    fn without_the_overhead_there_are_no_parts() {
        let exchange = exchange(1, &[2_000, 2_400]);
        let mut hop = hop(1, &[1_900, 2_300]);
        assert!(Lateness::of(&exchange, None).is_empty());
        hop.overlapped = true;
        assert!(Lateness::of(&exchange, Some(&hop)).is_empty());
        hop.overlapped = false;
        hop.up_written = None;
        assert!(Lateness::of(&exchange, Some(&hop)).is_empty());
    }

    proptest! {
        #[test]
        fn whatever_a_proxy_says_it_sums_and_does_not_panic(
            ours in proptest::collection::vec(any::<u64>(), 0..8),
            up in proptest::collection::vec(any::<u64>(), 0..8),
            out in proptest::collection::vec(any::<u64>(), 0..8),
        ) {
            let mut exchange = exchange(1, &ours.iter().map(|nanos| nanos / 4).collect::<Vec<_>>());
            let mut hop = hop(1, &[]);
            hop.up_token = up.iter().copied().map(at).collect();
            hop.out_token = out.iter().copied().map(at).collect();
            exchange.handling = vec![Handling::default(); ours.len()];
            exchange.sidecar = Some(out.iter().map(|&nanos| nanos as u32).collect());
            let lateness = Lateness::of(&exchange, Some(&hop));
            let least = ours.len().min(up.len()).min(out.len()) as u64;
            prop_assert_eq!(lateness.deltas, least.saturating_sub(1));
            let mut twice = lateness;
            twice.add(&lateness);
            prop_assert_eq!(twice.deltas, 2 * lateness.deltas);
        }
    }
}
