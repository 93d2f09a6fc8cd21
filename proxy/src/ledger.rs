//! Records of recent exchanges, bounded, handed out by cursor.

use std::collections::VecDeque;

use serde::Serialize;
use tokenlag_probes::{HopExchange, TraceId};

use crate::packed::{is_of, pack, unpack};

/// Records are kept one behind the other in pieces of so many bytes: with tens of thousands of exchanges a second, one that had memory
/// of its own would be found out of every cache when it is evicted.
const PIECE: usize = 64 * 1024;

/// The last exchanges, each under a number that only grows.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// The oldest first.
    pieces: VecDeque<Piece>,
    /// A piece that was emptied: the next one needs no memory of its own.
    spare: Vec<u8>,
    records: usize,
    /// Number of the oldest record; as many were evicted before it.
    first: u64,
    limit: usize,
    /// Deltas in all records: their stamps are what takes room.
    deltas: usize,
    delta_limit: usize,
}

/// Some records: of each how long it is, how many deltas it has, and itself.
#[derive(Debug, Default)]
struct Piece {
    bytes: Vec<u8>,
    /// Where the oldest begins that was not evicted.
    begin: usize,
    /// Those from there on.
    records: usize,
}

/// A record as it lies in a piece.
#[derive(Clone, Copy, Debug)]
struct Entry<'a> {
    deltas: usize,
    /// With what comes before it.
    whole: &'a [u8],
}

/// What comes before a record in its piece: two numbers of four bytes.
const HEAD: usize = 8;

/// An exchange that is ready to be entered.
#[derive(Debug)]
pub(crate) struct Finished(Vec<u8>);

impl Finished {
    /// Of `record`. Made before the ledger is locked: it takes a while where there were many deltas.
    pub(crate) fn of(record: &HopExchange) -> Self {
        let deltas = record.up_token.len();
        let mut bytes = Vec::with_capacity(96 + 2 * 5 * deltas);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(deltas as u32).to_le_bytes());
        pack(record, &mut bytes);
        let length = (bytes.len() - HEAD) as u32;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        Self(bytes)
    }
}

/// Records that were read, and are taken apart once the ledger is let go.
#[derive(Debug, Default)]
pub(crate) struct Page(Piece);

impl Page {
    /// The records, the oldest first.
    pub(crate) fn records(&self) -> impl Iterator<Item = HopExchange> {
        self.0.entries().map(|entry| unpack(entry.packed()))
    }
}

impl Piece {
    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let mut rest = &self.bytes[self.begin..];
        std::iter::from_fn(move || {
            let (entry, behind) = Entry::split(rest)?;
            rest = behind;
            Some(entry)
        })
    }

    fn push(&mut self, entry: &[u8]) {
        self.bytes.extend_from_slice(entry);
        self.records += 1;
    }
}

