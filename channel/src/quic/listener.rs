//! The UDP door: one socket on which connections of `tokenlag/1` and HTTP/3 are accepted, told apart by ALPN.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn::{
    Connection, ConnectionError, ConnectionIdGenerator, Endpoint, EndpointConfig, ServerConfig,
    TokioRuntime, TransportErrorCode, VarInt, ZeroRttAccepted,
};
use quinn_proto::HashedConnectionIdGenerator;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::watch;
use tokio::time::timeout;

use super::server::ServerConnection;
use super::socket::{StampedSocket, Strays};
use super::{ALPN, transport};
use crate::bounds::{ExchangeLimits, Room};
use crate::tls::{self, ServerTls};
use crate::{ChannelError, http3};

/// Handshakes that may be under way at once before clients are asked to prove their addresses first (RFC 9000, section
/// 8.1.2): then a flood from forged addresses costs no cryptography.
const CROWD: usize = 1024;

/// Bytes that are kept of a client, and of all clients together, before its handshake begins.
const WAITING_BYTES: u64 = 256 * 1024;
const WAITING_BYTES_TOTAL: u64 = 16 * 1024 * 1024;

/// What clients may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoorLimits {
    /// Connections that may be open at once, on all sockets.
    pub connections: usize,
    /// How long a handshake may take.
    pub handshake: Duration,
    /// Bytes that the bodies of all requests that are being served may have together.
    pub room: usize,
    /// What each exchange may take.
    pub exchange: ExchangeLimits,
}

impl Default for DoorLimits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            handshake: Duration::from_secs(10),
            room: 1024 * 1024 * 1024,
            exchange: ExchangeLimits::default(),
        }
    }
}

/// What the UDP sockets of all threads share: a client may come back on another thread than it was on before.
#[derive(Clone, Debug)]
pub struct Door(Arc<Inside>);

#[derive(Debug)]
pub(crate) struct Inside {
    config: ServerConfig,
    pub(crate) limits: DoorLimits,
    pub(crate) room: Arc<Room>,
    early_data: bool,
    open: AtomicUsize,
    handshakes: AtomicUsize,
}

impl Door {
    /// A door for any number of sockets.
    ///
    /// # Errors
    /// The certificate or key cannot be used.
    pub fn new(tls: &ServerTls, limits: DoorLimits) -> Result<Self, ChannelError> {
        Ok(Self(Arc::new(Inside {
            config: server(tls)?,
            limits,
            room: Room::new(limits.room),
            early_data: tls.resumption && tls.early_data,
            open: AtomicUsize::new(0),
            handshakes: AtomicUsize::new(0),
        })))
    }
}

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
        let cannot = |source| ChannelError::Connect {
            address: "the UDP socket".to_owned(),
            source,
        };
        let key = tls::random()?;
        let mut endpoint = EndpointConfig::default();
        endpoint.cid_generator(move || ids(key));
        let strays = Strays {
            known: ids(key),
            tell: Box::new(on_stray),
        };
        let socket = StampedSocket::new(socket, Some(strays)).map_err(cannot)?;
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

fn server(tls: &ServerTls) -> Result<ServerConfig, ChannelError> {
    let mut crypto = tls::server(tls, &[ALPN, http3::ALPN])?;
    if tls.resumption && tls.early_data {
        // QUIC limits early data by its windows: TLS knows only all or nothing (RFC 9001, section 4.6.1).
        crypto.max_early_data_size = u32::MAX;
    }
    let crypto =
        QuicServerConfig::try_from(crypto).map_err(|error| ChannelError::Tls(error.to_string()))?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(transport::config(transport::Side::Server))
        .max_incoming(CROWD)
        .incoming_buffer_size(WAITING_BYTES)
        .incoming_buffer_size_total(WAITING_BYTES_TOTAL);
    Ok(config)
}

/// A connection's place among those that may be open.
#[derive(Debug)]
struct Place {
    door: Arc<Inside>,
    /// There was one left.
    granted: bool,
}

