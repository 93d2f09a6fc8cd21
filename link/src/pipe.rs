//! One direction of a link: what becomes of a packet, and when. Pure: the moment comes in as an argument.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::loss::Losing;
use crate::spec::Way;

/// Nanoseconds in a second.
const SECOND: u128 = 1_000_000_000;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It comes out at this moment, in nanoseconds of the clock whose moments came in.
    Due(u64),
    /// The line loses it, on its way.
    Lost,
    /// The queue before the line has no room for it.
    QueueFull,
}

/// One direction: a queue with a bound, a line that takes so many bits a second, a way that takes its time.
///
/// A packet waits until those before it are on the line, is written onto the line bit by bit, and is then on its way for the
/// delay and a part of the jitter. One that is lost has taken its time on the line all the same.
#[derive(Debug)]
pub struct Pipe {
    delay: u64,
    jitter: u64,
    /// Bits per second.
    rate: Option<u64>,
    queue: u64,
    keeps_order: bool,
    losing: Losing,
    random: ChaCha8Rng,
    /// When the last bit that was accepted leaves the queue.
    free_at: u64,
    /// What the last division by the rate left over, so that long runs keep the rate to the bit.
    rest: u128,
    last_due: u64,
}

impl Pipe {
    /// A direction as `way` says, with a queue of `queue` bytes; without `reorder` no packet overtakes another.
    pub fn new(way: &Way, queue: u64, reorder: bool, seed: u64) -> Self {
        Self {
            delay: way.delay.as_nanos() as u64,
            jitter: way.jitter.as_nanos() as u64,
            rate: way.rate,
            queue,
            keeps_order: !reorder,
            losing: Losing::new(way.loss),
            random: ChaCha8Rng::seed_from_u64(seed),
            free_at: 0,
            rest: 0,
            last_due: 0,
        }
    }

    /// A packet of `bytes` bytes comes in at `now`. Moments never go back.
    pub fn admit(&mut self, now: u64, bytes: usize) -> Fate {
        let Some(sent) = self.serialise(now, bytes as u64) else {
            return Fate::QueueFull;
        };
        if self.losing.takes(&mut self.random) {
            return Fate::Lost;
        }
        let more = match self.jitter {
            0 => 0,
            most => self.random.random_range(0..=most),
        };
        let mut due = sent + self.delay + more;
        if self.keeps_order {
            due = due.max(self.last_due);
        }
        self.last_due = due;
        Fate::Due(due)
    }

    /// Bytes that wait for the line at `now`, or are on their way onto it.
    pub fn waiting(&self, now: u64) -> u64 {
        let rate = u128::from(self.rate.unwrap_or(0));
        let left = u128::from(self.free_at.saturating_sub(now));
        (left * rate).div_ceil(8 * SECOND) as u64
    }

