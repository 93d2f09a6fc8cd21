//! The accepting end of `quic`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    Connection, Endpoint, EndpointConfig, RecvStream, SendStream, ServerConfig, TokioRuntime,
    VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokenlag_probes::{Clock, MonoClock, Stamp};

use super::compact::Compactor;
use super::frame::{self, Frame, ReplyForm};
use super::socket::StampedSocket;
use super::{ALPN, transport};
use crate::tls::{self, ServerTls};
use crate::{ChannelError, ExchangeError, Incoming};

const READ_LIMIT: usize = 64 * 1024;

/// A UDP socket on which connections of `tokenlag/1` are accepted.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
    socket: Arc<StampedSocket>,
}

/// A connection that was accepted.
#[derive(Debug, Clone)]
pub struct Accepted {
    connection: Connection,
    socket: Arc<StampedSocket>,
}

/// One stream of a connection: a request, and room for its reply.
#[derive(Debug)]
pub struct Exchange {
    send: SendStream,
    recv: RecvStream,
    socket: Arc<StampedSocket>,
}

impl Listener {
    /// Takes a bound socket over, inside a runtime.
    ///
    /// # Errors
    /// The certificate or key cannot be used, or the system refuses the socket.
    pub fn new(socket: std::net::UdpSocket, tls: &ServerTls) -> Result<Self, ChannelError> {
        let crypto = QuicServerConfig::try_from(tls::server(tls, &[ALPN])?)
            .map_err(|error| ChannelError::Tls(error.to_string()))?;
        let mut config = ServerConfig::with_crypto(Arc::new(crypto));
        config.transport_config(transport::config());
        let cannot = |source| ChannelError::Connect {
            address: "the UDP socket".to_owned(),
            source,
        };
        let socket = StampedSocket::new(socket).map_err(cannot)?;
        let endpoint = Endpoint::new_with_abstract_socket(
            EndpointConfig::default(),
            Some(config),
            Arc::clone(&socket) as _,
            Arc::new(TokioRuntime),
        )
        .map_err(cannot)?;
        Ok(Self { endpoint, socket })
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
            socket: Arc::clone(&self.socket),
        })
    }

    /// Tells every client goodbye.
    pub async fn close(&self) {
        self.endpoint.close(VarInt::from_u32(0), b"going away");
        self.endpoint.wait_idle().await;
    }
}

/// A connection that is being made.
#[derive(Debug)]
pub struct Handshake {
    incoming: quinn::Incoming,
    socket: Arc<StampedSocket>,
}

impl Handshake {
    /// Completes the handshake.
    ///
    /// # Errors
    /// The client does not trust the certificate, speaks another protocol, or is gone.
    pub async fn finish(self) -> Result<Accepted, quinn::ConnectionError> {
        Ok(Accepted {
            connection: self.incoming.await?,
            socket: self.socket,
        })
    }
}

impl Accepted {
    /// Returns when the connection is closed, by whichever end.
    pub async fn closed(&self) {
        self.connection.closed().await;
    }

    /// The next exchange; `None` once the client is gone.
    pub async fn next_exchange(&self) -> Option<Exchange> {
        let (send, recv) = self.connection.accept_bi().await.ok()?;
        Some(Exchange {
            send,
            recv,
            socket: Arc::clone(&self.socket),
        })
    }
}

impl Exchange {
    /// Reads the whole request, of at most `limit` bytes of body; gives it and the way to answer.
    ///
    /// # Errors
    /// The client is gone, or what it sent is no request. The stream is reset where the writer is dropped.
    pub async fn request(
        mut self,
        limit: usize,
    ) -> Result<(Incoming, ReplyWriter), (ExchangeError, ReplyWriter)> {
        let read = read_request(&mut self.recv, &self.socket, limit).await;
        let form = read.as_ref().map_or(ReplyForm::Bytes, |(form, _)| *form);
        let writer = ReplyWriter {
            send: self.send,
            events: form != ReplyForm::Bytes,
            compactor: (form == ReplyForm::Compact).then(Compactor::default),
            frames: Vec::with_capacity(1024),
            finished: false,
        };
        match read {
            Ok((_, incoming)) => Ok((incoming, writer)),
            Err(error) => Err((error, writer)),
        }
    }
}

