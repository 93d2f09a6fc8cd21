//! The dialling end of every channel behind one enum.

use std::ops::{Add, AddAssign};
use std::time::Duration;

use bytes::Bytes;
use tokenlag_dialect::Framing;
use tokenlag_probes::{Stamp, Transport};

use crate::tls::ClientTls;
use crate::{ChannelError, Chunk, Request, Stamping, TurnAhead, http, http2, http3, quic, tcp, ws};

/// Where to dial, and how.
#[derive(Clone, Debug)]
pub struct Dial {
    /// Host name or IP address.
    pub host: String,
    /// Port: TCP, or UDP for `quic` and `http3`.
    pub port: u16,
    /// Path of the WebSocket's opening request, as in `/v1/responses`.
    pub path: String,
    /// Headers of the WebSocket's opening: authorization, and what the user gave. Elsewhere they go with each request.
    pub headers: Vec<(String, String)>,
    /// How long name, connection and handshake may take together.
    pub connect_timeout: Duration,
    /// How long a reply may stay silent, and how long a request may wait for a stream, and for room on it.
    pub idle_timeout: Duration,
    /// TLS; `None` is in clear. QUIC cannot do without.
    pub tls: Option<ClientTls>,
    /// Who stamps what arrives.
    pub stamping: Stamping,
    /// TCP holds a small write back while an earlier one is not acknowledged (RFC 1122, section 4.2.3.4): for those who want to
    /// see what that costs. Over UDP it says nothing.
    pub nagle: bool,
}

impl Dial {
    /// Host and port as a `Host` field has them.
    pub(crate) fn authority(&self) -> String {
        tcp::authority(&self.host, self.port)
    }
}

/// What a channel did so far, over all its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes handed to the socket (TCP payload, TLS included; UDP payload for QUIC).
    pub bytes_sent: u64,
    /// Bytes taken from the socket.
    pub bytes_received: u64,
    /// Bytes inside the channel: what TLS carries, or the streams of QUIC; in clear, what the socket carries.
    pub channel_bytes_sent: u64,
    /// The same the other way.
    pub channel_bytes_received: u64,
    /// Reads of the socket that returned bytes.
    pub reads: u64,
    /// Writes to the socket.
    pub writes: u64,
    /// Connections opened.
    pub connections_opened: u64,
    /// Handshakes that resumed an earlier session.
    pub handshakes_resumed: u64,
    /// Handshakes whose 0-RTT data the server took.
    pub early_data_accepted: u64,
    /// What QUIC's connections did as packets; all zero over TCP, whose packets are the kernel's.
    pub datagrams: Datagrams,
}

/// QUIC's connections as packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Datagrams {
    /// UDP datagrams sent.
    pub sent: u64,
    /// UDP datagrams received.
    pub received: u64,
    /// Packets sent and taken for lost.
    pub lost: u64,
    /// Times that the congestion controller took loss for congestion.
    pub congestion_events: u64,
    /// Congestion windows as they are now, in bytes, added up over the connections.
    pub congestion_windows: u64,
}

impl Add for Datagrams {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            received: self.received + other.received,
            lost: self.lost + other.lost,
            congestion_events: self.congestion_events + other.congestion_events,
            congestion_windows: self.congestion_windows + other.congestion_windows,
        }
    }
}

/// The stamps of a request's way out.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// The name was resolved; `None` where a connection was there already.
    pub resolved: Option<Stamp>,
    /// TCP was connected (for `quic` and `http3`, resolution and handshake are one, and this is `None`).
    pub transport_connected: Option<Stamp>,
    /// The channel could take the request's first byte: where many exchanges share a connection, it had a stream for it.
    pub connected: Stamp,
    /// Before the write with the request's last byte (`quic` and `http3`: when the endpoint took it).
    pub written: Stamp,
    /// The reply began before the request was wholly sent: `written` is not of its last byte then. `http` and `ws`, where it has
    /// no lanes, read nothing before they wrote all, and never say so.
    pub overlapped: bool,
}

/// A client's way to one other end. Exchanges may run side by side; clones share the connections.
///
/// Where a connection carries one exchange at a time (HTTP/1.1, WebSocket without lanes) it keeps as many as were needed at
/// once, the one used last first; where it carries many (HTTP/2, HTTP/3, QUIC) there is one.
#[derive(Clone, Debug)]
pub enum Channel {
    /// HTTP/1.1: `direct`, `http-cold` and `http`.
    Http(http::Client),
    /// HTTP/2.
    Http2(http2::Client),
    /// HTTP/3.
    Http3(http3::Client),
    /// WebSocket.
    Ws(ws::Client),
    /// WebSocket whose exchanges share a connection.
    WsLanes(ws::lanes::Client),
    /// One QUIC connection.
    Quic(quic::Client),
}

