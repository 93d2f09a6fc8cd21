//! The dialling end of `ws`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokenlag_dialect::responses::message_type;
use tokenlag_probes::{Clock, MonoClock, Stamp};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::config;
use super::opening::open_as_said;
use super::socket::Stamped;
use crate::{ChannelError, Chunk, Counters, Dial, Opening, Request};

/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_millis(200);

/// The library's state is large; boxed, it does not make every channel as large.
type Socket = Box<WebSocketStream<Stamped>>;

/// A client whose WebSockets carry one exchange at a time. Clones share them.
#[derive(Clone, Debug)]
pub struct Client(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    dial: Dial,
    /// The one used last comes last.
    idle: RefCell<Vec<Socket>>,
    /// Counters of the connections that are gone.
    past: Cell<Counters>,
    /// Counters of those that have an exchange, as they were when it began.
    lent: RefCell<BTreeMap<u64, Counters>>,
    /// Exchanges that were begun.
    exchanges: Cell<u64>,
}

/// A socket that has an exchange. Dropped before it is laid by, it closes its connection.
#[derive(Debug)]
struct Lent {
    client: Rc<Shared>,
    /// `None` only as it is laid by.
    socket: Option<Socket>,
    exchange: u64,
}

/// A socket and the stamps of its making.
struct Dialled {
    socket: Socket,
    resolved: Stamp,
    transport_connected: Stamp,
    connected: Stamp,
}

impl Client {
    /// A client that will dial when it is first needed.
    pub fn new(dial: Dial) -> Self {
        Self(Rc::new(Shared {
            dial,
            idle: RefCell::default(),
            past: Cell::default(),
            lent: RefCell::default(),
            exchanges: Cell::default(),
        }))
    }

    /// Connects now, where no connection is there.
    ///
    /// # Errors
    /// No connection, or a server that does not open a WebSocket.
    pub async fn connect(&self) -> Result<(), ChannelError> {
        if self.0.idle.borrow().is_empty() {
            let made = dial(&self.0.dial).await?;
            self.0.idle.borrow_mut().push(made.socket);
        }
        Ok(())
    }

    /// Sends a request as one message.
    ///
    /// # Errors
    /// No connection, or one that ends.
    pub async fn open(&self, request: &Request) -> Result<ClientReply, ChannelError> {
        let message = Message::Text(request.message()?.clone());
        let (socket, resolved, transport_connected, connected) = match self.0.pop_fresh() {
            Some(socket) => (socket, None, None, MonoClock.now()),
            None => {
                let made = dial(&self.0.dial).await?;
                let resolved = Some(made.resolved);
                let transport_connected = Some(made.transport_connected);
                (made.socket, resolved, transport_connected, made.connected)
            }
        };
        let idle = self.0.dial.idle_timeout;
        let mut lent = Lent::new(&self.0, socket);
        let sent = timeout(idle, lent.socket().send(message)).await;
        let failed = match sent {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(lost(&self.0.dial, &error)),
            Err(_) => Some(ChannelError::Timeout {
                address: self.0.dial.authority(),
                what: "room for the request",
                after: idle,
            }),
        };
        if let Some(error) = failed {
            return Err(error);
        }
        let opening = Opening {
            resolved,
            transport_connected,
            connected,
            written: lent.socket().get_ref().written_at(),
            overlapped: false,
        };
        Ok(ClientReply {
            reads_before: None,
            head_at: None,
            lent,
            opening,
        })
    }

    /// What the client did so far, but for what the exchanges under way have done.
    pub fn counters(&self) -> Counters {
        let idle = self.0.idle.borrow();
        let idle = idle.iter().map(|socket| socket.get_ref().counters());
        let lent = self.0.lent.borrow();
        idle.chain(lent.values().copied())
            .fold(self.0.past.get(), |sum, counters| sum + counters)
    }

    /// Says goodbye on the idle connections and closes them.
    pub async fn close(self) {
        while let Some(mut socket) = self.0.pop() {
            // A peer that does not answer is left without an answer.
            let _ = timeout(FAREWELL, socket.as_mut().close(None)).await;
            self.0.retire(&socket);
        }
    }
}

impl Shared {
    fn pop(&self) -> Option<Socket> {
        self.idle.borrow_mut().pop()
    }

    /// A connection that the server has not given up meanwhile.
    fn pop_fresh(&self) -> Option<Socket> {
        while let Some(mut socket) = self.pop() {
            if is_fresh(&mut socket) {
                return Some(socket);
            }
            self.retire(&socket);
        }
        None
    }