impl<'a> Entry<'a> {
    /// The first entry of `bytes`, and what follows it.
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (length, rest) = bytes.split_first_chunk()?;
        let deltas = rest.first_chunk()?;
        let length = u32::from_le_bytes(*length) as usize;
        let (whole, rest) = bytes.split_at_checked(HEAD + length)?;
        let deltas = u32::from_le_bytes(*deltas) as usize;
        Some((Self { deltas, whole }, rest))
    }

    fn packed(&self) -> &'a [u8] {
        &self.whole[HEAD..]
    }
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
            pieces: VecDeque::new(),
            spare: Vec::new(),
            records: 0,
            first: 0,
            limit,
            deltas: 0,
            delta_limit,
        }
    }

    pub(crate) fn push(&mut self, Finished(entry): Finished) {
        let Some((known, _)) = Entry::split(&entry) else {
            return;
        };
        self.deltas += known.deltas;
        self.records += 1;
        match self.pieces.back_mut() {
            Some(last) if last.bytes.len() + entry.len() <= last.bytes.capacity() => {
                last.push(&entry);
            }
            _ => {
                let mut piece = Piece {
                    bytes: std::mem::take(&mut self.spare),
                    ..Piece::default()
                };
                piece.bytes.reserve(entry.len().max(PIECE));
                piece.push(&entry);
                self.pieces.push_back(piece);
            }
        }
        while self.records > self.limit || self.deltas > self.delta_limit {
            if !self.evict() {
                break;
            }
        }
    }

    /// Forgets the oldest record; `false` where there is none.
    fn evict(&mut self) -> bool {
        let Some(piece) = self.pieces.front_mut() else {
            return false;
        };
        if let Some((oldest, _)) = Entry::split(&piece.bytes[piece.begin..]) {
            piece.begin += oldest.whole.len();
            self.deltas -= oldest.deltas;
        }
        piece.records -= 1;
        self.records -= 1;
        self.first += 1;
        if piece.records == 0
            && let Some(mut empty) = self.pieces.pop_front()
            && empty.bytes.capacity() <= 2 * PIECE
        {
            empty.bytes.clear();
            self.spare = empty.bytes;
        }
        true
    }

    /// At most `most` records from the cursor `since` on, and no more than one that go beyond so many deltas; and where
    /// to go on.
    pub(crate) fn since(&self, since: u64, most: usize, deltas: usize) -> (Page, Cursor) {
        let end = self.first + self.records as u64;
        // A cursor from beyond the end is of an earlier life of the proxy: everything here is new to its owner.
        let from = if since > end {
            self.first
        } else {
            since.max(self.first)
        };
        let mut page = Piece::default();
        let (mut skip, mut taken) = ((from - self.first) as usize, 0);
        'pieces: for piece in &self.pieces {
            if skip >= piece.records {
                skip -= piece.records;
                continue;
            }
            for entry in piece.entries().skip(std::mem::take(&mut skip)) {
                if page.records >= most || taken >= deltas {
                    break 'pieces;
                }
                taken += entry.deltas;
                page.push(entry.whole);
            }
        }
        let cursor = Cursor {
            next: from + page.records as u64,
            evicted: from.saturating_sub(since),
        };
        (Page(page), cursor)
    }

    /// The latest record of that trace.
    pub(crate) fn of_trace(&self, trace: TraceId) -> Option<HopExchange> {
        let of_it = |piece: &Piece| {
            let mut entries = piece.entries().filter(|entry| is_of(entry.packed(), trace));
            let first = entries.next()?;
            let latest = entries.last().unwrap_or(first);
            Some(unpack(latest.packed()))
        };
        self.pieces.iter().rev().find_map(of_it)
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

    fn finished(trace: u128, deltas: usize) -> Finished {
        Finished::of(&record(trace, deltas))
    }

    fn traces(ledger: &Ledger, since: u64, most: usize) -> (Vec<u64>, Cursor) {
        let (page, cursor) = ledger.since(since, most, 1000);
        let traces = page.records().map(|record| record.in_head.as_nanos());
        (traces.collect(), cursor)
    }

    #[test]
    fn a_reader_gets_each_record_once() {
        let mut ledger = Ledger::new(10, 1000);
        for trace in 1..=3 {
            ledger.push(finished(trace, 1));
        }
        let (got, cursor) = traces(&ledger, 0, 2);
        assert_eq!((got, cursor.next), (vec![1, 2], 2));
        ledger.push(finished(4, 1));
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
            ledger.push(finished(trace, 1));
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
        assert_eq!(ledger.of_trace(TraceId::from_bits(5)), None);
        assert!(ledger.of_trace(TraceId::from_bits(6)).is_some());
    }

    #[test]
    fn stamps_are_what_takes_room() {
        let mut ledger = Ledger::new(1000, 100);
        for trace in 1..=10 {
            ledger.push(finished(trace, 30));
        }
        assert_eq!(traces(&ledger, 0, 100).0, [8, 9, 10]);
    }

    #[test]
    fn an_answer_is_bounded_by_its_deltas_too_and_the_cursor_leads_on() {
        let mut ledger = Ledger::new(1000, 10_000);
        for trace in 1..=5 {
            ledger.push(finished(trace, 600));
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
        ledger.push(finished(6, 5_000));
        assert_eq!(traces(&ledger, 5, 100).0, [6]);
    }

    #[test]
    fn records_are_whole_whatever_pieces_they_lie_in() {
        let mut ledger = Ledger::new(300, 1_000_000);
        // Some are longer than a piece, most are short, and nearly all are evicted.
        let deltas = |trace: u128| if trace.is_multiple_of(100) { 40_000 } else { 7 };
        for trace in 1..=5_000 {
            ledger.push(finished(trace, deltas(trace)));
        }
        assert_eq!(ledger.evicted(), 4_700);
        let (page, cursor) = ledger.since(0, 1_000, usize::MAX);
        assert_eq!((cursor.next, cursor.evicted), (5_000, 4_700));
        let wanted = (4_701..=5_000).map(|trace| record(trace, deltas(trace)));
        assert!(page.records().eq(wanted));
        let same = TraceId::from_bits(4_900);
        assert_eq!(ledger.of_trace(same), Some(record(4_900, 40_000)));
        ledger.push(finished(4_900, 3));
        assert_eq!(ledger.of_trace(same), Some(record(4_900, 3)), "the latest");
    }

    #[test]
    fn one_beyond_all_bounds_leaves_nothing_behind() {
        let mut ledger = Ledger::new(10, 100);
        for _ in 0..3 {
            ledger.push(finished(1, 5));
            ledger.push(finished(2, 101));
            assert!(ledger.pieces.is_empty());
        }
        assert_eq!((ledger.evicted(), ledger.deltas, ledger.records), (6, 0, 0));
    }

    #[test]
    fn a_cursor_of_another_life_of_the_proxy_is_no_error() {
        let mut ledger = Ledger::new(3, 100);
        ledger.push(finished(1, 1));
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
