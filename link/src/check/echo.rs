//! How long a connection and a round trip take, for real sockets on both sides.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::{Clock, Link, LinkSpec, Side};

/// The longest that any single step may take, beyond what the link takes for a round trip.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections that are made, and bytes that go there and back, at most.
const CONNECTIONS: u64 = 50;
const ECHOES: u64 = 500;
/// No further one is begun after so long, in nanoseconds.
const LIMIT: u64 = 2_000_000_000;
/// A datagram that is so much later than it should be is lost.
const LATE: Duration = Duration::from_millis(500);

/// Who talks with whom.
#[derive(Clone, Copy)]
pub(super) struct Ends<'a> {
    pub(super) client: &'a Side,
    pub(super) server: &'a Side,
    /// An address of the server's.
    pub(super) at: IpAddr,
    /// The longest that a full packet and its answer take on the way.
    pub(super) longest: Duration,
    /// How long the client sleeps before each echo; what it oversleeps counts for the echo.
    pub(super) sleep: Duration,
}

/// Connections that were made.
#[derive(Debug)]
pub(super) struct Connects {
    /// How long each took, in nanoseconds.
    pub(super) took: Vec<u64>,
    /// TCP's congestion control of the client's and the server's side, as the sockets tell it.
    pub(super) control: [String; 2],
}

/// The longest that a full packet and an answer of that size are on their way over an idle link.
pub(super) fn longest(spec: &LinkSpec) -> Duration {
    let bits = u64::from(spec.mtu) * 8;
    let ways = [&spec.up, &spec.down].map(|way| {
        let nanos = way.rate.map_or(0, |rate| bits * 1_000_000_000 / rate);
        way.delay + way.jitter + Duration::from_nanos(nanos)
    });
    ways[0] + ways[1]
}

impl<'a> Ends<'a> {
    /// The two sides of a link, and this address of the server's.
    pub(super) fn of(link: &'a Link, at: IpAddr) -> Self {
        Self {
            client: &link.client,
            server: &link.server,
            at,
            longest: longest(link.spec()),
            sleep: Duration::ZERO,
        }
    }

    /// Opens connections, one after the other.
    pub(super) fn connects(&self, clock: Clock) -> io::Result<Connects> {
        let listener = self.listen()?;
        let to = listener.local_addr()?;
        let mut took = Vec::new();
        let mut control = [String::new(), String::new()];
        let begun = clock();
        self.client.namespace.within(|| {
            for _ in 0..CONNECTIONS {
                let before = clock();
                let client = TcpStream::connect_timeout(&to, self.patience())?;
                took.push(clock() - before);
                let (server, _) = listener.accept()?;
                control = [control_of(&client)?, control_of(&server)?];
                if clock() - begun > LIMIT {
                    break;
                }
            }
            io::Result::Ok(())
        })??;
        Ok(Connects { took, control })
    }

    /// How long a byte takes there and back over TCP, in nanoseconds.
    pub(super) fn tcp(&self, clock: Clock) -> io::Result<Vec<u64>> {
        let (mut client, mut server) = self.pair()?;
        thread::scope(|scope| {
            let server = scope.spawn(move || {
                let mut byte = [0];
                while server.read(&mut byte)? == 1 {
                    server.write_all(&byte)?;
                }
                io::Result::Ok(())
            });
            let took = self.measured(clock, || {
                client.write_all(&[1])?;
                client.read_exact(&mut [0])
            });
            drop(client);
            let served = server.join().unwrap_or_else(|_| Err(broken()));
            let took = took?;
            served.map(|()| took)
        })
    }