impl Channel {
    /// A channel that will dial when it is first needed; does no I/O.
    pub fn new(transport: Transport, dial: Dial) -> Self {
        match transport.dialled() {
            Transport::HttpCold => Self::Http(http::Client::new(dial, http::Reuse::Never)),
            Transport::Http2 => Self::Http2(http2::Client::new(dial)),
            Transport::Http3 => Self::Http3(http3::Client::new(dial)),
            Transport::Ws => Self::Ws(ws::Client::new(dial)),
            Transport::Quic => Self::Quic(quic::Client::new(dial)),
            _ => Self::Http(http::Client::new(dial, http::Reuse::KeepAlive)),
        }
    }

    /// The same for sessions that share connections: on `ws` each has a lane of its own ([`Self::for_session`]), sixteen of them
    /// a connection. Its connections are read by tasks, so that it must be used within a local set.
    pub fn shared(transport: Transport, dial: Dial) -> Self {
        match transport.dialled() {
            Transport::Ws => Self::WsLanes(ws::lanes::Client::new(dial)),
            _ => Self::new(transport, dial),
        }
    }

    /// The same way, for another session. Where there are lanes it has one of its own, until the last clone of what this gives
    /// is dropped; elsewhere it is a clone.
    #[must_use]
    pub fn for_session(&self) -> Self {
        match self {
            Self::WsLanes(client) => Self::WsLanes(client.for_session()),
            other => other.clone(),
        }
    }

    /// Writes into a request what it needs to know of this session, its lane: done before it is sent, it costs no measured time.
    ///
    /// # Errors
    /// [`ChannelError::Request`] where it was rendered for another transport.
    pub fn address(&self, request: &mut Request) -> Result<(), ChannelError> {
        match self {
            Self::WsLanes(client) => client.address(request),
            _ => Ok(()),
        }
    }

    /// Connects now, so that the next exchange finds the channel warm. Does nothing on `http-cold`, or where a
    /// connection is there.
    pub async fn connect(&self) -> Result<(), ChannelError> {
        match self {
            Self::Http(client) => client.connect().await,
            Self::Http2(client) => client.connect().await,
            Self::Http3(client) => client.connect().await,
            Self::Ws(client) => client.connect().await,
            Self::WsLanes(client) => client.connect().await,
            Self::Quic(client) => client.connect().await,
        }
    }

    /// Waits until the next exchange may dial, where it has to: over QUIC and HTTP/3 so many handshakes are under way at a time.
    /// Whoever does not ask before waits while the exchange is opened. What is given is kept until the exchange is open.
    ///
    /// # Errors
    /// No turn became free for a minute.
    pub async fn turn(&self) -> Result<TurnAhead<'_>, ChannelError> {
        match self {
            Self::Http3(client) => client.turn().await,
            Self::Quic(client) => client.turn().await,
            Self::Http(_) | Self::Http2(_) | Self::Ws(_) | Self::WsLanes(_) => Ok(TurnAhead::NONE),
        }
    }

    /// Sends a request (rendered for this channel's transport) and waits for the reply's head; on `ws`, which has
    /// none, only for the write.
    pub async fn open(&self, request: &Request) -> Result<Reply, ChannelError> {
        Ok(match self {
            Self::Http(client) => Reply::Http(Box::new(client.open(request).await?)),
            Self::Http2(client) => Reply::Http2(client.open(request).await?),
            Self::Http3(client) => Reply::Http3(client.open(request).await?),
            Self::Ws(client) => Reply::Ws(client.open(request).await?),
            Self::WsLanes(client) => Reply::WsLane(Box::pin(client.open(request)).await?),
            Self::Quic(client) => Reply::Quic(client.open(request).await?),
        })
    }

    /// What the channel did so far; connections with an exchange under way may be left out. What its idle connections did below
    /// their bytes is booked, where that is watched ([`SocketWatch`](crate::SocketWatch)); on `ws`, where it has no lanes, that was
    /// done as they became idle, and is done again with their end.
    pub fn counters(&self) -> Counters {
        match self {
            Self::Http(client) => client.counters(),
            Self::Http2(client) => client.counters(),
            Self::Http3(client) => client.counters(),
            Self::Ws(client) => client.counters(),
            Self::WsLanes(client) => client.counters(),
            Self::Quic(client) => client.counters(),
        }
    }

    /// The same for who asks often: connections that last are not looked at below their bytes where that is a system call.
    pub fn counted(&self) -> Counters {
        match self {
            Self::Http(client) => client.counted(),
            Self::Http2(client) => client.counted(),
            Self::WsLanes(client) => client.counted(),
            Self::Http3(_) | Self::Ws(_) | Self::Quic(_) => self.counters(),
        }
    }

    /// Closes what is open, with the protocol's own farewell where it has one.
    pub async fn close(self) {
        match self {
            Self::Http(client) => client.close(),
            Self::Http2(client) => client.close().await,
            Self::Http3(client) => client.close().await,
            Self::Ws(client) => client.close().await,
            Self::WsLanes(client) => client.close().await,
            Self::Quic(client) => client.close().await,
        }
    }
}

