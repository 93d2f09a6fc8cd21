//! What a link did: packets by their fate, and how exactly they were released.

use std::collections::BTreeSet;
use std::fs;

use hdrhistogram::Histogram;

use crate::busy::Busy;

/// Releases later than this are counted as this late, in nanoseconds.
const LATEST: u64 = 10_000_000_000;
/// How exactly lateness is kept, in decimal digits.
const DIGITS: u8 = 3;

/// Packets by protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByProtocol {
    /// TCP.
    pub tcp: u64,
    /// UDP, QUIC's too.
    pub udp: u64,
    /// The rest: ICMP.
    pub other: u64,
}

impl ByProtocol {
    /// All of them.
    pub fn all(&self) -> u64 {
        self.tcp + self.udp + self.other
    }

    pub(crate) fn count(&mut self, packet: &[u8]) {
        let protocol = match packet.first().map(|byte| byte >> 4) {
            Some(4) => packet.get(9),
            _ => packet.get(6),
        };
        match protocol {
            Some(6) => self.tcp += 1,
            Some(17) => self.udp += 1,
            _ => self.other += 1,
        }
    }
}

/// One direction's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WayStats {
    /// Came in.
    pub packets: ByProtocol,
    /// Bytes of them.
    pub bytes: u64,
    /// Lost as the link's loss says, of those that were not dropped before.
    pub lost: ByProtocol,
    /// Dropped by the link's queue.
    pub queue_full: u64,
    /// Came out at the other side.
    pub delivered: u64,
    /// Of those, came out after one that had come in later.
    pub reordered: u64,
    /// Dropped because more was under way than the emulator holds, or because the other side's device took none: never the
    /// link's own doing.
    pub overflow: u64,
}

/// What a link did since it was asked last.
#[derive(Clone, Debug)]
pub struct LinkStats {
    /// From the client to the server.
    pub up: WayStats,
    /// From the server to the client.
    pub down: WayStats,
    /// How much later than they should packets were released, in nanoseconds; of those that had to wait at all.
    pub release_error: Histogram<u64>,
    /// Packets that were for nobody on the link: neighbours that are looked for, groups.
    pub ignored: u64,
    /// Cores on which the relay found itself when it woke.
    pub cores: BTreeSet<usize>,
    pub(crate) busy: Busy,
}

impl Default for LinkStats {
    fn default() -> Self {
        Self {
            up: WayStats::default(),
            down: WayStats::default(),
            release_error: Histogram::new_with_max(LATEST, DIGITS)
                .expect("bounds and digits are ones that a histogram can have"),
            ignored: 0,
            cores: BTreeSet::new(),
            busy: Busy::default(),
        }
    }
}

impl LinkStats {
    pub(crate) fn released(&mut self, late: u64) {
        self.release_error.saturating_record(late);
    }

    /// How late the slowest one of a hundred packets was released, in nanoseconds; 0 without a packet.
    pub fn release_error_p99(&self) -> u64 {
        self.release_error.value_at_quantile(0.99)
    }

    /// The share of its busiest tenth of a second in which the relay neither slept nor waited for a moment.
    pub fn busiest(&self) -> f64 {
        self.busy.most()
    }

    /// Packets that came in and have not met their fate yet, of those that came since the counting began.
    pub(crate) fn under_way(&self) -> u64 {
        let ways = [&self.up, &self.down].into_iter();
        ways.map(|way| {
            let gone = way.lost.all() + way.queue_full + way.overflow + way.delivered;
            way.packets.all().saturating_sub(gone)
        })
        .sum()
    }

    /// Packets that the emulator dropped where the link would not have.
    pub fn overflow(&self) -> u64 {
        self.up.overflow + self.down.overflow
    }
}

/// CPU time of a thread of this process, in nanoseconds.
pub(crate) fn cpu_of(thread: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Time of all cores, and what of it the hypervisor gave to others, in the system's ticks.
pub(crate) fn stolen() -> Option<(u64, u64)> {
    stolen_of(&fs::read_to_string("/proc/stat").ok()?)
}

/// The same, of this text of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal.
fn stolen_of(text: &str) -> Option<(u64, u64)> {
    let counts = text.lines().next()?.strip_prefix("cpu ")?;
    let counts = counts.split_whitespace().take(8);
    let counts: Vec<u64> = counts.map(str::parse).collect::<Result<_, _>>().ok()?;
    Some((counts.iter().sum(), *counts.get(7)?))
}

/// Packets that a namespace's devices dropped before the relay could read them: `/proc/net/dev`, as it is within it.
pub(crate) fn dropped_on_sending(text: &str, device: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| {
        let (name, counts) = line.split_once(':')?;
        (name.trim() == device).then_some(counts)
    })?;
    // Eight counts of receiving come first; the fourth of sending is what was dropped.
    line.split_whitespace().nth(11)?.parse().ok()
}

/// Datagrams that found no room in the receive buffer of the socket at `port`: `/proc/net/udp`, as it is within the socket's
/// namespace.
pub(crate) fn dropped_on_receiving(text: &str, port: u16) -> Option<u64> {
    let address = format!(":{port:04X}");
    let line = text.lines().find(|line| {
        let local = line.split_whitespace().nth(1);
        local.is_some_and(|local| local.ends_with(&address))
    })?;
    line.split_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_told_apart_by_protocol() {
        let mut count = ByProtocol::default();
        let mut packet = [0u8; 40];
        packet[0] = 0x45;
        packet[9] = 6;
        count.count(&packet);
        packet[0] = 0x60;
        packet[6] = 17;
        count.count(&packet);
        count.count(&[]);
        assert_eq!((count.tcp, count.udp, count.other), (1, 1, 1));
        assert_eq!(count.all(), 3);
    }

    #[test]
    fn what_the_hypervisor_took_is_the_eighth_count() {
        let text = "cpu  10 20 30 40 1 2 3 4 99 99\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(stolen_of(text), Some((110, 4)));
        assert_eq!(stolen_of("cpu  1 2 3\n"), None);
        assert_eq!(stolen_of("cpu  1 2 3 4 5 6 7 x\n"), None);
        assert_eq!(stolen_of(""), None);
    }

    #[test]
    fn the_system_tells_what_a_device_dropped() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes ...\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12\n  \
                    link: 100 2 0 0 0 0 0 0 300 4 0 17 0 0 0 0\n";
        assert_eq!(dropped_on_sending(text, "link"), Some(17));
        assert_eq!(dropped_on_sending(text, "lin"), None);
        assert_eq!(dropped_on_sending("link: 1 2", "link"), None);
    }

    #[test]
    fn the_system_tells_what_a_socket_had_no_room_for() {
        let text = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref \
                    pointer drops\n  349: 020012C6:14E9 00000000:0000 07 0:0 00:0 0 0 0 77 2 0 3\n  350: \
                    020012C6:04D2 00000000:0000 07 0:0 00:0 0 0 0 78 2 0 41\n";
        assert_eq!(dropped_on_receiving(text, 1_234), Some(41));
        assert_eq!(dropped_on_receiving(text, 5_353), Some(3));
        assert_eq!(dropped_on_receiving(text, 80), None);
        assert_eq!(dropped_on_receiving("", 80), None);
    }
}