    /// How long a datagram takes there and back, in nanoseconds; those that were lost are left out.
    pub(super) fn udp(&self, clock: Clock) -> io::Result<Vec<u64>> {
        let bind = |side: &Side, address: IpAddr| -> io::Result<UdpSocket> {
            let address = SocketAddr::new(address, 0);
            side.namespace.within(|| UdpSocket::bind(address))?
        };
        let from = match self.at.is_loopback() {
            true => self.at,
            false => self.client.addresses.v4.into(),
        };
        let (client, server) = (bind(self.client, from)?, bind(self.server, self.at)?);
        client.set_read_timeout(Some(self.longest + LATE))?;
        // A datagram that is lost must not end the echo.
        server.set_read_timeout(Some(2 * (self.longest + LATE)))?;
        client.connect(server.local_addr()?)?;
        thread::scope(|scope| {
            let echo = scope.spawn(move || {
                let mut datagram = [0; 8];
                // An empty datagram is the end, and so is silence.
                while let Ok((length @ 1.., from)) = server.recv_from(&mut datagram) {
                    server.send_to(&datagram[..length], from)?;
                }
                io::Result::Ok(())
            });
            let mut number = 0u64;
            let mut took = Vec::new();
            let begun = clock();
            while number < ECHOES && clock() - begun < LIMIT {
                number += 1;
                let before = self.moment(clock);
                client.send(&number.to_ne_bytes())?;
                let mut datagram = [0; 8];
                while let Ok(8) = client.recv(&mut datagram) {
                    // One that came late is no answer to this one.
                    if datagram == number.to_ne_bytes() {
                        took.push(clock() - before);
                        break;
                    }
                }
            }
            client.send(&[])?;
            let served = echo.join().unwrap_or_else(|_| Err(broken()));
            served.map(|()| took)
        })
    }

    /// A connection's two ends, the client's first.
    pub(super) fn pair(&self) -> io::Result<(TcpStream, TcpStream)> {
        let listener = self.listen()?;
        let to = listener.local_addr()?;
        let dial = || TcpStream::connect_timeout(&to, self.patience());
        let client = self.client.namespace.within(dial)??;
        let (server, _) = listener.accept()?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(self.patience()))?;
            stream.set_write_timeout(Some(self.patience()))?;
        }
        Ok((client, server))
    }

    /// A listener whose accept does not wait for ever.
    fn listen(&self) -> io::Result<TcpListener> {
        let address = SocketAddr::new(self.at, 0);
        let listener = self
            .server
            .namespace
            .within(|| TcpListener::bind(address))??;
        SockRef::from(&listener).set_read_timeout(Some(self.patience()))?;
        Ok(listener)
    }

    fn measured(
        &self,
        clock: Clock,
        mut step: impl FnMut() -> io::Result<()>,
    ) -> io::Result<Vec<u64>> {
        let mut took = Vec::new();
        let begun = clock();
        for _ in 0..ECHOES {
            let before = self.moment(clock);
            step()?;
            took.push(clock() - before);
            if clock() - begun > LIMIT {
                break;
            }
        }
        Ok(took)
    }

    /// The moment from which an echo counts.
    fn moment(&self, clock: Clock) -> u64 {
        let moment = clock() + self.sleep.as_nanos() as u64;
        if !self.sleep.is_zero() {
            thread::sleep(self.sleep);
        }
        moment
    }

    fn patience(&self) -> Duration {
        PATIENCE + 2 * self.longest
    }
}

fn control_of(stream: &TcpStream) -> io::Result<String> {
    let name = SockRef::from(stream).tcp_congestion()?;
    let name = String::from_utf8_lossy(&name).into_owned();
    Ok(name.trim_end_matches('\0').to_owned())
}

pub(super) fn broken() -> io::Error {
    io::Error::other("the other side's thread broke off")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_line_takes_its_time_for_a_packet_each_way() {
        let spec = LinkSpec::parse("rtt=40ms,up-rate=1kbit,down-rate=12kbit,jitter=1ms").unwrap();
        // 1,500 bytes are 12,000 bits.
        assert_eq!(longest(&spec), Duration::from_millis(12_000 + 1_000 + 42));
    }
}
