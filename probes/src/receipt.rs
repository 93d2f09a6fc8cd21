//! When the kernel received what was read: its stamps, made ours where they can be trusted, and the time until the read.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

use crate::clock::{BothClocks, Stamp};
use crate::row::names;

/// Who stamps what a dialled socket receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StampSource {
    /// The process, when its read returns.
    #[default]
    User,
    /// The kernel, when it receives: `SO_TIMESTAMPING`.
    Kernel,
}

names!(
    StampSource, "source of stamps", "kernel, user",
    StampSource::Kernel => "kernel",
    StampSource::User => "user",
);

/// The wall clock moved against ours by more than this between two reads: it was set. (Slewing moves both clocks alike.)
/// The same bound holds for how long the reading of both clocks may take.
const STEADY_NS: u64 = 20_000;

/// A stamp may lie so far before that of the read before it: stamps of one socket may be taken on several cores.
const OUT_OF_ORDER_NS: u64 = 1_000_000;

const UNKNOWN: i64 = i64::MIN;

/// Turns the kernel's stamps of one socket, which are of the wall clock, into ours.
#[derive(Debug)]
pub struct Receipts {
    /// The wall clock's lead at the last read.
    lead: AtomicI64,
    /// The latest moment of receipt so far.
    last: AtomicU64,
}

impl Receipts {
    /// Those of a socket that received nothing before `since`.
    pub fn since(since: Stamp) -> Self {
        Self {
            lead: AtomicI64::new(UNKNOWN),
            last: AtomicU64::new(since.as_nanos()),
        }
    }

    /// When that was received which the kernel stamped `wall` (nanoseconds of `CLOCK_REALTIME`) and which a read returned just
    /// before `clocks` were read. `None` where it cannot be told: the wall clock was set since the last read, or the clocks
    /// could not be read at one moment, or the stamp is later than the read or before what came earlier.
    pub fn received(&self, wall: i64, clocks: BothClocks) -> Option<Stamp> {
        if clocks.within > STEADY_NS {
            return None;
        }
        let before = self.lead.swap(clocks.lead, Relaxed);
        if before != UNKNOWN && before.abs_diff(clocks.lead) > STEADY_NS {
            return None;
        }
        let at = u64::try_from(wall.checked_sub(clocks.lead)?).ok()?;
        let read = clocks.at.as_nanos();
        let last = self.last.load(Relaxed);
        // The lead is known to within the time that its reading took.
        if at > read + clocks.within || at + OUT_OF_ORDER_NS < last {
            return None;
        }
        let at = at.min(read);
        self.last.store(at.max(last), Relaxed);
        Some(Stamp::from_nanos(at))
    }
}

/// Bits of a span that are kept: one part in 512.
const KEPT_BITS: u32 = 9;
/// Spans of 2^36 ns (69 s) and more are booked as such.
const MOST_BITS: u32 = 36;
const BUCKETS: usize = ((MOST_BITS - KEPT_BITS + 2) << (KEPT_BITS - 1)) as usize;

/// How long what came lay in the kernel until it was read, of all connections to one other end; and how many reads it is not
/// known of. Of fixed size: counts of spans, to one part in 512.
#[derive(Debug)]
pub struct Wakeups {
    spans: Box<[AtomicU64]>,
    unstamped: AtomicU64,
    /// Reads of late, each in the shelf that its receipt says, the latest first: how long what it returned had lain there, tagged
    /// with the receipt. A word each, so that no thread finds half of another's.
    late: Box<[Shelf]>,
    /// Reads that were asked for and were no longer there.
    forgotten: AtomicU64,
}

/// Reads of late whose receipts have the same hash.
type Shelf = [AtomicU64; 4];

/// Shelves, as a power of two: four times as many reads are kept as a thousand streams have between two turns, twice over.
const LATE_BITS: u32 = 11;

/// The shelf for a read of what was received then, and its tag there: Fibonacci hashing.
fn place(received: u64) -> (usize, u64) {
    let hash = received.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let tag = hash << LATE_BITS >> MOST_BITS << MOST_BITS;
    ((hash >> (u64::BITS - LATE_BITS)) as usize, tag)
}

impl Default for Wakeups {
    fn default() -> Self {
        Self {
            spans: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            unstamped: AtomicU64::new(0),
            late: (0..1 << LATE_BITS).map(|_| Default::default()).collect(),
            forgotten: AtomicU64::new(0),
        }
    }
}

impl Wakeups {
    /// Books a read of what was received at `received`.
    pub fn stamped(&self, received: Stamp, read: Stamp) {
        let nanos = u64::try_from(read.since(received)).unwrap_or(0);
        self.spans[bucket(nanos)].fetch_add(1, Relaxed);
        self.remember(received, nanos);
    }

