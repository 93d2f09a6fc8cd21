//! The thread between the two devices: it reads what one side sends, and writes it to the other when it is due.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sched::sched_getcpu;

use crate::lane::{Lane, Spare};
use crate::stats::LinkStats;
use crate::wait::{self, Spinning, be_punctual};

/// Nanoseconds of a clock that never goes back.
pub type Clock = fn() -> u64;

/// What the relay and those who ask about it share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    stats: Mutex<LinkStats>,
    waited: AtomicU64,
}

impl Shared {
    pub(crate) fn stats(&self) -> MutexGuard<'_, LinkStats> {
        // Counts are whole at any time, whatever became of who wrote them.
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nanoseconds that the relay has waited on the processor.
    pub(crate) fn waited(&self) -> u64 {
        self.waited.load(Ordering::Relaxed)
    }
}

/// The relay.
pub(crate) struct Relay {
    pub(crate) lanes: [Lane; 2],
    pub(crate) clock: Clock,
    pub(crate) shared: Arc<Shared>,
    /// Ends the relay when its other end is closed.
    pub(crate) end: UnixStream,
    pub(crate) spare: Spare,
}

impl Relay {
    /// Relays until it is told to end.
    pub(crate) fn run(mut self) -> io::Result<()> {
        be_punctual();
        // From when to when it has waited on the processor without a break.
        let mut waited: Option<(u64, u64)> = None;
        let mut spinning = Spinning::default();
        // From when to when it has worked, as far as that is not counted yet.
        let mut since = (self.clock)();
        let mut worked = (since, since);
        loop {
            let busy = self.turn(worked);
            let now = (self.clock)();
            worked = match busy || waited.is_none() {
                true => (since, now),
                // A look in between that found nothing is a part of the wait.
                false => (now, now),
            };
            since = now;
            let left = self.next_due().map(|due| due.saturating_sub(now));
            let waits = match left {
                Some(left) if !busy => spinning.waits(now, left),
                _ => {
                    spinning.rests(now);
                    false
                }
            };
            if waits {
                waited.get_or_insert((now, now)).1 = now;
            } else if let Some((from, to)) = waited.take() {
                self.shared.waited.fetch_add(to - from, Ordering::Relaxed);
            }
            match left {
                _ if busy => {}
                _ if waits => std::hint::spin_loop(),
                left => {
                    if self.wait(left.map(|left| spinning.sleep(left)))? {
                        return Ok(());
                    }
                    since = (self.clock)();
                }
            }
        }
    }

    /// When the next packet of either direction is due.
    fn next_due(&self) -> Option<u64> {
        let dues = self.lanes.iter();
        dues.filter_map(|lane| lane.next_due()).min()
    }

    /// Counts from when to when it has worked; reads what is there and writes what is due; whether anything was.
    fn turn(&mut self, (from, to): (u64, u64)) -> bool {
        let mut stats = self.shared.stats();
        let stats = &mut *stats;
        stats.busy.works(from, to);
        let mut busy = false;
        let due = self.next_due().unwrap_or(u64::MAX);
        for (way, lane) in self.lanes.iter_mut().enumerate() {
            busy |= lane.read(way, stats, &mut self.spare, self.clock, due);
        }
        for (way, lane) in self.lanes.iter_mut().enumerate() {
            busy |= lane.write(way, stats, &mut self.spare, self.clock);
        }
        busy
    }

    /// Waits for a packet, or so many nanoseconds; `true`: the relay is to end.
    fn wait(&self, nanos: Option<u64>) -> io::Result<bool> {
        let wanted = [
            self.lanes[0].device(),
            self.lanes[1].device(),
            self.end.as_fd(),
        ];
        let woken = wait::sleep(wanted, nanos)?;
        if let Ok(core) = sched_getcpu() {
            self.shared.stats().cores.insert(core);
        }
        Ok(woken.ready[2] || woken.gone[..2].contains(&true))
    }
}
