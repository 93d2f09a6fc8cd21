//! The thread between the two devices: it reads what one side sends, and writes it to the other when it is due.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::prctl::set_timerslack;
use nix::sys::time::TimeSpec;
use nix::unistd::gettid;
use thread_priority::ThreadPriority;
use thread_priority::unix::{
    RealtimeThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

use crate::pipe::{Fate, Pipe};
use crate::releases::Releases;
use crate::side::Addresses;
use crate::stats::{LinkStats, WayStats};

/// Nanoseconds of a clock that never goes back.
pub type Clock = fn() -> u64;

/// The thread wakes so long before a packet is due, and waits the rest out on the processor: the kernel wakes a thread some
/// ten microseconds late. In nanoseconds.
const SPIN: u64 = 40_000;
/// Packets read from one side before the other has its turn, and before what is due is looked at.
const READS: usize = 16;
/// Bytes of memory that packets under way may take in one direction. At 10 Gbit/s of full packets it is a fifth of a second.
const UNDER_WAY: usize = 256 << 20;
/// What a packet takes beside its buffer: its place in the heap, and the allocator's own.
const BESIDE: usize = 64;
/// Bytes of buffers that are kept for later packets.
const SPARE: usize = 6 << 20;

/// What the relay and those who ask about it share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    stats: Mutex<LinkStats>,
    thread: AtomicI32,
    waited: AtomicU64,
}