    /// When that was read which was received at `received`, if that was of late. What was not, is counted as forgotten. Two that
    /// were received at moments of one hash are taken for one another: of those of one run hardly any are.
    pub fn read_of(&self, received: Stamp) -> Option<Stamp> {
        let (shelf, tag) = place(received.as_nanos());
        let kept = self.late[shelf].iter().map(|kept| kept.load(Relaxed));
        let mut found = kept.filter(|kept| *kept != 0 && kept >> MOST_BITS << MOST_BITS == tag);
        let Some(kept) = found.next() else {
            self.forgotten.fetch_add(1, Relaxed);
            return None;
        };
        // One more, so that no read is taken for none.
        let nanos = (kept & ((1 << MOST_BITS) - 1)).saturating_sub(1);
        Some(Stamp::from_nanos(received.as_nanos().saturating_add(nanos)))
    }

    fn remember(&self, received: Stamp, nanos: u64) {
        let (shelf, tag) = place(received.as_nanos());
        let mut kept = tag | (nanos + 1).min((1 << MOST_BITS) - 1);
        for place in &self.late[shelf] {
            kept = place.swap(kept, Relaxed);
        }
    }

    /// Books a read for which the kernel gave no stamp, or none that can be trusted: its own stands for it.
    pub fn unstamped(&self, read: Stamp) {
        self.unstamped.fetch_add(1, Relaxed);
        self.remember(read, 0);
    }

    /// Takes what was booked, and begins anew.
    pub fn take(&self) -> TakenWakeups {
        let spans = self.spans.iter().enumerate();
        let taken = spans.filter_map(|(bucket, count)| match count.load(Relaxed) {
            0 => None,
            _ => Some((middle(bucket), count.swap(0, Relaxed))),
        });
        TakenWakeups {
            spans: taken.collect(),
            unstamped: self.unstamped.swap(0, Relaxed),
            forgotten: self.forgotten.swap(0, Relaxed),
        }
    }
}

/// What [`Wakeups`] booked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenWakeups {
    /// Spans from receipt to read in nanoseconds, ascending, and how many reads had each.
    pub spans: Vec<(u64, u64)>,
    /// Reads whose bytes have the stamp of the read, because the kernel gave none that can be trusted.
    pub unstamped: u64,
    /// Reads that were asked for when they were no longer remembered.
    pub forgotten: u64,
}

impl TakenWakeups {
    /// Reads whose bytes have the kernel's stamp.
    pub fn stamped(&self) -> u64 {
        self.spans.iter().map(|(_, reads)| reads).sum()
    }
}

fn bucket(nanos: u64) -> usize {
    let nanos = nanos.min((1 << MOST_BITS) - 1);
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(KEPT_BITS);
    ((shift as usize) << (KEPT_BITS - 1)) + (nanos >> shift) as usize
}

