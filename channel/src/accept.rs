//! From a fresh TCP connection to what is spoken on it, told by its first bytes: TLS or clear, HTTP/2 or HTTP/1.1. One
//! port serves all of them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustls::HandshakeKind;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::bounds::Room;
use crate::http::ServerConnection;
use crate::http2::frames::PREFACE;
use crate::quic::DoorLimits;
use crate::socket::{Socket, Stamped};
use crate::tls::{self, ServerTls};
use crate::{ChannelError, SocketWatch, http, http2, tcp};

/// With which byte a TLS connection begins: a record of the handshake (RFC 8446, section 5.1). No HTTP method has it.
const TLS_HANDSHAKE: u8 = 22;

/// HTTP/1.0's name in ALPN, which a client that speaks nothing newer offers alone.
const HTTP_1_0: &[u8] = b"http/1.0";

/// Finds out what is spoken on connections. Clones share the TLS sessions that can be resumed, and the memory that requests
/// may have together.
#[derive(Clone)]
pub struct Acceptor {
    tls: TlsAcceptor,
    limits: DoorLimits,
    nagle: bool,
    room: Arc<Room>,
    watch: Option<SocketWatch>,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut acceptor = f.debug_struct("Acceptor");
        acceptor
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// A connection on which the client may ask.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
pub enum Accepted {
    /// HTTP/1.1, and what it can be upgraded to.
    Http1(ServerConnection),
    /// HTTP/2.
    Http2(http2::Accepted),
}

/// Why nobody is served on a connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The client is gone.
    #[error("the client is gone: {0}")]
    Gone(#[from] io::Error),
    /// It did not say in time what it wants.
    #[error("what is spoken was not to be told within {0:?}")]
    Silent(Duration),
    /// TLS was not agreed on in time.
    #[error("the TLS handshake was not over within {0:?}")]
    SlowTls(Duration),
    /// TLS was refused, by either end.
    #[error("the TLS handshake failed: {0}")]
    Tls(rustls::Error),
    /// The opening of HTTP/2 was not over in time.
    #[error("the opening of HTTP/2 was not over within {0:?}")]
    SlowHttp2(Duration),
    /// What was said to be HTTP/2 is not.
    #[error("the opening of HTTP/2 failed: {0}")]
    Http2(h2::Error),
}

impl AcceptError {
    /// The door and the reason under which it is counted; `None` where the client only left.
    pub fn refusal(&self) -> Option<(&'static str, &'static str)> {
        Some(match self {
            Self::Gone(_) => return None,
            Self::Silent(_) => ("tcp", "silent"),
            Self::SlowTls(_) => ("tls", "slow_handshake"),
            Self::Tls(error) => ("tls", tls_reason(error)),
            Self::SlowHttp2(_) => ("http2", "slow_handshake"),
            Self::Http2(_) => ("http2", "preface"),
        })
    }
}

fn tls_reason(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::NoApplicationProtocol => "alpn",
        // What the client thinks of our certificate comes as an alert.
        rustls::Error::AlertReceived(_) => "alert",
        rustls::Error::PeerIncompatible(_) => "incompatible",
        _ => "malformed",
    }
}

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoken {
    Tls,
    Http2,
    /// Or garbage, which HTTP/1.1 has an answer to.
    Http1,
    /// More must come before it can be told.
    Unknown,
}

impl Spoken {
    fn of(bytes: &[u8]) -> Self {
        match bytes.first() {
            None => Self::Unknown,
            Some(&TLS_HANDSHAKE) => Self::Tls,
            Some(_) if bytes.starts_with(PREFACE) => Self::Http2,
            Some(_) if PREFACE.starts_with(bytes) => Self::Unknown,
            Some(_) => Self::Http1,
        }
    }
}

impl Acceptor {
    /// Settings for all connections of a door, on whatever threads.
    ///
    /// # Errors
    /// The certificate or key cannot be used.
    pub fn new(tls: &ServerTls, limits: DoorLimits) -> Result<Self, ChannelError> {
        let config = tls::server(tls, &[http2::ALPN, http::ALPN, HTTP_1_0])?;
        Ok(Self {
            tls: TlsAcceptor::from(Arc::new(config)),
            limits,
            nagle: false,
            room: Room::new(limits.room),
            watch: None,
        })
    }

    /// What the requests of the door have together.
    pub fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// The same, whose connections book into `watch` what they do below their bytes.
    #[must_use]
    pub fn watched(mut self, watch: SocketWatch) -> Self {
        self.watch = Some(watch);
        self
    }

    /// The same, whose connections have Nagle's algorithm on or off ([`crate::Dial::nagle`]); without a word it is off.
    #[must_use]
    pub fn with_nagle(mut self, on: bool) -> Self {
        self.nagle = on;
        self
    }

