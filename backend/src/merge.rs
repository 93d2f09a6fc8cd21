//! Merging neighbours, best pair first: the core of both kinds of tokenizers, in O(n log n).

use std::collections::BinaryHeap;

/// A symbol of a text: first a character or byte, later what it grew to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Symbol {
    /// Its token, if it is one.
    pub(crate) id: Option<u32>,
    /// Where it begins, in bytes.
    pub(crate) start: usize,
    /// How long it is; 0 once it went into its left neighbour.
    pub(crate) length: usize,
}

/// A pair that may be merged; the heap's largest is the best: highest priority, then leftmost.
#[derive(Debug, Clone, Copy)]
struct Pair<P> {
    priority: P,
    left: usize,
    right: usize,
    merged: u32,
    /// Bytes of both; another length means that one of them has grown since.
    length: usize,
}

/// Merges `symbols` until no pair can be. `pair(left, right)` gives the priority (the largest goes first; ties from the left)
/// and the merged token. Symbols whose length is 0 afterwards are gone.
pub(crate) fn merge<P: Ord + Copy>(
    symbols: &mut [Symbol],
    pair: impl Fn(&Symbol, &Symbol) -> Option<(P, u32)>,
) {
    let mut links: Vec<(usize, usize)> = (0..symbols.len())
        .map(|i| (i.wrapping_sub(1), i + 1))
        .collect();
    let candidate = |symbols: &[Symbol], left: usize, right: usize| {
        let (a, b) = (symbols.get(left)?, symbols.get(right)?);
        let (priority, merged) = pair(a, b)?;
        Some(Pair {
            priority,
            left,
            right,
            merged,
            length: a.length + b.length,
        })
    };
    let mut heap: BinaryHeap<Pair<P>> = (1..symbols.len())
        .filter_map(|right| candidate(symbols, right - 1, right))
        .collect();
    while let Some(Pair {
        left,
        right,
        merged,
        length,
        ..
    }) = heap.pop()
    {
        let whole = symbols[left].length > 0 && symbols[right].length > 0;
        if !whole || symbols[left].length + symbols[right].length != length {
            continue;
        }
        symbols[left].id = Some(merged);
        symbols[left].length = length;
        symbols[right].length = 0;
        let (before, after) = (links[left].0, links[right].1);
        links[left].1 = after;
        if let Some(link) = links.get_mut(after) {
            link.0 = left;
        }
        heap.extend(candidate(symbols, before, left));
        heap.extend(candidate(symbols, left, after));
    }
}

impl<P: Ord> Ord for Pair<P> {
    fn cmp(&self, other: &Pair<P>) -> std::cmp::Ordering {
        self.priority
            .cmp(&other.priority)
            .then(other.left.cmp(&self.left))
    }
}

impl<P: Ord> PartialOrd for Pair<P> {
    fn partial_cmp(&self, other: &Pair<P>) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<P: Ord> PartialEq for Pair<P> {
    fn eq(&self, other: &Pair<P>) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<P: Ord> Eq for Pair<P> {}
