//! One direction of a link: what comes from one side's device, until it is written to the other's.

use std::fs::File;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use crate::pipe::{Fate, Pipe};
use crate::relay::Clock;
use crate::releases::Releases;
use crate::side::Addresses;
use crate::stats::{LinkStats, WayStats};

/// Packets read from one side before the other has its turn, and before what is due is looked at.
const READS: usize = 16;
/// Bytes of memory that packets under way may take in one direction. At 10 Gbit/s of full packets it is a fifth of a second.
const UNDER_WAY: usize = 256 << 20;
/// What a packet takes beside its buffer: its place in the heap, and the allocator's own.
const BESIDE: usize = 64;
/// Bytes of buffers that are kept for later packets.
const SPARE: usize = 6 << 20;

/// One direction.
pub(crate) struct Lane {
    from: File,
    to: File,
    towards: Addresses,
    pipe: Pipe,
    under_way: Releases<Packet>,
    under_way_bytes: usize,
    /// Packets that came in, and the number of the latest one of those that came out.
    came: u64,
    latest: u64,
}

struct Packet {
    bytes: Box<[u8]>,
    length: usize,
    /// Which of its direction's packets it was, in the order in which they came.
    number: u64,
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

    /// The first `length` bytes of `buffer`; a small packet in a buffer of its own size, so that a long way full of small ones
    /// takes no more memory than they are.
    fn fitting(&mut self, buffer: Box<[u8]>, length: usize) -> Box<[u8]> {
        if length * 2 > self.size {
            return buffer;
        }
        let bytes = buffer[..length].into();
        self.give(buffer);
        bytes
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
            came: 0,
            latest: 0,
        }
    }

    /// The device that its packets come from.
    pub(crate) fn device(&self) -> BorrowedFd<'_> {
        self.from.as_fd()
    }

    /// When its next packet is due.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.under_way.next_due()
    }

    /// Reads what is there, but for what must wait because something is due at `due`; whether anything was.
    pub(crate) fn read(
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
                self.came += 1;
                let packet = Packet {
                    bytes: spare.fitting(bytes, length),
                    length,
                    number: self.came,
                    waits: due > now,
                };
                self.under_way_bytes += packet.memory();
                return self.under_way.push(due, packet);
            }
            Fate::Lost => of_way.lost.count(packet),
            Fate::QueueFull => of_way.queue_full += 1,
        }
        spare.give(bytes);
    }

    /// Writes what is due; whether anything was.
    pub(crate) fn write(
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
                Ok(_) => {
                    of_way.delivered += 1;
                    // As RFC 4737, section 3.3, tells it: one that comes after a later one.
                    of_way.reordered += u64::from(packet.number < self.latest);
                    self.latest = self.latest.max(packet.number);
                }
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