impl Shared {
    pub(crate) fn stats(&self) -> MutexGuard<'_, LinkStats> {
        // Counts are whole at any time, whatever became of who wrote them.
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The relay's thread; 0 until it runs.
    pub(crate) fn thread(&self) -> i32 {
        self.thread.load(Ordering::Relaxed)
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

/// One direction.
pub(crate) struct Lane {
    from: File,
    to: File,
    towards: Addresses,
    pipe: Pipe,
    under_way: Releases<Packet>,
    under_way_bytes: usize,
}

struct Packet {
    bytes: Box<[u8]>,
    length: usize,
}

impl Packet {
    /// Bytes of memory that it takes.
    fn memory(&self) -> usize {
        self.bytes.len() + BESIDE
    }
}

/// Buffers for packets.
pub(crate) struct Spare {
    buffers: Vec<Box<[u8]>>,
    size: usize,
}

impl Spare {
    pub(crate) fn of(size: usize) -> Self {
        Self {
            buffers: Vec::new(),
            size,
        }
    }

    fn take(&mut self) -> Box<[u8]> {
        let made = || vec![0; self.size].into_boxed_slice();
        self.buffers.pop().unwrap_or_else(made)
    }

    fn give(&mut self, buffer: Box<[u8]>) {
        if buffer.len() == self.size && (self.buffers.len() + 1) * self.size <= SPARE {
            self.buffers.push(buffer);
        }
    }

    /// The packet that the first `length` bytes of `buffer` are; a small one in a buffer of its own size, so that a long way
    /// full of small packets takes no more memory than they are.
    fn packet(&mut self, buffer: Box<[u8]>, length: usize) -> Packet {
        if length * 2 > self.size {
            return Packet {
                bytes: buffer,
                length,
            };
        }
        let bytes = buffer[..length].into();
        self.give(buffer);
        Packet { bytes, length }
    }
}

impl Relay {
    /// Relays until it is told to end.
    pub(crate) fn run(mut self) -> io::Result<()> {
        self.shared
            .thread
            .store(gettid().as_raw(), Ordering::Relaxed);
        // Without it the kernel may wake a thread 50 us late so as to wake several at once (prctl(2)).
        let _ = set_timerslack(1);
        go_first();
        // From when to when it has waited on the processor without a break.
        let mut waited: Option<(u64, u64)> = None;
        loop {
            let busy = self.turn();
            let due = self
                .lanes
                .iter()
                .filter_map(|lane| lane.under_way.next_due());
            let now = (self.clock)();
            let left = due.min().map(|due| due.saturating_sub(now));
            let waits = !busy && left.is_some_and(|left| left <= SPIN);
            if waits {
                waited.get_or_insert((now, now)).1 = now;
            } else if let Some((from, to)) = waited.take() {
                self.shared.waited.fetch_add(to - from, Ordering::Relaxed);
            }
            match left {
                _ if busy => {}
                _ if waits => std::hint::spin_loop(),
                left => {
                    if self.wait(left.map(|left| left - SPIN))? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Reads what is there and writes what is due; whether anything was.
    fn turn(&mut self) -> bool {
        let mut stats = self.shared.stats();
        let stats = &mut *stats;
        let mut busy = false;
        for (way, lane) in self.lanes.iter_mut().enumerate() {
            busy |= lane.read(way, stats, &mut self.spare, self.clock);
        }
        for (way, lane) in self.lanes.iter_mut().enumerate() {
            busy |= lane.write(way, stats, &mut self.spare, self.clock);
        }
        busy
    }

    /// Waits for a packet, or so many nanoseconds; `true`: the relay is to end.
    fn wait(&self, nanos: Option<u64>) -> io::Result<bool> {
        let wanted = [
            self.lanes[0].from.as_fd(),
            self.lanes[1].from.as_fd(),
            self.end.as_fd(),
        ];
        let mut fds = wanted.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let limit = nanos
            .map(|nanos| TimeSpec::new((nanos / 1_000_000_000) as _, (nanos % 1_000_000_000) as _));
        match ppoll(&mut fds, limit, None) {
            Ok(_) => {}
            Err(nix::Error::EINTR) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        // A device that was deleted is ready at once, for ever, and never has a packet again.
        let gone = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
        let is_gone = |fd: &PollFd<'_>| fd.revents().is_none_or(|events| events.intersects(gone));
        Ok(fds[2].any().unwrap_or(true) || fds[..2].iter().any(is_gone))
    }
}

impl Lane {
    pub(crate) fn new(from: File, to: File, towards: Addresses, pipe: Pipe) -> Self {
        Self {
            from,
            to,
            towards,
            pipe,
            under_way: Releases::default(),
            under_way_bytes: 0,
        }
    }

    fn read(&mut self, way: usize, stats: &mut LinkStats, spare: &mut Spare, clock: Clock) -> bool {
        for count in 0..READS {
            let mut bytes = spare.take();
            // Nothing there, or a device that is gone: the wait tells.
            let Ok(length) = (&self.from).read(&mut bytes) else {
                spare.give(bytes);
                return count > 0;
            };
            let now = clock();
            let packet = &bytes[..length];
            if !self.is_for_the_other_side(packet) {
                stats.ignored += 1;
                spare.give(bytes);
                continue;
            }
            let of_way = way_of(stats, way);
            of_way.packets.count(packet);
            of_way.bytes += length as u64;
            if self.under_way_bytes + bytes.len() > UNDER_WAY {
                of_way.overflow += 1;
                spare.give(bytes);
                continue;
            }
            match self.pipe.admit(now, length) {
                Fate::Due(due) => {
                    let packet = spare.packet(bytes, length);
                    self.under_way_bytes += packet.memory();
                    self.under_way.push(due, packet);
                    continue;
                }
                Fate::Lost => of_way.lost.count(packet),
                Fate::QueueFull => of_way.queue_full += 1,
            }
            spare.give(bytes);
        }
        true
    }

    fn write(
        &mut self,
        way: usize,
        stats: &mut LinkStats,
        spare: &mut Spare,
        clock: Clock,
    ) -> bool {
        let mut busy = false;
        for _ in 0..READS {
            let now = clock();
            let Some((due, packet)) = self.under_way.pop_due(now) else {
                return busy;
            };
            busy = true;
            self.under_way_bytes -= packet.memory();
            let written = (&self.to).write(&packet.bytes[..packet.length]);
            stats.released(now - due);
            let of_way = way_of(stats, way);
            match written {
                Ok(_) => of_way.delivered += 1,
                Err(_) => of_way.overflow += 1,
            }
            spare.give(packet.bytes);
        }
        busy
    }

    /// What the kernel sends to groups (neighbours, routers) is no traffic of anybody's.
    fn is_for_the_other_side(&self, packet: &[u8]) -> bool {
        let to: Option<IpAddr> = match packet.first().map(|byte| byte >> 4) {
            Some(4) => packet
                .get(16..20)
                .and_then(|it| Some(<[u8; 4]>::try_from(it).ok()?.into())),
            Some(6) => packet
                .get(24..40)
                .and_then(|it| Some(<[u8; 16]>::try_from(it).ok()?.into())),
            _ => None,
        };
        to.is_some_and(|to| to == self.towards.v4 || to == self.towards.v6)
    }
}

/// Has the thread run before all that has no such priority (sched(7), SCHED_FIFO): a link is exact on a busy host too, where
/// others would be let finish their slice of some milliseconds first. Who may not do that has a link that is less exact then,
/// and the release error says so.
fn go_first() {
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let _ = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy);
}

fn way_of(stats: &mut LinkStats, way: usize) -> &mut WayStats {
    match way {
        0 => &mut stats.up,
        _ => &mut stats.down,
    }
}
