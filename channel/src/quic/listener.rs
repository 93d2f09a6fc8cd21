//! A UDP socket on which connections of `tokenlag/1` and HTTP/3 are accepted, told apart by ALPN.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{
    ConnectionError, ConnectionIdGenerator, Endpoint, EndpointConfig, TokioRuntime, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::timeout;

use super::door::{Door, Place, UnderWay};
use super::established::{Confirmed, Established};
use super::refusal::{Refusal, refusal};
use super::server::ServerConnection;
use super::socket::{StampedSocket, Strays};
use super::watched::Watched;
use crate::{ChannelError, http3, tls};

/// A UDP socket on which connections are accepted.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
    socket: Arc<StampedSocket>,
    door: Door,
}

impl Listener {
    /// Takes a bound socket over, inside a runtime. `on_stray` is told of datagrams that are for no connection.
    ///
    /// # Errors
    /// The system refuses the socket.
    pub fn new(
        socket: std::net::UdpSocket,
        door: &Door,
        on_stray: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<Self, ChannelError> {
        let cannot = |source: std::io::Error| ChannelError::Connect {
            address: "the UDP socket".to_owned(),
            source: source.into(),
        };
        let key = tls::random()?;
        let mut endpoint = EndpointConfig::default();
        endpoint.cid_generator(move || ids(key));
        let strays = Strays {
            known: ids(key),
            tell: Box::new(on_stray),
        };
        let socket = StampedSocket::accepting(socket, strays).map_err(cannot)?;
        let endpoint = Endpoint::new_with_abstract_socket(
            endpoint,
            Some(door.0.config.clone()),
            Arc::clone(&socket) as _,
            Arc::new(TokioRuntime),
        )
        .map_err(cannot)?;
        Ok(Self {
            endpoint,
            socket,
            door: door.clone(),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system's own.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// The next connection whose handshake may begin; `None` once the listener is closed.
    pub async fn accept(&self) -> Option<Handshake> {
        let incoming = self.endpoint.accept().await?;
        Some(Handshake {
            incoming,
            place: Place::new(&self.door.0),
            under_way: UnderWay::new(&self.door.0),
            socket: Arc::clone(&self.socket),
        })
    }

    /// Tells every client goodbye.
    pub async fn close(&self) {
        self.endpoint.close(VarInt::from_u32(0), b"going away");
        self.endpoint.wait_idle().await;
    }
}

fn ids(key: [u8; 8]) -> Box<dyn ConnectionIdGenerator> {
    let key = u64::from_le_bytes(key);
    Box::new(HashedConnectionIdGenerator::from_key(key))
}

/// A connection that is being made.
#[derive(Debug)]
pub struct Handshake {
    incoming: quinn::Incoming,
    place: Place,
    under_way: UnderWay,
    socket: Arc<StampedSocket>,
}

/// A connection that was accepted, by the protocol that the client chose.
#[derive(Debug)]
pub enum Accepted {
    /// `tokenlag/1`.
    Quic(ServerConnection),
    /// HTTP/3.
    Http3(Box<http3::ServerConnection>),
}

impl Handshake {
    /// Completes the handshake; where requests are taken before it is over, until the protocol is known.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn finish(self) -> Result<Accepted, Refusal> {
        if !self.place.granted {
            self.incoming.refuse();
            return Err(Refusal::Full);
        }
        if self.under_way.crowded && !self.incoming.remote_address_validated() {
            // An address that cannot be asked is one that was asked.
            let _ = self.incoming.retry();
            return Err(Refusal::Unproven);
        }
        let limit = self.place.door.limits.handshake;
        timeout(limit, accept(self.incoming, self.place, self.socket))
            .await
            .map_err(|_| Refusal::Slow(limit))?
    }
}

async fn accept(
    incoming: quinn::Incoming,
    place: Place,
    socket: Arc<StampedSocket>,
) -> Result<Accepted, Refusal> {
    let door = Arc::clone(&place.door);
    let broken = |error: ConnectionError| refusal(&error);
    let mut connecting = incoming.accept().map_err(broken)?;
    let (connection, confirmed) = if door.early_data {
        connecting.handshake_data().await.map_err(broken)?;
        match connecting.into_0rtt() {
            Ok((connection, accepted)) => {
                let confirmed = Confirmed::when(accepted, &connection, door.limits.handshake);
                (connection, confirmed)
            }
            Err(connecting) => (connecting.await.map_err(broken)?, Confirmed::at_once()),
        }
    } else {
        (connecting.await.map_err(broken)?, Confirmed::at_once())
    };
    let established = Established {
        _watched: Watched::by(&door.watch, &connection, &socket),
        connection,
        confirmed,
        door,
        socket,
        _place: place,
    };
    match established.protocol().as_deref() {
        Some(http3::ALPN) => http3::ServerConnection::new(established)
            .await
            .map(|connection| Accepted::Http3(Box::new(connection)))
            .map_err(Refusal::Broken),
        _ => Ok(Accepted::Quic(ServerConnection::new(established))),
    }
}

/// A UDP socket on `address`, for a [`Listener`] to take over. With `shared`, other threads may bind the port too
/// (`SO_REUSEPORT`): the kernel deals peers out among them.
///
/// # Errors
/// The system's own; a port in use is [`io::ErrorKind::AddrInUse`].
pub fn bind(address: SocketAddr, shared: bool) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}
