//! The dialling end of `quic`.

use std::cell::Cell;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, EndpointConfig, RecvStream, TokioRuntime, VarInt};
use tokenlag_dialect::Framing;
use tokenlag_probes::{Clock, MonoClock, Stamp};
use tokio::sync::Mutex;
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

/// A client with at most one connection at a time, on a socket of its own. Clones share it.
#[derive(Clone, Debug)]
pub struct Client(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    dial: Dial,
    /// Held while a connection is made: exchanges that begin meanwhile wait for it instead of making another.
    live: Mutex<Option<Rc<Live>>>,
    /// Counters of the connections that are gone.
    past: Cell<Counters>,
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
        Self(Rc::new(Shared {
            dial,
            live: Mutex::default(),
            past: Cell::default(),
        }))
    }

    /// Connects now, where no connection is there.
    ///
    /// # Errors
    /// No connection, or a peer that shows another certificate or speaks another protocol.
    pub async fn connect(&self) -> Result<(), ChannelError> {
        self.0.live().await.map(drop)
    }

    /// Sends a request on a stream of its own and waits for the reply's head.
    ///
    /// # Errors
    /// No connection, one that ends or falls silent, or frames that break the format.
    pub async fn open(&self, request: &Request) -> Result<ClientReply, ChannelError> {
        let bytes = request.stream()?;
        let (live, resolved) = self.0.live().await?;
        let connected = MonoClock.now();
        let (mut send, recv) = live
            .connection
            .open_bi()
            .await
            .map_err(|error| lost(&self.0.dial, &error))?;
        send.write_all(bytes)
            .await
            .map_err(|error| lost(&self.0.dial, &error))?;
        let written = MonoClock.now();
        send.finish().map_err(|error| lost(&self.0.dial, &error))?;
        let mut reply = ClientReply {
            client: Rc::clone(&self.0),
            live,
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
            fields: Vec::new(),
            events: false,
            event_name: None,
            ended: false,
        };
        reply.head().await?;
        Ok(reply)
    }

    /// What the client did so far; a connection that is being made is left out.
    pub fn counters(&self) -> Counters {
        let live = self.0.live.try_lock();
        let live = live
            .ok()
            .and_then(|live| Some(live.as_ref()?.socket.counters()));
        self.0.past.get() + live.unwrap_or_default()
    }

    /// Closes the connection and lets the farewell leave.
    pub async fn close(self) {
        if let Some(live) = self.0.live.lock().await.take() {
            live.connection.close(VarInt::from_u32(0), b"done");
            // A farewell that does not leave in time is not waited for.
            let _ = timeout(FAREWELL, live.endpoint.wait_idle()).await;
            self.0.retire(&live);
        }
    }
}

impl Shared {
    /// The connection; where it was just made, also when the name was resolved.
    async fn live(&self) -> Result<(Rc<Live>, Option<Stamp>), ChannelError> {
        let mut slot = self.live.lock().await;
        if let Some(live) = &*slot {
            if live.connection.close_reason().is_none() {
                return Ok((Rc::clone(live), None));
            }
            self.retire(live);
            *slot = None;
        }
        let (live, resolved) = dial(&self.dial).await?;
        let live = Rc::new(live);
        *slot = Some(Rc::clone(&live));
        Ok((live, Some(resolved)))
    }

    /// Keeps the counters of a connection that is done with.
    fn retire(&self, live: &Live) {
        self.past.set(self.past.get() + live.socket.counters());
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
    let tls = dial.tls.as_ref().ok_or_else(|| {
        let why = "quic needs the proxy's certificate to trust; give its PEM file";
        ChannelError::Tls(why.to_owned())
    })?;
    let crypto = QuicClientConfig::try_from(tls.config(&[ALPN])?)
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
        .map_err(|error| refused(tls::explained(&error.to_string())))?;
    Ok(Live {
        endpoint,
        connection,
        socket,
    })
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
pub struct ClientReply {
    client: Rc<Shared>,
    live: Rc<Live>,
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
    fields: Vec<(String, Bytes)>,
    events: bool,
    /// Of the event that was given last, where its data does not tell its name.
    event_name: Option<String>,
    ended: bool,
}

impl ClientReply {
    pub(crate) fn opening(&self) -> Opening {
        self.opening
    }

    pub(crate) fn head_at(&self) -> Stamp {
        self.head_at.unwrap_or(self.read_at)
    }

    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    pub(crate) fn fields(&self) -> Vec<(String, Bytes)> {
        self.fields.clone()
    }

    pub(crate) fn event_name(&self) -> Option<&str> {
        self.event_name.as_deref()
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
            self.event_name = None;
            let bytes = match frame {
                Frame::Data(bytes) => bytes,
                Frame::Event(data) => data,
                Frame::NamedEvent { name, data } => {
                    self.event_name = Some(name);
                    data
                }
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
                    return Err(protocol(
                        &self.client.dial,
                        &"a second head came within the reply",
                    ));
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
        Err(lost(
            &self.client.dial,
            &"the stream ended without its END frame",
        ))
    }

    pub(crate) async fn finish(mut self) -> Result<(), ChannelError> {
        while self.next().await?.is_some() {}
        Ok(())
    }

    async fn head(&mut self) -> Result<(), ChannelError> {
        match self.frame().await? {
            Some(Frame::Response {
                events,
                status,
                fields,
            }) => {
                self.status = status;
                self.fields = fields;
                self.events = events;
                Ok(())
            }
            Some(_) => Err(protocol(
                &self.client.dial,
                &"the reply does not begin with its head",
            )),
            None => Err(lost(
                &self.client.dial,
                &"the stream ended before any reply",
            )),
        }
    }

    fn expand(&mut self, text: &[u8]) -> Result<Bytes, ChannelError> {
        self.expander
            .expand(text)
            .map_err(|error| protocol(&self.client.dial, &error))
    }

    /// The next frame; `None` at the stream's end.
    async fn frame(&mut self) -> Result<Option<Frame>, ChannelError> {
        loop {
            if self.ended {
                return Ok(None);
            }
            let taken = frame::take(&mut self.inbox)
                .map_err(|error| protocol(&self.client.dial, &error))?;
            if taken.is_some() {
                return Ok(taken);
            }
            let idle = self.client.dial.idle_timeout;
            let read = timeout(idle, self.recv.read_chunk(READ_LIMIT, true))
                .await
                .map_err(|_| ChannelError::Timeout {
                    address: self.client.dial.authority(),
                    what: "further bytes",
                    after: idle,
                })?
                .map_err(|error| lost(&self.client.dial, &error))?;
            let Some(chunk) = read else {
                return Ok(None);
            };
            self.stamp();
            self.inbox.extend_from_slice(&chunk.bytes);
        }
    }

    /// Notes the receive that made the stream readable.
    fn stamp(&mut self) {
        let reads = self.live.socket.reads();
        self.read_at = self.live.socket.read_at();
        self.head_at.get_or_insert(self.read_at);
        match self.reads.replace(reads) {
            Some(before) if before != reads => self.ordinal += 1,
            _ => {}
        }
    }
}
