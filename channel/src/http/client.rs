//! The dialling end of `direct`, `http-cold` and `http`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use tokenlag_probes::{Clock, MonoClock, Stamp};

use super::{Connection, Response};
use crate::{ChannelError, Chunk, Counters, Dial, Opening, Request};

/// Whether a connection serves more than one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// A new connection for each request.
    Never,
    /// HTTP/1.1 keep-alive.
    KeepAlive,
}

/// An HTTP/1.1 client. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Client(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    dial: Dial,
    reuse: Reuse,
    /// The one used last comes last.
    #[expect(
        clippy::vec_box,
        reason = "they are large and change hands with every exchange, boxes and all"
    )]
    idle: RefCell<Vec<Box<Connection>>>,
    /// Counters of the connections that are gone.
    past: Cell<Counters>,
}

impl Client {
    /// A client that will dial when it is first needed.
    pub fn new(dial: Dial, reuse: Reuse) -> Self {
        Self(Rc::new(Shared {
            dial,
            reuse,
            idle: RefCell::default(),
            past: Cell::default(),
        }))
    }

    /// Connects now, where connections are reused.
    ///
    /// # Errors
    /// As [`Connection::dial`].
    pub async fn connect(&self) -> Result<(), ChannelError> {
        if self.0.reuse == Reuse::KeepAlive {
            let connection = match self.0.take_idle() {
                Some(connection) => connection,
                None => Box::new(Connection::dial(&self.0.dial).await?.connection),
            };
            self.0.keep(connection);
        }
        Ok(())
    }

    /// Sends a request and waits for the reply's head.
    ///
    /// A kept connection that the server turns out to have closed is replaced once, as any client would: its set-up is
    /// this exchange's.
    ///
    /// # Errors
    /// No connection, a connection that ends or falls silent, or a reply that is not HTTP/1.1.
    pub async fn open(&self, request: &Request) -> Result<ClientReply, ChannelError> {
        let (connection, response, opening) = match self.open_on_idle(request).await? {
            Some(opened) => opened,
            // Seldom, and its future is large.
            None => Box::pin(self.open_anew(request)).await?,
        };
        Ok(ClientReply {
            client: Rc::clone(&self.0),
            connection: Some(connection),
            response,
            opening,
        })
    }

    /// Asks on the kept connection; `None` where there is none, or where the server had closed it.
    async fn open_on_idle(&self, request: &Request) -> Result<Option<Opened>, ChannelError> {
        let Some(connection) = self.0.take_idle() else {
            return Ok(None);
        };
        let connected = MonoClock.now();
        match self.exchange(connection, request).await {
            Ok((connection, response, written)) => {
                let opening = Opening {
                    resolved: None,
                    transport_connected: None,
                    connected,
                    written,
                    overlapped: false,
                };
                Ok(Some((connection, response, opening)))
            }
            Err(error) if error.is_stale(connected) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn open_anew(&self, request: &Request) -> Result<Opened, ChannelError> {
        let dialled = Connection::dial(&self.0.dial).await?;
        let (resolved, transport_connected) = (dialled.resolved, dialled.transport_connected);
        let connected = dialled.connected;
        let connection = Box::new(dialled.connection);
        let (connection, response, written) = self.exchange(connection, request).await?;
        let opening = Opening {
            resolved: Some(resolved),
            transport_connected: Some(transport_connected),
            connected,
            written,
            overlapped: false,
        };
        Ok((connection, response, opening))
    }

    /// Sends a request and waits for the reply's head; a connection that fails is done with, and its counters kept.
    async fn exchange(
        &self,
        mut connection: Box<Connection>,
        request: &Request,
    ) -> Result<(Box<Connection>, Response, Stamp), ChannelError> {
        let asked = async {
            let written = connection.send(request.stream()?).await?;
            let response = connection
                .response("POST", self.0.dial.idle_timeout)
                .await?;
            Ok((written, response))
        };
        match asked.await {
            Ok((written, response)) => Ok((connection, response, written)),
            Err(error) => {
                self.0.retire(&connection);
                Err(error)
            }
        }
    }

    /// What the client did so far; connections with an exchange under way are left out.
    /// What the idle ones did below their bytes is booked, where that is watched ([`SocketWatch`]).
    ///
    /// [`SocketWatch`]: crate::SocketWatch
    pub fn counters(&self) -> Counters {
        self.0.idle.borrow().iter().for_each(|idle| idle.book());
        self.counted()
    }

    /// The same without a look at the sockets, which is a system call for each.
    pub fn counted(&self) -> Counters {
        let idle = self.0.idle.borrow();
        let idle = idle.iter().map(|connection| connection.counted());
        idle.fold(self.0.past.get(), |sum, counters| sum + counters)
    }

    /// Closes the idle connections.
    pub fn close(self) {
        while let Some(connection) = self.0.pop() {
            self.0.retire(&connection);
        }
    }
}

impl Shared {
    fn pop(&self) -> Option<Box<Connection>> {
        self.idle.borrow_mut().pop()
    }

    /// An idle connection that still is good.
    fn take_idle(&self) -> Option<Box<Connection>> {
        while let Some(mut connection) = self.pop() {
            if connection.is_fresh() {
                return Some(connection);
            }
            self.retire(&connection);
        }
        None
    }

    /// Puts a good connection back.
    fn keep(&self, connection: Box<Connection>) {
        self.idle.borrow_mut().push(connection);
    }

    /// Keeps the counters of a connection that is done with. Its socket books what it did with its end.
    fn retire(&self, connection: &Connection) {
        self.past.set(self.past.get() + connection.counted());
    }
}

/// A connection with a reply on it, and the stamps of the request's way out.
type Opened = (Box<Connection>, Response, Opening);

/// A response that is arriving. Dropped before its end, it closes its connection.
#[derive(Debug)]
pub struct ClientReply {
    client: Rc<Shared>,
    connection: Option<Box<Connection>>,
    response: Response,
    opening: Opening,
}

impl ClientReply {
    pub(crate) fn opening(&self) -> Opening {
        self.opening
    }

    pub(crate) fn head_at(&self) -> Stamp {
        self.response.head_at
    }

    pub(crate) fn status(&self) -> u16 {
        self.response.head.status
    }

    pub(crate) fn fields(&self) -> Vec<(String, Bytes)> {
        let fields = self
            .response
            .head
            .headers
            .iter()
            .filter_map(|(name, value)| {
                let name = std::str::from_utf8(name).ok()?.to_owned();
                Some((name, Bytes::copy_from_slice(value)))
            });
        fields.collect()
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Chunk>, ChannelError> {
        match &mut self.connection {
            Some(connection) => {
                let idle = self.client.dial.idle_timeout;
                connection.chunk(&mut self.response.body, idle).await
            }
            None => Ok(None),
        }
    }

    pub(crate) async fn finish(mut self) -> Result<(), ChannelError> {
        while self.next().await?.is_some() {}
        if self.client.reuse == Reuse::KeepAlive
            && self.response.body.is_reusable()
            && let Some(connection) = self.connection.take()
        {
            self.client.keep(connection);
        }
        Ok(())
    }
}

impl Drop for ClientReply {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            self.client.retire(connection);
        }
    }
}
