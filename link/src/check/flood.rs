//! How much comes through: TCP as fast as it will, UDP at a pace.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::prctl::set_timerslack;
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use socket2::SockRef;

use super::echo::{Ends, broken, longest};
use crate::{Clock, Link, Side, stats};

/// How long TCP sends, and how much of it is its start, in nanoseconds.
pub(super) const TCP: u64 = 3_000_000_000;
pub(super) const START: u64 = 1_000_000_000;
/// How long UDP sends, in nanoseconds.
pub(super) const UDP: u64 = 2_000_000_000;
/// Silence that ends a receiver, beyond the longest that the link takes.
const SILENCE: Duration = Duration::from_millis(300);
/// Spans in which datagrams are counted, in nanoseconds, and datagrams in one of which a rate can be told.
const SPAN: u64 = 100_000_000;
const MANY: u64 = 200;
/// IPv4's and UDP's headers, in bytes.
const HEADERS: usize = 28;
/// Room for what comes while the receiver does not run, in bytes.
const ROOM: usize = 16 << 20;
const CHUNK: usize = 256 * 1024;

/// Payload bits per second that TCP brings through after its start.
pub(super) fn tcp(link: &Link, down: bool, clock: Clock) -> io::Result<f64> {
    let ends = Ends::of(link, link.server.addresses.v4.into());
    let (client, server) = ends.pair()?;
    let (mut from, to) = match down {
        true => (server, client),
        false => (client, server),
    };
    thread::scope(|scope| {
        // It ends when the receiver has gone.
        scope.spawn(move || while let Ok(1..) = from.write(&[0; CHUNK]) {});
        received(to, clock)
    })
}

/// Closes its end when it has seen enough.
fn received(mut stream: TcpStream, clock: Clock) -> io::Result<f64> {
    let mut chunk = vec![0; CHUNK];
    let begun = clock();
    let (mut counted, mut since) = (0u64, None);
    loop {
        let length = stream.read(&mut chunk)?;
        let now = clock();
        if length == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        match since {
            None if now - begun >= START => since = Some(now),
            None => {}
            Some(since) => {
                counted += length as u64;
                if now - begun >= TCP {
                    return Ok(counted as f64 * 8e9 / (now - since).max(1) as f64);
                }
            }
        }
    }
}

/// What became of datagrams that were sent at a pace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flood {
    pub(super) sent: u64,
    /// IP bits per second that were sent.
    pub(super) offered: f64,
    pub(super) received: u64,
    /// What came and found no room in the receiver's buffer: no fault of the link's.
    pub(super) no_room: u64,
    /// IP bits per second that came out of the link.
    pub(super) rate: f64,
}

/// How much came in spans of [`SPAN`].
#[derive(Debug, Default)]
struct Spans(Vec<u64>);

impl Spans {
    /// One more, so long after the first.
    fn count(&mut self, after: u64) {
        let at = (after / SPAN) as usize;
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        self.0[at] += 1;
    }

    /// Datagrams in the usual span, without the last, which is not whole; `None` where they are too few to tell. A sender or a
    /// receiver that had no core for a while leaves it as it is.
    fn usual(&self) -> Option<u64> {
        let mut whole = self.0.split_last()?.1.to_vec();
        whole.sort_unstable();
        whole.get(whole.len() / 2).copied().filter(|it| *it >= MANY)
    }
}

/// Sends datagrams of the link's size, `rate` IP bits in a second.
pub(super) fn udp(link: &Link, down: bool, rate: u64, clock: Clock) -> io::Result<Flood> {
    let (from, to) = match down {
        true => (&link.server, &link.client),
        false => (&link.client, &link.server),
    };
    let bind = |side: &Side| {
        let address: SocketAddr = (side.addresses.v4, 0).into();
        side.namespace.within(|| UdpSocket::bind(address))?
    };
    let (sender, receiver) = (bind(from)?, bind(to)?);
    // Beyond the system's limit where that is allowed.
    if setsockopt(&receiver, RcvBufForce, &ROOM).is_err() {
        let _ = SockRef::from(&receiver).set_recv_buffer_size(ROOM);
    }
    receiver.set_read_timeout(Some(SILENCE + longest(link.spec())))?;
    let door = receiver.local_addr()?;
    sender.connect(door)?;
    let packet = usize::from(link.spec().mtu);
    let gap = (packet as u64 * 8_000_000_000 / rate).max(1);
    let has_sent = AtomicBool::new(false);
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let sent = paced(&sender, packet - HEADERS, gap, clock);
            has_sent.store(true, Ordering::Release);
            sent
        });
        let mut datagram = vec![0; packet];
        let (mut received, mut first, mut last) = (0u64, 0, 0);
        let mut spans = Spans::default();
        loop {
            // A sender that waits for a core is no end of what is sent.
            let is_over = has_sent.load(Ordering::Acquire);
            match receiver.recv(&mut datagram) {
                Ok(_) => {
                    last = clock();
                    if received == 0 {
                        first = last;
                    }
                    received += 1;
                    spans.count(last - first);
                }
                Err(_) if is_over => break,
                Err(_) => {}
            }
        }
        let (sent, took) = sending.join().unwrap_or_else(|_| Err(broken()))?;
        let table = to
            .namespace
            .within(|| fs::read_to_string("/proc/thread-self/net/udp"))??;
        let no_room = stats::dropped_on_receiving(&table, door.port()).unwrap_or(0);
        let bits = |packets: u64| packets as f64 * packet as f64 * 8e9;
        // What the receiver missed is in no span.
        let rate = match spans.usual().filter(|_| no_room == 0) {
            Some(usual) => bits(usual) / SPAN as f64,
            None => bits((received + no_room).saturating_sub(1)) / (last - first).max(1) as f64,
        };
        Ok(Flood {
            sent,
            offered: bits(sent) / took.max(1) as f64,
            received,
            no_room,
            rate,
        })
    })
}

/// Sends datagrams of so many bytes, `gap` nanoseconds apart; how many, and how long that took.
fn paced(sender: &UdpSocket, bytes: usize, gap: u64, clock: Clock) -> io::Result<(u64, u64)> {
    // The pace is finer than what the kernel rounds sleeps to.
    let _ = set_timerslack(1);
    let datagram = vec![0; bytes];
    let begun = clock();
    let mut sent = 0;
    loop {
        let early = (begun + sent * gap).saturating_sub(clock());
        if early > 0 {
            thread::sleep(Duration::from_nanos(early));
        }
        // One that the system cannot keep up with sends less, and no longer.
        let took = clock() - begun;
        if sent * gap >= UDP || took >= UDP + UDP / 2 {
            return Ok((sent, took));
        }
        sender.send(&datagram)?;
        sent += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_leaves_the_usual_span_as_it_is() {
        let mut spans = Spans::default();
        for number in 0..5_000u64 {
            // A millisecond each, three in it; nothing for a third of a second, and then what waited.
            let at = number / 3 * 1_000_000;
            let held = (400_000_000..700_000_000).contains(&at);
            spans.count(if held { 700_000_000 } else { at });
        }
        assert_eq!(spans.usual(), Some(300));
        let mut few = Spans::default();
        for number in 0..100 {
            few.count(number * 10_000_000);
        }
        assert_eq!(few.usual(), None);
        assert_eq!(Spans::default().usual(), None);
    }
}
