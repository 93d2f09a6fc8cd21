//! The thread between the two devices: it reads what one side sends, and writes it to the other when it is due.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sched::sched_getcpu;

use crate::pipe::{Fate, Pipe};
use crate::releases::Releases;
use crate::side::Addresses;
use crate::stats::{LinkStats, WayStats};
use crate::wait::{self, Spinning, be_punctual};

/// Nanoseconds of a clock that never goes back.
pub type Clock = fn() -> u64;

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
    /// It was not due at once: only what had to wait can be released late.
    waits: bool,
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
    fn packet(&mut self, buffer: Box<[u8]>, length: usize, waits: bool) -> Packet {
        if length * 2 > self.size {
            return Packet {
                bytes: buffer,
                length,
                waits,
            };
        }
        let bytes = buffer[..length].into();
        self.give(buffer);
        Packet {
            bytes,
            length,
            waits,
        }
    }
}

impl Relay {
    /// Relays until it is told to end.
    pub(crate) fn run(mut self) -> io::Result<()> {
        be_punctual();
        // From when to when it has waited on the processor without a break.
        let mut waited: Option<(u64, u64)> = None;
        let mut spinning = Spinning::default();
        loop {
            let busy = self.turn();
            let now = (self.clock)();
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
                }
            }
        }
    }

    /// When the next packet of either direction is due.
    fn next_due(&self) -> Option<u64> {
        let dues = self.lanes.iter();
        dues.filter_map(|lane| lane.under_way.next_due()).min()
    }

    /// Reads what is there and writes what is due; whether anything was.
    fn turn(&mut self) -> bool {
        let mut stats = self.shared.stats();
        let stats = &mut *stats;
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
            self.lanes[0].from.as_fd(),
            self.lanes[1].from.as_fd(),
            self.end.as_fd(),
        ];
        let woken = wait::sleep(wanted, nanos)?;
        if let Ok(core) = sched_getcpu() {
            self.shared.stats().cores.insert(core);
        }
        Ok(woken.ready[2] || woken.gone[..2].contains(&true))
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

    /// Reads what is there, but for what must wait because something is due at `due`; whether anything was.
    fn read(
        &mut self,
        way: usize,
        stats: &mut LinkStats,
        spare: &mut Spare,
        clock: Clock,
        due: u64,
    ) -> bool {
        for count in 0..READS {
            let mut bytes = spare.take();
            // Nothing there, or a device that is gone: the wait tells.
            let Ok(length) = (&self.from).read(&mut bytes) else {
                spare.give(bytes);
                return count > 0;
            };
            let now = clock();
            self.admit(now, bytes, length, way, stats, spare);
            if now >= due {
                break;
            }
        }
        true
    }

    /// A packet, the first `length` of `bytes`, came in at `now`.
    fn admit(
        &mut self,
        now: u64,
        bytes: Box<[u8]>,
        length: usize,
        way: usize,
        stats: &mut LinkStats,
        spare: &mut Spare,
    ) {
        let packet = &bytes[..length];
        if !self.is_for_the_other_side(packet) {
            stats.ignored += 1;
            return spare.give(bytes);
        }
        let of_way = way_of(stats, way);
        of_way.packets.count(packet);
        of_way.bytes += length as u64;
        if self.under_way_bytes + bytes.len() > UNDER_WAY {
            of_way.overflow += 1;
            return spare.give(bytes);
        }
        match self.pipe.admit(now, length) {
            Fate::Due(due) => {
                let waits = due > now;
                let packet = spare.packet(bytes, length, waits);
                self.under_way_bytes += packet.memory();
                return self.under_way.push(due, packet);
            }
            Fate::Lost => of_way.lost.count(packet),
            Fate::QueueFull => of_way.queue_full += 1,
        }
        spare.give(bytes);
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
            if packet.waits {
                stats.released(now - due);
            }
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

fn way_of(stats: &mut LinkStats, way: usize) -> &mut WayStats {
    match way {
        0 => &mut stats.up,
        _ => &mut stats.down,
    }
}