    /// When the last bit is on the line; `None` where the queue has no room.
    fn serialise(&mut self, now: u64, bytes: u64) -> Option<u64> {
        let Some(rate) = self.rate else {
            return Some(now);
        };
        if self.waiting(now) + bytes > self.queue {
            return None;
        }
        if self.free_at <= now {
            self.free_at = now;
            self.rest = 0;
        }
        let rate = u128::from(rate);
        let work = u128::from(bytes) * 8 * SECOND + self.rest;
        self.free_at += (work / rate) as u64;
        self.rest = work % rate;
        Some(self.free_at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::loss::Loss;

    const MS: u64 = 1_000_000;

    fn way(delay: u64, jitter: u64, rate: Option<u64>) -> Way {
        Way {
            delay: Duration::from_nanos(delay),
            jitter: Duration::from_nanos(jitter),
            rate,
            ..Way::default()
        }
    }

    #[test]
    fn an_idle_line_takes_delay_and_serialisation() {
        let mut pipe = Pipe::new(&way(20 * MS, 0, Some(100_000_000)), 1 << 20, false, 1);
        // 1,250 bytes are 10,000 bits: 100 us at 100 Mbit/s.
        assert_eq!(pipe.admit(5, 1_250), Fate::Due(5 + 100_000 + 20 * MS));
        assert_eq!(pipe.admit(5, 1_250), Fate::Due(5 + 200_000 + 20 * MS));
        assert_eq!(pipe.waiting(5), 2_500);
        assert_eq!(pipe.waiting(100_005), 1_250);
        // Idle again: nothing of the past counts.
        assert_eq!(pipe.admit(MS, 1_250), Fate::Due(MS + 100_000 + 20 * MS));
    }

    #[test]
    fn the_queue_drops_its_tail_and_no_more() {
        let mut pipe = Pipe::new(&way(0, 0, Some(8_000_000)), 3_000, false, 1);
        // A byte takes 1 us.
        assert_eq!(pipe.admit(0, 1_500), Fate::Due(1_500_000));
        assert_eq!(pipe.admit(0, 1_500), Fate::Due(3_000_000));
        assert_eq!(pipe.admit(0, 40), Fate::QueueFull);
        assert_eq!(pipe.admit(40_000, 40), Fate::Due(3_040_000));
        assert_eq!(pipe.admit(40_000, 1), Fate::QueueFull);
    }

    #[test]
    fn a_lost_packet_took_its_time_on_the_line() {
        let mut lossy = way(0, 0, Some(8_000_000));
        lossy.loss = Loss::Bernoulli { share: 1.0 };
        let mut pipe = Pipe::new(&lossy, 10_000, false, 1);
        assert_eq!(pipe.admit(0, 1_000), Fate::Lost);
        assert_eq!(pipe.waiting(0), 1_000);
    }

    #[test]
    fn jitter_spreads_over_its_span() {
        let mut pipe = Pipe::new(&way(10 * MS, 2 * MS, None), 0, true, 3);
        let over: Vec<u64> = (0..10_000u64)
            .map(|at| match pipe.admit(at * 1_000, 100) {
                Fate::Due(due) => due - at * 1_000 - 10 * MS,
                fate => panic!("{fate:?}"),
            })
            .collect();
        let mean = over.iter().sum::<u64>() / over.len() as u64;
        assert!(mean.abs_diff(MS) < 30_000, "{mean}");
        assert!(over.iter().all(|more| *more <= 2 * MS));
        assert!(over.iter().any(|more| *more > 19 * MS / 10));
    }

    /// Packets: how long after the one before, in nanoseconds, and how many bytes.
    fn packets() -> impl Strategy<Value = Vec<(u64, usize)>> {
        prop::collection::vec((0u64..3 * MS, 40usize..1_500), 1..200)
    }

    proptest! {
        #[test]
        fn packets_keep_order_delay_and_rate(
            packets in packets(),
            rate in 1_000_000u64..1_000_000_000,
            delay in 0..50 * MS,
            jitter in 0..5 * MS,
            seed in any::<u64>(),
        ) {
            let mut pipe = Pipe::new(&way(delay, jitter, Some(rate)), 20_000, false, seed);
            let (mut now, mut last, mut sent_bits, mut first) = (0, 0, 0u128, None);
            for (gap, bytes) in packets {
                now += gap;
                let waiting = pipe.waiting(now);
                match pipe.admit(now, bytes) {
                    Fate::Due(due) => {
                        prop_assert!(due >= last && due >= now + delay);
                        last = due;
                        sent_bits += bytes as u128 * 8;
                        // No more bits came out than the line can have written since the first one.
                        let began = *first.get_or_insert(now);
                        let span = u128::from(due - delay - began) + 1;
                        prop_assert!(sent_bits * SECOND <= (span + u128::from(jitter)) * u128::from(rate) + u128::from(rate));
                    }
                    Fate::QueueFull => prop_assert!(waiting + bytes as u64 > 20_000),
                    Fate::Lost => prop_assert!(false, "this line loses nothing"),
                }
                prop_assert!(pipe.waiting(now) <= 20_000);
            }
        }

        #[test]
        fn only_a_line_that_may_reorder_does(seed in any::<u64>()) {
            let mut pipe = Pipe::new(&way(MS, MS, None), 0, true, seed);
            let dues: Vec<u64> = (0..200).map(|at| match pipe.admit(at * 100, 100) {
                Fate::Due(due) => due,
                _ => 0,
            }).collect();
            prop_assert!(dues.windows(2).any(|pair| pair[1] < pair[0]));
        }
    }
}
