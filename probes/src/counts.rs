//! Counts of magnitudes in HdrHistogram's own buckets: what is recorded into, token by token. Files, and what reads
//! them, take the [`Histogram`] that it turns into.
//!
//! Recording is an index and an addition: the library also keeps the smallest and largest value and a total at each
//! value, which here are read off the counts when somebody asks. The layout is that of `AbstractHistogram` (unit 1):
//! values below 2,048 have a bucket of their own each, and each halving beyond has 1,024 of twice the width.

use hdrhistogram::{AdditionError, Histogram};

use crate::histogram::{HIGHEST_NANOS, SIGNIFICANT_DIGITS};

/// The smallest power of two that tells [`SIGNIFICANT_DIGITS`] digits apart, twice.
const SUB_BUCKETS: u64 = (2 * 10u64.pow(SIGNIFICANT_DIGITS as u32)).next_power_of_two();
const HALF: u64 = SUB_BUCKETS / 2;
const HALF_BITS: u32 = HALF.trailing_zeros();
const CELLS: usize = index(HIGHEST_NANOS) / HALF as usize * HALF as usize + HALF as usize;

/// Counts of values from zero to one hour. Takes 270 KB, of which the system gives only the pages that values fell into.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    cells: Box<[u64; CELLS]>,
    len: u64,
}

/// A bucket that holds something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    /// Its smallest value.
    pub(crate) lowest: u64,
    /// Its largest value.
    pub(crate) highest: u64,
    /// How many values fell into it.
    pub(crate) count: u64,
}

impl Bucket {
    /// The value that stands for all of them.
    pub(crate) fn middle(&self) -> u64 {
        self.lowest + (self.highest - self.lowest).div_ceil(2)
    }
}

/// Where the count of `value` stands.
const fn index(value: u64) -> usize {
    let exponent = (value | (SUB_BUCKETS - 1)).ilog2() - HALF_BITS;
    ((exponent as usize) << HALF_BITS) + (value >> exponent) as usize
}

/// Smallest and largest value whose count stands at `index`.
fn bounds(index: usize) -> (u64, u64) {
    let exponent = ((index >> HALF_BITS) as u32).saturating_sub(1);
    let step = index as u64 - (u64::from(exponent) << HALF_BITS);
    let lowest = step << exponent;
    (lowest, lowest + (1 << exponent) - 1)
}

impl Counts {
    #[cold]
    pub(crate) fn new() -> Self {
        // Zeroed by the system where it can: no page is touched before a value falls into it.
        let cells = vec![0; CELLS].into_boxed_slice();
        Self {
            cells: cells.try_into().expect("the slice was made of that length"),
            len: 0,
        }
    }

    /// Counts one value; one beyond one hour counts as one hour.
    #[inline]
    pub(crate) fn record(&mut self, value: u64) {
        self.cells[index(value.min(HIGHEST_NANOS))] += 1;
        self.len += 1;
    }

    /// Counts values that are known to be neither negative nor beyond one hour, and their number once.
    #[inline]
    pub(crate) fn record_all(&mut self, values: &[i64]) {
        self.len += values.len() as u64;
        for &value in values {
            self.cells[index(value as u64)] += 1;
        }
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The buckets that hold something, from the smallest values on.
    pub(crate) fn buckets(&self) -> impl DoubleEndedIterator<Item = Bucket> {
        let filled = self
            .cells
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0);
        filled.map(|(at, &count)| {
            let (lowest, highest) = bounds(at);
            Bucket {
                lowest,
                highest,
                count,
            }
        })
    }

    /// The bucket in which the value stands that has `rank`, from 1 and from the smallest on.
    pub(crate) fn at_rank(&self, rank: u64) -> Option<Bucket> {
        let mut passed = 0;
        self.buckets().find(|bucket| {
            passed += bucket.count;
            passed >= rank
        })
    }

    pub(crate) fn add(&mut self, other: &Counts) {
        for (ours, &theirs) in self.cells.iter_mut().zip(other.cells.iter()) {
            // To write zero would touch the page.
            if theirs > 0 {
                *ours += theirs;
            }
        }
        self.len += other.len;
    }

    /// Adds what a file gave back.
    ///
    /// # Errors
    /// It holds a value beyond one hour's bucket, and then nothing is added.
    pub(crate) fn add_histogram(&mut self, other: &Histogram<u64>) -> Result<(), AdditionError> {
        if other.max() > bounds(index(HIGHEST_NANOS)).1 {
            return Err(AdditionError::OtherAddendValueExceedsRange);
        }
        for step in other.iter_recorded() {
            self.cells[index(step.value_iterated_to().min(HIGHEST_NANOS))] += step.count_at_value();
            self.len += step.count_at_value();
        }
        Ok(())
    }

    /// Empties it and keeps its memory.
    pub(crate) fn reset(&mut self) {
        for count in self.cells.iter_mut().filter(|count| **count > 0) {
            *count = 0;
        }
        self.len = 0;
    }

    /// The same values in the library's own type.
    pub(crate) fn to_histogram(&self) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, HIGHEST_NANOS, SIGNIFICANT_DIGITS)
            .expect("the bounds and digits are constants that HdrHistogram accepts");
        for bucket in self.buckets() {
            histogram
                .record_n(bucket.lowest, bucket.count)
                .expect("every bucket of ours is one of the library's");
        }
        histogram
    }
}