/// The middle of a bucket's spans.
fn middle(bucket: usize) -> u64 {
    let shift = (bucket >> (KEPT_BITS - 1)).saturating_sub(1);
    let lowest = (bucket - (shift << (KEPT_BITS - 1))) as u64;
    (lowest << shift) + (1 << shift) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAD: i64 = 1_700_000_000_000_000_000;

    fn clocks(at: u64, lead: i64) -> BothClocks {
        BothClocks {
            at: Stamp::from_nanos(at),
            lead,
            within: 60,
        }
    }

    fn receipts() -> Receipts {
        Receipts::since(Stamp::from_nanos(10_000_000))
    }

    #[track_caller]
    fn check(receipts: &Receipts, received: u64, lead: i64, read: BothClocks, gives: Option<u64>) {
        let stamp = receipts.received(received as i64 + lead, read);
        assert_eq!(stamp.map(Stamp::as_nanos), gives);
    }

    #[test]
    fn a_receipt_is_ours_by_the_lead_of_the_wall_clock() {
        let receipts = receipts();
        let ok = 20_000_000;
        check(&receipts, ok, LEAD, clocks(ok + 30_000, LEAD), Some(ok));
        // Slewing, and the reading's own uncertainty.
        let later = ok + 1_000_000;
        let read = clocks(later + 9_000, LEAD + 400);
        check(&receipts, later, LEAD + 400, read, Some(later));
        let at_once = clocks(later + 10_000, LEAD);
        check(
            &receipts,
            later + 10_050,
            LEAD,
            at_once,
            Some(later + 10_000),
        );
    }

    #[test]
    fn a_wall_clock_that_was_set_costs_one_stamp_and_spoils_none() {
        for step in [-3_600_000_000_000, -50_000, 50_000, 3_600_000_000_000] {
            let receipts = receipts();
            check(
                &receipts,
                20_000_000,
                LEAD,
                clocks(20_030_000, LEAD),
                Some(20_000_000),
            );
            // Stamped before the step and read after it, then stamped after it.
            check(
                &receipts,
                30_000_000,
                LEAD,
                clocks(30_030_000, LEAD + step),
                None,
            );
            let read = clocks(40_030_000, LEAD + step);
            check(&receipts, 40_000_000, LEAD + step, read, Some(40_000_000));
        }
        // Two were waiting when it stepped: the second shows itself by where it would lie.
        for step in [-10_000_000, 30_000_000] {
            let receipts = receipts();
            check(
                &receipts,
                20_000_000,
                LEAD,
                clocks(20_030_000, LEAD),
                Some(20_000_000),
            );
            check(
                &receipts,
                20_001_000,
                LEAD,
                clocks(30_000_000, LEAD + step),
                None,
            );
            check(
                &receipts,
                20_002_000,
                LEAD,
                clocks(30_001_000, LEAD + step),
                None,
            );
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let receipts = receipts();
        check(&receipts, 20_001_000, LEAD, clocks(20_000_000, LEAD), None);
        check(&receipts, 5_000_000, LEAD, clocks(20_000_000, LEAD), None);
        let slow = BothClocks {
            within: 30_000,
            ..clocks(20_000_000, LEAD)
        };
        check(&receipts, 19_999_000, LEAD, slow, None);
        assert_eq!(receipts.received(0, clocks(20_000_000, LEAD)), None);
        assert_eq!(receipts.received(i64::MIN, clocks(20_000_000, LEAD)), None);
    }

    #[test]
    fn spans_are_kept_to_one_part_in_512() {
        for nanos in (0..3_000).chain((0..36).map(|bit| (1 << bit) + (1 << bit) / 3)) {
            let middle = middle(bucket(nanos));
            assert!(middle.abs_diff(nanos) * 512 <= nanos, "{nanos}: {middle}");
            assert!(bucket(nanos) < BUCKETS);
        }
        assert!((0..BUCKETS).is_sorted_by_key(middle));
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_read_of_late_is_found_by_its_receipt() {
        let wakeups = Wakeups::default();
        let at = Stamp::from_nanos;
        // A thousand streams' reads between two turns, some of them at the same moment.
        let moments = || (0..1_000_u64).map(|k| 1_000_000_000_000 + k * 997 / 2 * 2);
        for nanos in moments() {
            wakeups.stamped(at(nanos), at(nanos + nanos % 70));
        }
        let read_of = |nanos| wakeups.read_of(at(nanos)) == Some(at(nanos + nanos % 70));
        let found = moments().filter(|&nanos| read_of(nanos)).count() as u64;
        assert!(found >= 990, "{found}");
        wakeups.unstamped(at(5));
        assert_eq!(wakeups.read_of(at(5)), Some(at(5)));
        assert_eq!(wakeups.read_of(at(1_001)), None);
        assert_eq!(wakeups.take().forgotten, 1_000 - found + 1);
        assert_eq!(wakeups.take().forgotten, 0);
    }

    #[test]
    fn no_read_is_taken_for_another() {
        let wakeups = Wakeups::default();
        let at = Stamp::from_nanos;
        for nanos in (0..100_000_u64).map(|k| k * 7_919) {
            wakeups.stamped(at(nanos), at(nanos + 1));
        }
        let others = (0..100_000_u64).map(|k| k * 7_919 + 3);
        assert_eq!(
            others
                .filter_map(|nanos| wakeups.read_of(at(nanos)))
                .count(),
            0
        );
        let never = 1 << 40;
        wakeups.stamped(at(9), at(9 + never));
        assert_eq!(wakeups.read_of(at(9)), Some(at(9 + (1 << MOST_BITS) - 2)));
    }

    #[test]
    fn what_is_taken_is_gone() {
        let wakeups = Wakeups::default();
        let at = Stamp::from_nanos;
        wakeups.stamped(at(100), at(130));
        wakeups.stamped(at(200), at(230));
        wakeups.stamped(at(200), at(200));
        wakeups.unstamped(at(240));
        let taken = wakeups.take();
        assert_eq!(taken.spans, [(0, 1), (30, 2)]);
        assert_eq!((taken.stamped(), taken.unstamped), (3, 1));
        assert_eq!(wakeups.take(), TakenWakeups::default());
    }
}
