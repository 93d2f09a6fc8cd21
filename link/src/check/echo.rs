//! How long a connection and a round trip take, for real sockets on both sides.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::{Clock, Link};

/// The longest that any single step may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Connections that are made, and bytes that go there and back, at most.
const CONNECTIONS: u64 = 50;
const ECHOES: u64 = 500;
/// No further one is begun after so long, in nanoseconds.
const LIMIT: u64 = 2_000_000_000;
/// A datagram that is so much later than it should be is lost.
const LATE: Duration = Duration::from_millis(500);

/// Connections that were made.
#[derive(Debug)]
pub(super) struct Connects {
    /// How long each took, in nanoseconds.
    pub(super) took: Vec<u64>,
    /// TCP's congestion control of the client's and the server's side, as the sockets tell it.
    pub(super) control: [String; 2],
}

/// Opens connections to an address of the server's side, one after the other.
pub(super) fn connects(link: &Link, to: IpAddr, clock: Clock) -> io::Result<Connects> {
    let listener = listen_at(link, to)?;
    let to = listener.local_addr()?;
    let mut took = Vec::new();
    let mut control = [String::new(), String::new()];
    let begun = clock();
    link.client.namespace.within(|| {
        for _ in 0..CONNECTIONS {
            let before = clock();
            let client = TcpStream::connect_timeout(&to, PATIENCE)?;
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
pub(super) fn tcp(link: &Link, clock: Clock) -> io::Result<Vec<u64>> {
    let listener = listen(link)?;
    let to = listener.local_addr()?;
    thread::scope(|scope| {
        let server = scope.spawn(move || {
            let (mut stream, _) = listener.accept()?;
            prepare(&stream)?;
            let mut byte = [0];
            while stream.read(&mut byte)? == 1 {
                stream.write_all(&byte)?;
            }
            io::Result::Ok(())
        });
        let took = link.client.namespace.within(|| {
            let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
            prepare(&stream)?;
            measured(clock, || {
                stream.write_all(&[1])?;
                stream.read_exact(&mut [0])
            })
        })?;
        let served = server.join().unwrap_or_else(|_| Err(broken()));
        let took = took?;
        served.map(|()| took)
    })
}

/// How long a datagram takes there and back, in nanoseconds; those that were lost are left out.
pub(super) fn udp(link: &Link, clock: Clock) -> io::Result<Vec<u64>> {
    let bind = |side: &crate::Side| {
        let address: SocketAddr = (side.addresses.v4, 0).into();
        let socket = side.namespace.within(|| UdpSocket::bind(address))??;
        io::Result::Ok(socket)
    };
    let (client, server) = (bind(&link.client)?, bind(&link.server)?);
    let spec = link.spec();
    let longest = spec.rtt() + spec.up.jitter + spec.down.jitter;
    client.set_read_timeout(Some(longest + LATE))?;
    // A datagram that is lost must not end the echo.
    server.set_read_timeout(Some(2 * (longest + LATE)))?;
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
            let before = clock();
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

/// A listener on the server's side whose accept does not wait for ever.
pub(super) fn listen(link: &Link) -> io::Result<TcpListener> {
    listen_at(link, link.server.addresses.v4.into())
}

fn listen_at(link: &Link, address: IpAddr) -> io::Result<TcpListener> {
    let address = SocketAddr::new(address, 0);
    let listener = link
        .server
        .namespace
        .within(|| TcpListener::bind(address))??;
    SockRef::from(&listener).set_read_timeout(Some(PATIENCE))?;
    Ok(listener)
}

pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

fn measured(clock: Clock, mut step: impl FnMut() -> io::Result<()>) -> io::Result<Vec<u64>> {
    let mut took = Vec::new();
    let begun = clock();
    for _ in 0..ECHOES {
        let before = clock();
        step()?;
        took.push(clock() - before);
        if clock() - begun > LIMIT {
            break;
        }
    }
    Ok(took)
}

fn control_of(stream: &TcpStream) -> io::Result<String> {
    let name = SockRef::from(stream).tcp_congestion()?;
    let name = String::from_utf8_lossy(&name).into_owned();
    Ok(name.trim_end_matches('\0').to_owned())
}

pub(super) fn broken() -> io::Error {
    io::Error::other("the other side's thread broke off")
}