/// A reply that is arriving. Dropped before its end, it takes its connection with it where that carries no others. The large
/// ones are boxed: whoever awaits one hands it on, and each copies it.
#[derive(Debug)]
pub enum Reply {
    /// An HTTP/1.1 response.
    Http(Box<http::ClientReply>),
    /// An HTTP/2 response.
    Http2(Box<http2::ClientReply>),
    /// An HTTP/3 response.
    Http3(Box<http3::ClientReply>),
    /// The messages that answer a `response.create`.
    Ws(ws::ClientReply),
    /// The same in a lane of a connection that others share.
    WsLane(Box<ws::lanes::ClientReply>),
    /// A stream of frames.
    Quic(Box<quic::ClientReply>),
}

impl Reply {
    /// The stamps of the request's way out.
    pub fn opening(&self) -> Opening {
        match self {
            Self::Http(reply) => reply.opening(),
            Self::Http2(reply) => reply.opening(),
            Self::Http3(reply) => reply.opening(),
            Self::Ws(reply) => reply.opening(),
            Self::WsLane(reply) => reply.opening(),
            Self::Quic(reply) => reply.opening(),
        }
    }

    /// Read with the reply's first byte; on `ws`, `None` until the first message came.
    pub fn head(&self) -> Option<Stamp> {
        match self {
            Self::Http(reply) => Some(reply.head_at()),
            Self::Http2(reply) => Some(reply.head_at()),
            Self::Http3(reply) => Some(reply.head_at()),
            Self::Ws(reply) => reply.head_at(),
            Self::WsLane(reply) => reply.head_at(),
            Self::Quic(reply) => Some(reply.head_at()),
        }
    }

    /// The HTTP status. On `ws` always 200: errors come as events there.
    pub fn status(&self) -> u16 {
        match self {
            Self::Http(reply) => reply.status(),
            Self::Http2(reply) => reply.status(),
            Self::Http3(reply) => reply.status(),
            Self::Ws(_) | Self::WsLane(_) => 200,
            Self::Quic(reply) => reply.status(),
        }
    }

    /// The head's fields, in their order where the channel keeps it. On `ws` there are none.
    pub fn fields(&self) -> Vec<(String, Bytes)> {
        match self {
            Self::Http(reply) => reply.fields(),
            Self::Http2(reply) => reply.fields(),
            Self::Http3(reply) => reply.fields(),
            Self::Ws(_) | Self::WsLane(_) => Vec::new(),
            Self::Quic(reply) => reply.fields(),
        }
    }

    /// The name of the event that the last chunk was, where the chunks are events and its data does not tell it.
    pub fn event_name(&self) -> Option<&str> {
        match self {
            Self::Quic(reply) => reply.event_name(),
            _ => None,
        }
    }

    /// How the chunks are framed; hand it to the decoder.
    pub fn framing(&self) -> Framing {
        match self {
            Self::Http(_) | Self::Http2(_) | Self::Http3(_) => Framing::Sse,
            Self::Ws(_) | Self::WsLane(_) => Framing::Messages,
            Self::Quic(reply) => reply.framing(),
        }
    }

    /// The next piece; `None` at the reply's end. On `ws` the end is not the channel's to know: stop at the
    /// dialect's terminal event.
    pub async fn next(&mut self) -> Result<Option<Chunk>, ChannelError> {
        match self {
            Self::Http(reply) => reply.next().await,
            Self::Http2(reply) => reply.next().await,
            Self::Http3(reply) => reply.next().await,
            Self::Ws(reply) => reply.next().await,
            Self::WsLane(reply) => reply.next().await,
            Self::Quic(reply) => reply.next().await,
        }
    }

    /// Call at the dialect's terminal event: reads what may still follow, so that the connection can be used again.
    pub async fn finish(self) -> Result<(), ChannelError> {
        match self {
            Self::Http(reply) => reply.finish().await,
            Self::Http2(reply) => reply.finish().await,
            Self::Http3(reply) => reply.finish().await,
            Self::Ws(reply) => {
                reply.finish();
                Ok(())
            }
            Self::WsLane(reply) => {
                reply.finish();
                Ok(())
            }
            Self::Quic(reply) => reply.finish().await,
        }
    }
}

impl Add for Counters {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            bytes_sent: self.bytes_sent + other.bytes_sent,
            bytes_received: self.bytes_received + other.bytes_received,
            channel_bytes_sent: self.channel_bytes_sent + other.channel_bytes_sent,
            channel_bytes_received: self.channel_bytes_received + other.channel_bytes_received,
            reads: self.reads + other.reads,
            writes: self.writes + other.writes,
            connections_opened: self.connections_opened + other.connections_opened,
            handshakes_resumed: self.handshakes_resumed + other.handshakes_resumed,
            early_data_accepted: self.early_data_accepted + other.early_data_accepted,
            datagrams: self.datagrams + other.datagrams,
        }
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}
