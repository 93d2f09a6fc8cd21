//! TCP sockets as every channel wants them: no delay, addresses in errors, several listeners on one port.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, TcpKeepalive, Type};
use tokenlag_probes::{Clock, MonoClock, Stamp};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::socket::{Socket, Stamped};
use crate::{ChannelError, Dial, tls};

const KEEP_ALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15));

/// Connections that may wait to be accepted. The kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Host and port as a `Host` field or a URL has them: an IPv6 address in brackets.
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// A fresh connection and the stamps of its making.
pub(crate) struct Connected {
    pub(crate) socket: Socket,
    pub(crate) resolved: Stamp,
    pub(crate) transport_connected: Stamp,
    pub(crate) connected: Stamp,
}

/// Resolves a name to the addresses worth trying, in the resolver's order.
pub(crate) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ChannelError> {
    let failed = |source: io::Error| ChannelError::Resolve {
        host: host.to_owned(),
        source: source.into(),
    };
    let addresses: Vec<_> = lookup_host((host, port)).await.map_err(failed)?.collect();
    if addresses.is_empty() {
        let nothing = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        return Err(failed(nothing));
    }
    Ok(addresses)
}

/// Connects to the first address of the dial's host that answers, over TLS with one of `alpn` where the dial says so, within the
/// dial's limit for all of it.
pub(crate) async fn dial(dial: &Dial, alpn: &[&[u8]]) -> Result<Connected, ChannelError> {
    let clock = MonoClock;
    let attempt = async {
        let addresses = resolve(&dial.host, dial.port).await?;
        let resolved = clock.now();
        let stream = first_that_answers(addresses).await?;
        let transport_connected = clock.now();
        if dial.nagle {
            let set = stream.set_nodelay(false);
            set.map_err(|source| ChannelError::Connect {
                address: dial.authority(),
                source: source.into(),
            })?;
        }
        let stream = Stamped::dialled(stream, &dial.stamping, transport_connected);
        let (socket, connected) = match &dial.tls {
            None => (Socket::clear(stream), transport_connected),
            Some(tls) => (
                tls::connect(stream, tls, &dial.host, alpn).await?,
                clock.now(),
            ),
        };
        Ok(Connected {
            socket,
            resolved,
            transport_connected,
            connected,
        })
    };
    let limit = dial.connect_timeout;
    timeout(limit, attempt)
        .await
        .unwrap_or_else(|_| Err(connect_timeout(&dial.host, dial.port, limit)))
}

/// A connection to the first of them that takes one.
pub(crate) async fn first_that_answers(
    addresses: Vec<SocketAddr>,
) -> Result<TcpStream, ChannelError> {
    let mut refused = None;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream
                    .set_nodelay(true)
                    .map_err(|source| at(address, source))?;
                return Ok(stream);
            }
            Err(source) => refused = Some(at(address, source)),
        }
    }
    Err(refused.expect("resolve gives at least one address"))
}

/// Sets a connection up that was accepted: no delay, unless `nagle` is wanted, and a client that vanished without a word is
/// found out, however long its connection may lie idle.
pub(crate) fn prepare_accepted(stream: &TcpStream, nagle: bool) -> io::Result<()> {
    stream.set_nodelay(!nagle)?;
    SockRef::from(stream).set_tcp_keepalive(&KEEP_ALIVE)
}

fn at(address: SocketAddr, source: io::Error) -> ChannelError {
    ChannelError::Connect {
        address: address.to_string(),
        source: source.into(),
    }
}

pub(crate) fn connect_timeout(host: &str, port: u16, after: Duration) -> ChannelError {
    ChannelError::Timeout {
        address: authority(host, port),
        what: "connection",
        after,
    }
}

/// A listener on `address`, non-blocking, for a runtime to take over. With `shared`, other threads may listen on the same port beside it (`SO_REUSEPORT`):
/// the kernel deals connections out among them, and each stays on the thread that took it.
///
/// # Errors
/// The system's own; a port in use is [`io::ErrorKind::AddrInUse`].
pub fn listen(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A port in TIME_WAIT after a restart is no reason to fail.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