impl Place {
    fn new(door: &Arc<Inside>) -> Self {
        let before = door.open.fetch_add(1, Relaxed);
        Self {
            granted: before < door.limits.connections,
            door: Arc::clone(door),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.door.open.fetch_sub(1, Relaxed);
    }
}

/// A handshake among those that are under way.
#[derive(Debug)]
struct UnderWay {
    door: Arc<Inside>,
    /// There are too many to trust addresses that were not proved.
    crowded: bool,
}

impl UnderWay {
    fn new(door: &Arc<Inside>) -> Self {
        let before = door.handshakes.fetch_add(1, Relaxed);
        Self {
            crowded: before >= CROWD,
            door: Arc::clone(door),
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.door.handshakes.fetch_sub(1, Relaxed);
    }
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

/// Why a connection was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// As many connections are open as may be.
    #[error("as many connections are open as may be")]
    Full,
    /// The client has to prove that it is where it says it is, and will come again.
    #[error("the client was asked to prove its address")]
    Unproven,
    /// The handshake was not over in time.
    #[error("the handshake was not over within {0:?}")]
    Slow(Duration),
    /// The client speaks none of the protocols that are spoken here.
    #[error("the client offers no protocol that is spoken here (ALPN tokenlag/1 and h3)")]
    Alpn,
    /// The client does not trust the certificate.
    #[error("the client does not trust the certificate ({0})")]
    Distrusted(String),
    /// The handshake failed otherwise.
    #[error("the handshake failed: {0}")]
    Broken(String),
}

impl Refusal {
    /// The name under which it is counted; `None` where nothing was refused for good.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Unproven => None,
            Self::Full => Some("full"),
            Self::Slow(_) => Some("slow_handshake"),
            Self::Alpn => Some("alpn"),
            Self::Distrusted(_) => Some("certificate"),
            Self::Broken(_) => Some("handshake"),
        }
    }
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

/// TLS's alerts, as QUIC carries them (RFC 9001, section 4.8; RFC 8446, section 6.2).
fn refusal(error: &ConnectionError) -> Refusal {
    let said = error.to_string();
    let code = match error {
        ConnectionError::TransportError(error) => error.code,
        ConnectionError::ConnectionClosed(close) => close.error_code,
        _ => return Refusal::Broken(said),
    };
    let is = |alert| code == TransportErrorCode::crypto(alert);
    if is(120) {
        Refusal::Alpn
    } else if (42..=48).any(is) || is(51) {
        Refusal::Distrusted(said)
    } else {
        Refusal::Broken(said)
    }
}

/// A connection that was made, whatever protocol it carries.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) connection: Connection,
    pub(crate) confirmed: Confirmed,
    pub(crate) door: Arc<Inside>,
    pub(crate) socket: Arc<StampedSocket>,
    _place: Place,
}

impl Established {
    fn protocol(&self) -> Option<Vec<u8>> {
        let data = self.connection.handshake_data()?;
        data.downcast::<HandshakeData>().ok()?.protocol
    }

    /// How the client broke the rules of QUIC, where that ended the connection: the name under which it is counted.
    pub(crate) fn offence(&self) -> Option<&'static str> {
        match self.connection.close_reason()? {
            ConnectionError::TransportError(_) => Some("protocol"),
            ConnectionError::LocallyClosed if !self.confirmed.is_there() => Some("slow_handshake"),
            // With early data a connection is there before the client judged the certificate.
            closed @ ConnectionError::ConnectionClosed(_) => match refusal(&closed) {
                distrusted @ Refusal::Distrusted(_) => distrusted.reason(),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Whether the client is known to be there now: until then its requests may be copies that somebody recorded.
#[derive(Clone, Debug)]
pub(crate) struct Confirmed(watch::Receiver<bool>);

impl Confirmed {
    fn at_once() -> Self {
        Self(watch::channel(true).1)
    }

    fn when(accepted: ZeroRttAccepted, connection: &Connection, limit: Duration) -> Self {
        let (confirm, confirmed) = watch::channel(false);
        let connection = connection.clone();
        tokio::spawn(async move {
            match timeout(limit, accepted).await {
                Ok(_) => drop(confirm.send_replace(true)),
                Err(_) => connection.close(VarInt::from_u32(0), b"the handshake took too long"),
            }
        });
        Self(confirmed)
    }

    fn is_there(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when the handshake is over; the connection may be closed then.
    pub(crate) async fn wait(&self) {
        // A sender that is gone means the same.
        let _ = self.0.clone().wait_for(|&confirmed| confirmed).await;
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