    /// Finds out what is spoken, and opens it.
    ///
    /// # Errors
    /// The client is gone, too slow, or does not agree.
    pub async fn accept(&self, stream: TcpStream) -> Result<Accepted, AcceptError> {
        tcp::prepare_accepted(&stream, self.nagle)?;
        let mut stream = match &self.watch {
            Some(watch) => Stamped::watched(stream, watch),
            None => Stamped::new(stream),
        };
        let limit = self.limits.handshake;
        let spoken = timeout(limit, spoken(&mut stream)).await;
        match spoken.map_err(|_| AcceptError::Silent(limit))?? {
            // Boxed, so that a connection does not hold the memory of handshakes that it does not make, or that are over.
            Spoken::Tls => Box::pin(self.accept_tls(stream)).await,
            Spoken::Http2 => Box::pin(self.open_http2(Socket::clear(stream))).await,
            Spoken::Http1 | Spoken::Unknown => {
                let early = stream.take_early();
                Ok(self.open_http1(Socket::clear(stream), early))
            }
        }
    }

    async fn accept_tls(&self, stream: Stamped) -> Result<Accepted, AcceptError> {
        let limit = self.limits.handshake;
        let stream = timeout(limit, self.tls.accept(stream))
            .await
            .map_err(|_| AcceptError::SlowTls(limit))?
            .map_err(refused)?;
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        let socket = Socket::tls(stream.into(), resumed, false);
        if socket.protocol() == Some(http2::ALPN) {
            return self.open_http2(socket).await;
        }
        // A client that names no protocol means HTTP/1.1.
        Ok(self.open_http1(socket, BytesMut::new()))
    }

    fn open_http1(&self, socket: Socket, early: BytesMut) -> Accepted {
        let (limits, room) = (self.limits.exchange, Arc::clone(&self.room));
        Accepted::Http1(ServerConnection::over(socket, early, limits, room))
    }

    async fn open_http2(&self, socket: Socket) -> Result<Accepted, AcceptError> {
        let limit = self.limits.handshake;
        let opening =
            http2::Accepted::handshake(socket, self.limits.exchange, Arc::clone(&self.room));
        timeout(limit, opening)
            .await
            .map_err(|_| AcceptError::SlowHttp2(limit))?
            .map(Accepted::Http2)
            .map_err(|error| match error.is_io() {
                true => AcceptError::Gone(io::Error::other(error)),
                false => AcceptError::Http2(error),
            })
    }
}

/// Reads until it can be told what is spoken. Holds no buffer while nothing came.
async fn spoken(stream: &mut Stamped) -> io::Result<Spoken> {
    let mut seen = 0;
    loop {
        stream.tcp().readable().await?;
        let bytes = stream.peek().await?;
        if bytes.len() == seen {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        seen = bytes.len();
        match Spoken::of(bytes) {
            Spoken::Unknown => {}
            told => return Ok(told),
        }
    }
}

/// tokio-rustls gives every failure as one of input or output.
fn refused(error: io::Error) -> AcceptError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner.cloned() {
        Some(refusal) => AcceptError::Tls(refusal),
        None => AcceptError::Gone(error),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::{Dial, Stamping};

    #[tokio::test]
    async fn nagle_is_on_at_both_ends_where_it_is_asked_for() {
        let identity = tls::self_signed(&["localhost"]).unwrap();
        let settings = ServerTls {
            identity,
            resumption: false,
            early_data: false,
        };
        let acceptor = Acceptor::new(&settings, DoorLimits::default()).unwrap();
        for (nagle, acceptor) in [
            (false, acceptor.clone()),
            (true, acceptor.clone().with_nagle(true)),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let dial = Dial {
                host: "127.0.0.1".to_owned(),
                port: listener.local_addr().unwrap().port(),
                path: String::new(),
                headers: Vec::new(),
                connect_timeout: Duration::from_secs(20),
                idle_timeout: Duration::from_secs(20),
                tls: None,
                stamping: Stamping::default(),
                nagle,
            };
            let (dialled, taken) = tokio::join!(tcp::dial(&dial, &[]), listener.accept());
            let (mut client, server) = (dialled.unwrap().socket, taken.unwrap().0);
            assert_eq!(client.tcp().nodelay().unwrap(), !nagle);
            // The same socket by another descriptor: the acceptor takes this one.
            let server = server.into_std().unwrap();
            let seen = server.try_clone().unwrap();
            client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
            let server = TcpStream::from_std(server).unwrap();
            acceptor.accept(server).await.unwrap();
            assert_eq!(seen.nodelay().unwrap(), !nagle);
        }
    }

    #[test]
    fn the_first_bytes_tell_what_is_spoken() {
        for (bytes, spoken) in [
            (&b""[..], Spoken::Unknown),
            (b"\x16\x03", Spoken::Tls),
            (b"P", Spoken::Unknown),
            (b"POST / HTTP/1.1\r\n", Spoken::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", Spoken::Unknown),
            (PREFACE, Spoken::Http2),
            (b"PRI * HTTP/2.0\r\n\r\nSX", Spoken::Http1),
            (b"GET / HTTP/1.1\r\n", Spoken::Http1),
            (b"\x15", Spoken::Http1),
            (b"\0\0\0", Spoken::Http1),
        ] {
            assert_eq!(Spoken::of(bytes), spoken, "{}", bytes.escape_ascii());
        }
        let mut more = PREFACE.to_vec();
        more.push(0);
        assert_eq!(Spoken::of(&more), Spoken::Http2);
    }
}
