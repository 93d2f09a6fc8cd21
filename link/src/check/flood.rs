//! How much comes through: TCP as fast as it will, UDP at a pace.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use nix::sys::prctl::set_timerslack;
use socket2::SockRef;

use super::echo::{PATIENCE, broken, listen, prepare};
use crate::{Clock, Link};

/// How long TCP sends, and how much of it is its start, in nanoseconds.
const TCP: u64 = 3_000_000_000;
const START: u64 = 1_000_000_000;
/// How long UDP sends, in nanoseconds.
const UDP: u64 = 2_000_000_000;
/// Silence that ends a receiver, beyond the link's own round trip.
const SILENCE: Duration = Duration::from_millis(300);
/// IPv4's and UDP's headers, in bytes.
const HEADERS: usize = 28;
/// Room for what comes while the receiver does not run, in bytes.
const ROOM: usize = 8 << 20;
const CHUNK: usize = 256 * 1024;

/// Payload bits per second that TCP brings through after its start.
pub(super) fn tcp(link: &Link, down: bool, clock: Clock) -> io::Result<f64> {
    let listener = listen(link)?;
    let to = listener.local_addr()?;
    let dial = || TcpStream::connect_timeout(&to, PATIENCE);
    let client = link.client.namespace.within(dial)??;
    let (server, _) = listener.accept()?;
    prepare(&client)?;
    prepare(&server)?;
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
    pub(super) received: u64,
    /// IP bits per second, from the first that came to the last.
    pub(super) rate: f64,
}

/// Sends datagrams of the link's size, `rate` IP bits in a second.
pub(super) fn udp(link: &Link, down: bool, rate: u64, clock: Clock) -> io::Result<Flood> {
    let (from, to) = match down {
        true => (&link.server, &link.client),
        false => (&link.client, &link.server),
    };
    let bind = |side: &crate::Side| {
        let address: SocketAddr = (side.addresses.v4, 0).into();
        side.namespace.within(|| UdpSocket::bind(address))?
    };
    let (sender, receiver) = (bind(from)?, bind(to)?);
    let _ = SockRef::from(&receiver).set_recv_buffer_size(ROOM);
    let spec = link.spec();
    let jitter = spec.up.jitter.max(spec.down.jitter);
    receiver.set_read_timeout(Some(SILENCE + spec.rtt() + jitter))?;
    sender.connect(receiver.local_addr()?)?;
    let packet = usize::from(spec.mtu);
    let gap = (packet as u64 * 8_000_000_000 / rate).max(1);
    thread::scope(|scope| {
        let sending = scope.spawn(move || {
            // The pace is finer than what the kernel rounds sleeps to.
            let _ = set_timerslack(1);
            let datagram = vec![0; packet - HEADERS];
            let begun = clock();
            let mut sent = 0;
            while sent * gap < UDP {
                let early = (begun + sent * gap).saturating_sub(clock());
                if early > 0 {
                    thread::sleep(Duration::from_nanos(early));
                }
                sender.send(&datagram)?;
                sent += 1;
            }
            io::Result::Ok(sent)
        });
        let mut datagram = vec![0; packet];
        let (mut received, mut first, mut last) = (0u64, 0, 0);
        while receiver.recv(&mut datagram).is_ok() {
            last = clock();
            if received == 0 {
                first = last;
            }
            received += 1;
        }
        let sent = sending.join().unwrap_or_else(|_| Err(broken()))?;
        let bits = received.saturating_sub(1) * packet as u64 * 8;
        Ok(Flood {
            sent,
            received,
            rate: bits as f64 * 1e9 / (last - first).max(1) as f64,
        })
    })
}
