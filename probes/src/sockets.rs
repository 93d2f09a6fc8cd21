//! What the sockets of one end did below their bytes: calls, packets, what was sent again, and how much waited in their queues.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::histogram::nearest_rank;

/// Totals over sockets, those that are gone among them, and samples of their queues. They never fall: whoever wants what a
/// stretch of time brought asks before and after it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SocketCounts {
    /// Reads that returned bytes.
    pub reads: u64,
    /// Writes that were taken.
    pub writes: u64,
    /// Segments of TCP and datagrams of QUIC that were sent.
    pub packets_sent: u64,
    /// The same, received.
    pub packets_received: u64,
    /// Segments that TCP sent again.
    pub packets_retransmitted: u64,
    /// Packets of QUIC that were taken for lost.
    pub packets_lost: u64,
    /// Times that QUIC's congestion controller took loss for congestion.
    pub congestion_events: u64,
    /// Bytes that TCP had not sent as a write was made.
    #[serde(skip_serializing_if = "Depths::is_empty")]
    pub unsent: Depths,
    /// Bytes that lay in TCP's send queue as a write was made: not sent, or not acknowledged.
    #[serde(skip_serializing_if = "Depths::is_empty")]
    pub queued: Depths,
    /// Congestion windows in bytes: TCP's as a write was made, QUIC's as they were looked at, at the latest as their
    /// connections ended.
    #[serde(skip_serializing_if = "Depths::is_empty")]
    pub windows: Depths,
}

impl SocketCounts {
    /// The plain counts, by the names that reports use.
    pub(crate) fn named(&self) -> [(&'static str, u64); 7] {
        [
            ("reads", self.reads),
            ("writes", self.writes),
            ("packets_sent", self.packets_sent),
            ("packets_received", self.packets_received),
            ("packets_retransmitted", self.packets_retransmitted),
            ("packets_lost", self.packets_lost),
            ("congestion_events", self.congestion_events),
        ]
    }

    /// What came since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            reads: self.reads.saturating_sub(earlier.reads),
            writes: self.writes.saturating_sub(earlier.writes),
            packets_sent: self.packets_sent.saturating_sub(earlier.packets_sent),
            packets_received: self
                .packets_received
                .saturating_sub(earlier.packets_received),
            packets_retransmitted: self
                .packets_retransmitted
                .saturating_sub(earlier.packets_retransmitted),
            packets_lost: self.packets_lost.saturating_sub(earlier.packets_lost),
            congestion_events: self
                .congestion_events
                .saturating_sub(earlier.congestion_events),
            unsent: self.unsent.since(&earlier.unsent),
            queued: self.queued.since(&earlier.queued),
            windows: self.windows.since(&earlier.windows),
        }
    }

    /// Adds what `other` counted.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in [
            (&mut self.reads, other.reads),
            (&mut self.writes, other.writes),
            (&mut self.packets_sent, other.packets_sent),
            (&mut self.packets_received, other.packets_received),
            (&mut self.packets_retransmitted, other.packets_retransmitted),
            (&mut self.packets_lost, other.packets_lost),
            (&mut self.congestion_events, other.congestion_events),
        ] {
            *sum = sum.saturating_add(count);
        }
        self.unsent.add(&other.unsent);
        self.queued.add(&other.queued);
        self.windows.add(&other.windows);
    }
}

/// The sockets that a row's traffic goes through, end by end. `None`: nobody tells of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sockets {
    /// The load generator's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<SocketCounts>,
    /// Those that proxies have to their clients; in a pair those of both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub door: Option<SocketCounts>,
    /// Those that proxies have to their upstreams; in a pair those of both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<SocketCounts>,
}

impl Sockets {
    /// Nobody tells of any.
    pub fn is_empty(&self) -> bool {
        self.ends().iter().all(|(_, counts)| counts.is_none())
    }

    /// The ends, by the names that reports use.
    pub(crate) fn ends(&self) -> [(&'static str, Option<&SocketCounts>); 3] {
        [
            ("client", self.client.as_ref()),
            ("door", self.door.as_ref()),
            ("upstream", self.upstream.as_ref()),
        ]
    }

    /// Adds what `other` counted.
    pub fn add(&mut self, other: &Self) {
        let ends = [
            (&mut self.client, &other.client),
            (&mut self.door, &other.door),
            (&mut self.upstream, &other.upstream),
        ];
        for (sum, counts) in ends {
            if let Some(counts) = counts {
                sum.get_or_insert_default().add(counts);
            }
        }
    }
}

/// Bits of a depth that are kept: one part in 16.
const KEPT_BITS: u32 = 5;

/// Samples of a number of bytes: how often each was found, rounded up to one part in 16. Of bounded size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Depths(BTreeMap<u64, u64>);

impl Depths {
    /// Takes one sample.
    pub fn take(&mut self, bytes: u64) {
        *self.0.entry(rounded_up(bytes)).or_default() += 1;
    }