    /// Keeps the counters of a connection that is done with.
    fn retire(&self, socket: &Socket) {
        self.past.set(self.past.get() + socket.get_ref().counters());
    }
}

impl Lent {
    fn new(client: &Rc<Shared>, socket: Socket) -> Self {
        let exchange = client.exchanges.get();
        client.exchanges.set(exchange + 1);
        let counters = socket.get_ref().counters();
        client.lent.borrow_mut().insert(exchange, counters);
        Self {
            client: Rc::clone(client),
            socket: Some(socket),
            exchange,
        }
    }

    fn socket(&mut self) -> &mut Socket {
        self.socket
            .as_mut()
            .expect("a socket is laid by only together with its exchange")
    }

    /// The exchange is over, and the connection good for another.
    fn lay_by(mut self) {
        if let Some(socket) = &self.socket {
            socket.get_ref().book();
        }
        self.client.idle.borrow_mut().extend(self.socket.take());
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.client.lent.borrow_mut().remove(&self.exchange);
        if let Some(socket) = &self.socket {
            self.client.retire(socket);
        }
    }
}

/// Whether an idle connection is still good: the server neither closed it nor said that it is about to. Pings that came
/// meanwhile are answered on the way, other events that nobody asked for are passed over.
fn is_fresh(socket: &mut Socket) -> bool {
    let mut nobody = Context::from_waker(Waker::noop());
    loop {
        match socket.poll_next_unpin(&mut nobody) {
            Poll::Pending => return true,
            Poll::Ready(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
            Poll::Ready(Some(Ok(Message::Text(text)))) if !is_error(&text) => {
                socket.get_mut().take_message_stamps(text.len());
            }
            Poll::Ready(_) => return false,
        }
    }
}

/// Whether an event between two replies is an error: the connection is then at its end.
fn is_error(event: &str) -> bool {
    message_type(event.as_bytes()).as_deref() == Some("error")
}

async fn dial(dial: &Dial) -> Result<Dialled, ChannelError> {
    let opened = open_as_said(dial).await?;
    let socket = WebSocketStream::from_raw_socket(opened.socket, Role::Client, Some(config()));
    Ok(Dialled {
        socket: Box::new(socket.await),
        resolved: opened.resolved,
        transport_connected: opened.transport_connected,
        connected: MonoClock.now(),
    })
}

fn lost(dial: &Dial, detail: &dyn std::fmt::Display) -> ChannelError {
    ChannelError::Lost {
        address: dial.authority(),
        detail: detail.to_string(),
    }
}

/// The messages that answer a request. Dropped before [`Self::finish`], it closes its connection.
#[derive(Debug)]
pub struct ClientReply {
    lent: Lent,
    opening: Opening,
    head_at: Option<Stamp>,
    reads_before: Option<u64>,
}

impl ClientReply {
    pub(crate) fn opening(&self) -> Opening {
        self.opening
    }

    pub(crate) fn head_at(&self) -> Option<Stamp> {
        self.head_at
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Chunk>, ChannelError> {
        let Lent { client, socket, .. } = &mut self.lent;
        let Some(socket) = socket else {
            return Ok(None);
        };
        let idle = client.dial.idle_timeout;
        loop {
            let received =
                timeout(idle, socket.next())
                    .await
                    .map_err(|_| ChannelError::Timeout {
                        address: client.dial.authority(),
                        what: "further message",
                        after: idle,
                    })?;
            let bytes = match received {
                Some(Ok(Message::Text(text))) => text.into(),
                Some(Ok(Message::Binary(bytes))) => bytes,
                // The library answers pings itself.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Close(frame))) => {
                    let detail = frame.map_or_else(
                        || "a close frame without a code".to_owned(),
                        |frame| format!("close frame: {frame}"),
                    );
                    return Err(lost(&client.dial, &detail));
                }
                Some(Err(Error::Protocol(error))) => {
                    return Err(ChannelError::Protocol {
                        address: client.dial.authority(),
                        reason: error.to_string(),
                    });
                }
                Some(Err(error)) => return Err(lost(&client.dial, &error)),
                None => return Err(lost(&client.dial, &"end of stream")),
            };
            let (first_byte_at, at) = socket.get_mut().take_message_stamps(bytes.len());
            let reads = socket.get_ref().reads();
            self.head_at.get_or_insert(first_byte_at);
            let before = *self.reads_before.get_or_insert(reads);
            return Ok(Some(Chunk {
                at,
                ordinal: (reads - before) as u32,
                bytes,
            }));
        }
    }

    pub(crate) fn finish(self) {
        self.lent.lay_by();
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
