//! What the sockets on a row's way did below their bytes, as the report shows it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::record::RunRecord;
use crate::row::Row;
use crate::sockets::{Depths, SocketCounts};

/// The sockets of one end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SocketReport {
    /// Bytes that TCP had not sent as a write was made; `None` where nothing was sampled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsent_bytes: Option<DepthReport>,
    /// Bytes that lay in TCP's send queue as a write was made: not sent, or not acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_bytes: Option<DepthReport>,
    /// Congestion windows: TCP's as a write was made, QUIC's as they were looked at, at the latest as connections ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub congestion_window_bytes: Option<DepthReport>,
    /// Calls and packets by name: divided by the tokens under `<name>_per_token`, what was sent again or lost whole.
    #[serde(flatten)]
    pub counts: BTreeMap<String, f64>,
}

/// Samples of a number of bytes, each rounded up to one part in 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepthReport {
    /// How many there are.
    pub samples: u64,
    /// The median, by nearest rank.
    pub p50: u64,
    /// The deepest.
    pub max: u64,
}

impl DepthReport {
    fn of(depths: &Depths) -> Option<Self> {
        Some(Self {
            samples: depths.samples(),
            p50: depths.median()?,
            max: depths.deepest()?,
        })
    }
}

/// Counts that are told whole: per token they would be next to nothing.
const WHOLE: [&str; 3] = ["packets_retransmitted", "packets_lost", "congestion_events"];

impl SocketReport {
    fn of(counts: &SocketCounts, tokens: u64) -> Self {
        let shown = counts.named().into_iter().filter_map(|(name, count)| {
            if WHOLE.contains(&name) {
                return Some((name.to_owned(), count as f64));
            }
            let share = count as f64 / tokens as f64;
            (tokens > 0).then(|| (format!("{name}_per_token"), share))
        });
        Self {
            unsent_bytes: DepthReport::of(&counts.unsent),
            queued_bytes: DepthReport::of(&counts.queued),
            congestion_window_bytes: DepthReport::of(&counts.windows),
            counts: shown.collect(),
        }
    }
}

/// Those of `row`, by the names of the ends.
pub(super) fn of(record: &RunRecord, row: Row, tokens: u64) -> BTreeMap<String, SocketReport> {
    let sockets = record.sockets_of(row);
    let ends = sockets.ends().into_iter();
    let known = ends.filter_map(|(name, counts)| {
        let report = SocketReport::of(counts?, tokens);
        Some((name.to_owned(), report))
    });
    known.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_shared_among_the_tokens_and_losses_are_whole() {
        let mut counts = SocketCounts {
            reads: 10,
            packets_retransmitted: 3,
            ..SocketCounts::default()
        };
        [0, 0, 800]
            .iter()
            .for_each(|&bytes| counts.unsent.take(bytes));
        let report = SocketReport::of(&counts, 40);
        assert_eq!(report.counts["reads_per_token"], 0.25);
        assert_eq!(report.counts["packets_retransmitted"], 3.0);
        assert_eq!(report.queued_bytes, None);
        let unsent = report.unsent_bytes.unwrap();
        assert_eq!((unsent.samples, unsent.p50, unsent.max), (3, 0, 800));
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<SocketReport>(&json).unwrap(), report);
        let none = SocketReport::of(&counts, 0);
        assert!(!none.counts.contains_key("reads_per_token"));
    }
}