    /// There are no samples.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many samples there are.
    pub fn samples(&self) -> u64 {
        self.0
            .values()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Each depth in bytes, as it was rounded, and how often it was found; the least first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(bytes, samples)| (*bytes, *samples))
    }

    /// The median, by nearest rank; `None` without samples.
    pub fn median(&self) -> Option<u64> {
        let rank = nearest_rank(0.5, self.samples());
        let mut seen = 0_u64;
        let mut found = self.0.iter().skip_while(|(_, count)| {
            seen = seen.saturating_add(**count);
            seen < rank
        });
        found.next().map(|(bytes, _)| *bytes)
    }

    /// The deepest; `None` without samples.
    pub fn deepest(&self) -> Option<u64> {
        self.0.keys().next_back().copied()
    }

    fn since(&self, earlier: &Self) -> Self {
        let news = self.0.iter().filter_map(|(bytes, count)| {
            let before = earlier.0.get(bytes).copied().unwrap_or(0);
            (*count > before).then(|| (*bytes, count - before))
        });
        Self(news.collect())
    }

    fn add(&mut self, other: &Self) {
        for (bytes, count) in &other.0 {
            let sum = self.0.entry(rounded_up(*bytes)).or_default();
            *sum = sum.saturating_add(*count);
        }
    }
}

/// The least number of [`KEPT_BITS`] significant bits that is not below `bytes`.
fn rounded_up(bytes: u64) -> u64 {
    let shift = (u64::BITS - bytes.leading_zeros()).saturating_sub(KEPT_BITS);
    let unit = 1_u64 << shift;
    bytes.checked_next_multiple_of(unit).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn depths(samples: &[u64]) -> Depths {
        let mut depths = Depths::default();
        samples.iter().for_each(|&bytes| depths.take(bytes));
        depths
    }

    #[test]
    fn depths_have_a_median_and_a_deepest() {
        assert_eq!(Depths::default().median(), None);
        assert_eq!(Depths::default().deepest(), None);
        let found = depths(&[0, 0, 30, 31, 32, 33, 65_535]);
        assert_eq!(found.samples(), 7);
        assert_eq!(found.median(), Some(31));
        assert_eq!(found.deepest(), Some(65_536));
        let listed: Vec<_> = found.iter().collect();
        assert_eq!(listed[..2], [(0, 2), (30, 1)]);
        assert_eq!(depths(&[0]).median(), Some(0));
    }

    #[test]
    fn what_came_since_is_what_is_added_again() {
        let mut before = SocketCounts {
            reads: 3,
            packets_retransmitted: 1,
            unsent: depths(&[0, 100]),
            ..SocketCounts::default()
        };
        let mut after = before.clone();
        after.reads = 10;
        after.unsent.take(100);
        after.queued.take(7);
        let news = after.since(&before);
        assert_eq!((news.reads, news.packets_retransmitted), (7, 0));
        assert_eq!(news.unsent, depths(&[100]));
        before.add(&news);
        assert_eq!(before, after);
        let json = serde_json::to_string(&after).unwrap();
        assert_eq!(serde_json::from_str::<SocketCounts>(&json).unwrap(), after);
    }

    #[test]
    fn ends_are_added_up_each_by_itself() {
        let mut sum = Sockets::default();
        assert!(sum.is_empty());
        for reads in [2, 3] {
            let door = SocketCounts {
                reads,
                ..SocketCounts::default()
            };
            sum.add(&Sockets {
                door: Some(door),
                ..Sockets::default()
            });
        }
        assert_eq!(sum.door.as_ref().map(|door| door.reads), Some(5));
        assert_eq!((sum.client, sum.upstream), (None, None));
    }

    proptest! {
        #[test]
        fn a_depth_is_rounded_up_by_a_sixteenth_at_most(bytes in any::<u64>()) {
            let rounded = rounded_up(bytes);
            prop_assert!(rounded >= bytes);
            prop_assert!(rounded - bytes <= bytes / 16);
            prop_assert_eq!(rounded_up(rounded), rounded);
        }

        #[test]
        fn whatever_a_proxy_says_it_adds_up(text in ".{0,60}", counts in proptest::collection::btree_map(any::<u64>(), any::<u64>(), 0..8)) {
            let _ = serde_json::from_str::<SocketCounts>(&text);
            let said = Depths(counts);
            let mut twice = said.clone();
            twice.add(&said);
            let _ = (twice.median(), twice.deepest(), twice.samples(), twice.since(&said));
        }
    }
}
