//! Packets under way, by the moment at which they come out.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Packets under way. What is due at the same moment comes out in the order in which it came in.
#[derive(Debug)]
pub struct Releases<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    next: u64,
}

#[derive(Debug)]
struct Entry<T> {
    due: u64,
    number: u64,
    packet: T,
}

impl<T> Default for Releases<T> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            next: 0,
        }
    }
}

impl<T> Releases<T> {
    /// `packet` comes out at `due`.
    pub fn push(&mut self, due: u64, packet: T) {
        let number = self.next;
        self.next += 1;
        self.heap.push(Reverse(Entry {
            due,
            number,
            packet,
        }));
    }

    /// When the next one comes out.
    pub fn next_due(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse(entry)| entry.due)
    }

    /// The next one and the moment at which it was due, if that is `now` or past.
    pub fn pop_due(&mut self, now: u64) -> Option<(u64, T)> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse(entry) = self.heap.pop()?;
        Some((entry.due, entry.packet))
    }
}

impl<T> Entry<T> {
    fn key(&self) -> (u64, u64) {
        (self.due, self.number)
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_out_by_time_then_by_arrival() {
        let mut releases = Releases::default();
        for (due, packet) in [(30, 'c'), (10, 'a'), (30, 'd'), (20, 'b')] {
            releases.push(due, packet);
        }
        assert_eq!(releases.next_due(), Some(10));
        assert_eq!(releases.pop_due(9), None);
        let all: Vec<_> = std::iter::from_fn(|| releases.pop_due(30)).collect();
        assert_eq!(all, [(10, 'a'), (20, 'b'), (30, 'c'), (30, 'd')]);
        assert_eq!(releases.next_due(), None);
    }
}
