//! The dialling end of `quic`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, EndpointConfig, RecvStream, TokioRuntime, VarInt};
use tokenlag_dialect::Framing;
use tokenlag_probes::{Clock, MonoClock, Stamp};
use tokio::time::timeout;

use super::compact::Expander;
use super::frame::{self, Frame};
use super::socket::StampedSocket;
use super::{ALPN, transport};
use crate::{ChannelError, Chunk, Counters, Dial, Opening, Request, tcp, tls};

/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_millis(200);

/// The most that one read takes of a stream.
const READ_LIMIT: usize = 64 * 1024;

/// A client with at most one connection, on a socket of its own.
#[derive(Debug)]
pub struct Client {
    dial: Dial,
    live: Option<Live>,
    /// Counters of the connections that are gone.
    past: Counters,
}

#[derive(Debug)]
struct Live {
    endpoint: Endpoint,
    connection: Connection,
    socket: Arc<StampedSocket>,
}

impl Client {
    /// A client that will dial when it is first needed.
    pub fn new(dial: Dial) -> Self {
        Self {
            dial,
            live: None,
            past: Counters::default(),
        }
    }

    /// Connects now, where no connection is there.
    ///
    /// # Errors
    /// No connection, or a peer that shows another certificate or speaks another protocol.
    pub async fn connect(&mut self) -> Result<(), ChannelError> {
        if !self.is_alive() {
            self.live = Some(dial(&self.dial).await?.0);
        }
        Ok(())
    }

    /// Sends a request on a stream of its own and waits for the reply's head.
    ///
    /// # Errors
    /// No connection, one that ends or falls silent, or frames that break the format.
    pub async fn open(&mut self, request: &Request) -> Result<ClientReply<'_>, ChannelError> {
        let bytes = request.stream()?;
        let (resolved, connected) = if self.is_alive() {
            (None, MonoClock.now())
        } else {
            let (live, resolved) = dial(&self.dial).await?;
            self.live = Some(live);
            (Some(resolved), MonoClock.now())
        };
        let Some(live) = &self.live else {
            return Err(lost(&self.dial, &"it was closed"));
        };
        let (mut send, recv) = live
            .connection
            .open_bi()
            .await
            .map_err(|error| lost(&self.dial, &error))?;
        send.write_all(bytes)
            .await
            .map_err(|error| lost(&self.dial, &error))?;
        let written = MonoClock.now();
        send.finish().map_err(|error| lost(&self.dial, &error))?;
        let mut reply = ClientReply {
            dial: &self.dial,
            socket: &live.socket,
            recv,
            inbox: BytesMut::new(),
            expander: Expander::default(),
            opening: Opening {
                resolved,
                transport_connected: None,
                connected,
                written,
            },
            head_at: None,
            read_at: Stamp::default(),
            reads: None,
            ordinal: 0,
            status: 0,
            events: false,
            ended: false,
        };
        reply.head().await?;
        Ok(reply)
    }

    /// What the client did so far, over all its connections.
    pub fn counters(&self) -> Counters {
        let live = self.live.as_ref().map(|live| live.socket.counters());
        self.past + live.unwrap_or_default()
    }

    /// Closes the connection and lets the farewell leave.
    pub async fn close(self) {
        if let Some(live) = self.live {
            live.connection.close(VarInt::from_u32(0), b"done");
            // A farewell that does not leave in time is not waited for.
            let _ = timeout(FAREWELL, live.endpoint.wait_idle()).await;
        }
    }

    fn is_alive(&mut self) -> bool {
        match &self.live {
            Some(live) if live.connection.close_reason().is_none() => true,
            Some(live) => {
                self.past += live.socket.counters();
                self.live = None;
                false
            }
            None => false,
        }
    }
}

async fn dial(dial: &Dial) -> Result<(Live, Stamp), ChannelError> {
    timeout(dial.connect_timeout, handshake(dial))
        .await
        .unwrap_or_else(|_| {
            let limit = dial.connect_timeout;
            Err(tcp::connect_timeout(&dial.host, dial.port, limit))
        })
}

async fn handshake(dial: &Dial) -> Result<(Live, Stamp), ChannelError> {
    let trust = dial.trust.as_deref().ok_or_else(|| {
        let why = "quic needs the proxy's certificate to trust; give its PEM file";
        ChannelError::Tls(why.to_owned())
    })?;
    let crypto = QuicClientConfig::try_from(tls::client(trust, ALPN)?)
        .map_err(|error| ChannelError::Tls(error.to_string()))?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport::config());

    let addresses = tcp::resolve(&dial.host, dial.port).await?;
    let resolved = MonoClock.now();
    let mut refused = None;
    for address in addresses {
        match attempt(dial, address, config.clone()).await {
            Ok(live) => return Ok((live, resolved)),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.expect("resolve gives at least one address"))
}

async fn attempt(
    dial: &Dial,
    address: SocketAddr,
    config: ClientConfig,
) -> Result<Live, ChannelError> {
    let cannot = |source| ChannelError::Connect {
        address: address.to_string(),
        source,
    };
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)
        .and_then(StampedSocket::new)
        .map_err(cannot)?;
    let endpoint = Endpoint::new_with_abstract_socket(
        EndpointConfig::default(),
        None,
        Arc::clone(&socket) as _,
        Arc::new(TokioRuntime),
    )
    .map_err(cannot)?;
    let refused = |reason: String| ChannelError::Handshake {
        address: address.to_string(),
        protocol: "QUIC",
        reason,
    };
    let connection = endpoint
        .connect_with(config, address, &dial.host)
        .map_err(|error| refused(error.to_string()))?
        .await
        .map_err(|error| refused(explained(&error.to_string())))?;
    Ok(Live {
        endpoint,
        connection,
        socket,
    })
}

