//! Records of recent exchanges, bounded, handed out by cursor.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Serialize;
use tokenlag_probes::{HopExchange, TraceId};

/// The last exchanges, each under a number that only grows.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// Shared with whoever reads them: under the lock nothing is copied.
    records: VecDeque<Arc<HopExchange>>,
    /// Number of the oldest record; as many were evicted before it.
    first: u64,
    limit: usize,
    /// Deltas in all records: their stamps are what takes room.
    deltas: usize,
    delta_limit: usize,
}

/// The last line of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Cursor {
    /// Where to go on.
    pub(crate) next: u64,
    /// Records from the asked cursor on that were gone already.
    pub(crate) evicted: u64,
}

impl Ledger {
    /// Room for so many exchanges, and for so many deltas in all of them.
    pub(crate) fn new(limit: usize, delta_limit: usize) -> Self {
        Self {
            records: VecDeque::new(),
            first: 0,
            limit,
            deltas: 0,
            delta_limit,
        }
    }

    pub(crate) fn push(&mut self, record: HopExchange) {
        self.deltas += record.up_token.len();
        self.records.push_back(Arc::new(record));
        while self.records.len() > self.limit || self.deltas > self.delta_limit {
            let Some(oldest) = self.records.pop_front() else {
                break;
            };
            self.deltas -= oldest.up_token.len();
            self.first += 1;
        }
    }

    /// At most `most` records from the cursor `since` on, and no more than one that go beyond so many deltas; and where
    /// to go on.
    pub(crate) fn since(
        &self,
        since: u64,
        most: usize,
        deltas: usize,
    ) -> (Vec<Arc<HopExchange>>, Cursor) {
        let end = self.first + self.records.len() as u64;
        // A cursor from beyond the end is of an earlier life of the proxy: everything here is new to its owner.
        let from = if since > end {
            self.first
        } else {
            since.max(self.first)
        };
        let records: Vec<_> = self
            .records
            .iter()
            .skip((from - self.first) as usize)
            .take(most)
            .scan(0, |taken, record| {
                let room = *taken < deltas;
                *taken += record.up_token.len();
                room.then(|| record.clone())
            })
            .collect();
        let cursor = Cursor {
            next: from + records.len() as u64,
            evicted: from.saturating_sub(since),
        };
        (records, cursor)
    }

    /// The latest record of that trace.
    pub(crate) fn of_trace(&self, trace: TraceId) -> Option<Arc<HopExchange>> {
        let mut latest_first = self.records.iter().rev();
        latest_first
            .find(|record| record.trace == Some(trace))
            .cloned()
    }

    /// Records that were evicted so far.
    pub(crate) fn evicted(&self) -> u64 {
        self.first
    }
}

#[cfg(test)]
mod tests {
    use tokenlag_probes::{Outcome, Stamp};

    use super::*;

    fn record(trace: u128, deltas: usize) -> HopExchange {
        let stamp = Stamp::from_nanos(trace as u64);
        HopExchange {
            trace: Some(TraceId::from_bits(trace)),
            channel: "http".to_owned(),
            in_head: stamp,
            in_body: stamp,
            up_written: Some(stamp),
            up_token: vec![stamp; deltas],
            up_coalesced: 0,
            out_token: vec![stamp; deltas],
            up_end: Some(stamp),
            usage: None,
            up_connected_anew: false,
            overlapped: false,
            outcome: Outcome::Complete,
        }
    }

    fn traces(ledger: &Ledger, since: u64, most: usize) -> (Vec<u64>, Cursor) {
        let (records, cursor) = ledger.since(since, most, 1000);
        let traces = records.iter().map(|record| record.in_head.as_nanos());
        (traces.collect(), cursor)
    }

    #[test]
    fn a_reader_gets_each_record_once() {
        let mut ledger = Ledger::new(10, 1000);
        for trace in 1..=3 {
            ledger.push(record(trace, 1));
        }
        let (got, cursor) = traces(&ledger, 0, 2);
        assert_eq!((got, cursor.next), (vec![1, 2], 2));
        ledger.push(record(4, 1));
        let (got, cursor) = traces(&ledger, cursor.next, 100);
        assert_eq!(
            (got, cursor),
            (
                vec![3, 4],
                Cursor {
                    next: 4,
                    evicted: 0
                }
            )
        );
        assert_eq!(
            traces(&ledger, 4, 100),
            (
                vec![],
                Cursor {
                    next: 4,
                    evicted: 0
                }
            )
        );
    }

    #[test]
    fn what_was_evicted_is_counted() {
        let mut ledger = Ledger::new(3, 1000);
        for trace in 1..=8 {
            ledger.push(record(trace, 1));
        }
        let (got, cursor) = traces(&ledger, 2, 100);
        assert_eq!(
            (got, cursor),
            (
                vec![6, 7, 8],
                Cursor {
                    next: 8,
                    evicted: 3
                }
            )
        );
        assert_eq!(ledger.evicted(), 5);
        assert!(ledger.of_trace(TraceId::from_bits(5)).is_none());
        assert!(ledger.of_trace(TraceId::from_bits(6)).is_some());
    }

    #[test]
    fn stamps_are_what_takes_room() {
        let mut ledger = Ledger::new(1000, 100);
        for trace in 1..=10 {
            ledger.push(record(trace, 30));
        }
        assert_eq!(traces(&ledger, 0, 100).0, [8, 9, 10]);
    }

    #[test]
    fn an_answer_is_bounded_by_its_deltas_too_and_the_cursor_leads_on() {
        let mut ledger = Ledger::new(1000, 10_000);
        for trace in 1..=5 {
            ledger.push(record(trace, 600));
        }
        let mut got = Vec::new();
        let mut next = 0;
        for _ in 0..3 {
            let (traces, cursor) = traces(&ledger, next, 100);
            next = cursor.next;
            got.push(traces);
        }
        assert_eq!(got, [vec![1, 2], vec![3, 4], vec![5]]);
        // One that is longer than an answer is an answer.
        ledger.push(record(6, 5_000));
        assert_eq!(traces(&ledger, 5, 100).0, [6]);
    }

    #[test]
    fn a_cursor_of_another_life_of_the_proxy_is_no_error() {
        let mut ledger = Ledger::new(3, 100);
        ledger.push(record(1, 1));
        assert_eq!(
            traces(&ledger, 99, 100),
            (
                vec![1],
                Cursor {
                    next: 1,
                    evicted: 0
                }
            )
        );
    }
}
