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
#[path = "ledger_tests.rs"]
mod tests;