/// A refusal with what to do about it, where the certificate is at fault.
fn explained(error: &str) -> String {
    let remedy = if error.contains("CaUsedAsEndEntity") {
        "; the certificate says that it is a CA's, as `openssl req -x509` makes it: add -addext basicConstraints=critical,CA:FALSE"
    } else if error.contains("UnknownIssuer") || error.contains("BadSignature") {
        "; trust the certificate that this proxy shows: its admin endpoint gives it at /certificate"
    } else if error.contains("NotValidForName") {
        "; the certificate is for other names: dial one of them, or make one for this address"
    } else {
        ""
    };
    format!("{error}{remedy}")
}

fn lost(dial: &Dial, detail: &dyn std::fmt::Display) -> ChannelError {
    ChannelError::Lost {
        address: dial.authority(),
        detail: detail.to_string(),
    }
}

fn protocol(dial: &Dial, reason: &dyn std::fmt::Display) -> ChannelError {
    ChannelError::Protocol {
        address: dial.authority(),
        reason: reason.to_string(),
    }
}

/// A stream of frames that answers a request. Dropped before its end, it stops the stream; the connection lives on.
#[derive(Debug)]
pub struct ClientReply<'a> {
    dial: &'a Dial,
    socket: &'a StampedSocket,
    recv: RecvStream,
    inbox: BytesMut,
    expander: Expander,
    opening: Opening,
    head_at: Option<Stamp>,
    read_at: Stamp,
    /// The socket's count of receives at the last read that carried bytes of this stream.
    reads: Option<u64>,
    ordinal: u32,
    status: u16,
    events: bool,
    ended: bool,
}

impl ClientReply<'_> {
    pub(crate) fn opening(&self) -> Opening {
        self.opening
    }

    pub(crate) fn head_at(&self) -> Stamp {
        self.head_at.unwrap_or(self.read_at)
    }

    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    pub(crate) fn framing(&self) -> Framing {
        if self.events {
            Framing::Messages
        } else {
            Framing::Sse
        }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Chunk>, ChannelError> {
        while let Some(frame) = self.frame().await? {
            let bytes = match frame {
                Frame::Data(bytes) => bytes,
                Frame::Event(data) | Frame::NamedEvent { data, .. } => data,
                Frame::Token(text) => self.expand(&text)?,
                Frame::TokenContext(context) => {
                    self.expander.set_context(context);
                    continue;
                }
                Frame::End => {
                    self.ended = true;
                    return Ok(None);
                }
                Frame::Request { .. } | Frame::Response { .. } => {
                    return Err(protocol(self.dial, &"a second head came within the reply"));
                }
            };
            return Ok(Some(Chunk {
                at: self.read_at,
                ordinal: self.ordinal,
                bytes,
            }));
        }
        if self.ended {
            return Ok(None);
        }
        Err(lost(self.dial, &"the stream ended without its END frame"))
    }

    pub(crate) async fn finish(mut self) -> Result<(), ChannelError> {
        while self.next().await?.is_some() {}
        Ok(())
    }

    async fn head(&mut self) -> Result<(), ChannelError> {
        match self.frame().await? {
            Some(Frame::Response { events, status, .. }) => {
                self.status = status;
                self.events = events;
                Ok(())
            }
            Some(_) => Err(protocol(
                self.dial,
                &"the reply does not begin with its head",
            )),
            None => Err(lost(self.dial, &"the stream ended before any reply")),
        }
    }

    fn expand(&mut self, text: &[u8]) -> Result<Bytes, ChannelError> {
        self.expander
            .expand(text)
            .map_err(|error| protocol(self.dial, &error))
    }

    /// The next frame; `None` at the stream's end.
    async fn frame(&mut self) -> Result<Option<Frame>, ChannelError> {
        loop {
            if self.ended {
                return Ok(None);
            }
            let taken =
                frame::take(&mut self.inbox).map_err(|error| protocol(self.dial, &error))?;
            if taken.is_some() {
                return Ok(taken);
            }
            let idle = self.dial.idle_timeout;
            let read = timeout(idle, self.recv.read_chunk(READ_LIMIT, true))
                .await
                .map_err(|_| ChannelError::Timeout {
                    address: self.dial.authority(),
                    what: "further bytes",
                    after: idle,
                })?
                .map_err(|error| lost(self.dial, &error))?;
            let Some(chunk) = read else {
                return Ok(None);
            };
            self.stamp();
            self.inbox.extend_from_slice(&chunk.bytes);
        }
    }

    /// Notes the receive that made the stream readable.
    fn stamp(&mut self) {
        let reads = self.socket.reads();
        self.read_at = self.socket.read_at();
        self.head_at.get_or_insert(self.read_at);
        match self.reads.replace(reads) {
            Some(before) if before != reads => self.ordinal += 1,
            _ => {}
        }
    }
}