async fn read_request(
    recv: &mut RecvStream,
    socket: &StampedSocket,
    limit: usize,
) -> Result<(ReplyForm, Incoming), ExchangeError> {
    let not_a_request = || {
        let what = "a request is one REQUEST frame and then DATA frames";
        ExchangeError::Malformed(what.to_owned())
    };
    let mut inbox = BytesMut::new();
    let mut in_head = None;
    let mut in_body = Stamp::default();
    let mut head = None;
    let mut body = BytesMut::new();
    while let Some(chunk) = recv
        .read_chunk(READ_LIMIT, true)
        .await
        .map_err(|error| ExchangeError::Gone(error.to_string()))?
    {
        in_body = socket.read_at();
        in_head.get_or_insert(in_body);
        inbox.extend_from_slice(&chunk.bytes);
        if inbox.len() > limit + READ_LIMIT {
            return Err(ExchangeError::TooLarge(limit));
        }
        while let Some(frame) =
            frame::take(&mut inbox).map_err(|error| ExchangeError::Malformed(error.to_string()))?
        {
            match frame {
                Frame::Request {
                    form,
                    method,
                    target,
                    fields,
                } if head.is_none() => head = Some((form, method, target, fields)),
                Frame::Data(bytes) if head.is_some() => {
                    if body.len() + bytes.len() > limit {
                        return Err(ExchangeError::TooLarge(limit));
                    }
                    body.extend_from_slice(&bytes);
                }
                _ => return Err(not_a_request()),
            }
        }
    }
    let (form, method, target, fields) = head
        .filter(|_| inbox.is_empty())
        .ok_or_else(not_a_request)?;
    let incoming = Incoming {
        method,
        target,
        fields,
        body: body.freeze(),
        in_head: in_head.unwrap_or(in_body),
        in_body,
    };
    Ok((form, incoming))
}

/// Writes one reply. Dropped before [`Self::finish`], it resets the stream, so that the client never takes a reply that
/// was cut off for a whole one.
#[derive(Debug)]
pub struct ReplyWriter {
    send: SendStream,
    events: bool,
    compactor: Option<Compactor>,
    frames: Vec<u8>,
    finished: bool,
}

impl ReplyWriter {
    /// Whether the client wants a stream of events as events.
    pub fn wants_events(&self) -> bool {
        self.events
    }

    /// Adds the head to what the next flush sends. `events` says in which form the body will come.
    pub fn head(&mut self, status: u16, fields: Vec<(String, Bytes)>, events: bool) {
        let head = Frame::Response {
            events,
            status,
            fields,
        };
        head.write(&mut self.frames);
    }

    /// Adds an event to what the next flush sends: as a token where the client asked for the compact encoding and the
    /// event can be one.
    pub fn event(&mut self, name: &[u8], data: &[u8]) {
        if !tells_its_name(name, data) {
            let name = String::from_utf8_lossy(name).into_owned();
            let data = Bytes::copy_from_slice(data);
            Frame::NamedEvent { name, data }.write(&mut self.frames);
            return;
        }
        match &mut self.compactor {
            Some(compactor) => compactor.write(data, &mut self.frames),
            None => Frame::Event(Bytes::copy_from_slice(data)).write(&mut self.frames),
        }
    }

    /// Adds bytes of a body to what the next flush sends.
    pub fn data(&mut self, bytes: Bytes) {
        Frame::Data(bytes).write(&mut self.frames);
    }

    /// Hands what was added to the endpoint; the stamp was taken before.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn flush(&mut self) -> io::Result<Stamp> {
        let at = MonoClock.now();
        let written = self.send.write_all(&self.frames).await;
        self.frames.clear();
        written.map_err(io::Error::from)?;
        Ok(at)
    }

    /// Ends the reply.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn finish(mut self) -> io::Result<()> {
        Frame::End.write(&mut self.frames);
        self.flush().await?;
        self.finished = true;
        self.send.finish().map_err(io::Error::other)
    }

    /// Returns when the client gives the reply up.
    pub async fn given_up(&self) {
        // Whether it stopped the stream or lost the connection, nobody is there to read on.
        let _ = self.send.stopped().await;
    }
}

/// quinn finishes a stream that is dropped as if it were whole; this one is reset instead.
impl Drop for ReplyWriter {
    fn drop(&mut self) {
        if !self.finished {
            // A stream that the client stopped has nothing left to reset.
            let _ = self.send.reset(VarInt::from_u32(1));
        }
    }
}

/// Whether an event's data says its name, as the Responses API's do: `{"type":"NAME",...}`.
fn tells_its_name(name: &[u8], data: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Typed<'a> {
        #[serde(borrow, rename = "type")]
        kind: std::borrow::Cow<'a, str>,
    }
    name.is_empty()
        || data
            .strip_prefix(br#"{"type":""#)
            .and_then(|rest| rest.strip_prefix(name))
            .is_some_and(|rest| rest.first() == Some(&b'"'))
        || serde_json::from_slice::<Typed<'_>>(data)
            .is_ok_and(|typed| typed.kind.as_bytes() == name)
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
