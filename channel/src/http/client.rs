//! The dialling end of `direct`, `http-cold` and `http`.

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

/// An HTTP/1.1 client with at most one connection.
#[derive(Debug)]
pub struct Client {
    dial: Dial,
    reuse: Reuse,
    idle: Option<Connection>,
    /// Counters of the connections that are gone.
    past: Counters,
}

impl Client {
    /// A client that will dial when it is first needed.
    pub fn new(dial: Dial, reuse: Reuse) -> Self {
        Self {
            dial,
            reuse,
            idle: None,
            past: Counters::default(),
        }
    }

    /// Connects now, where connections are reused.
    ///
    /// # Errors
    /// As [`Connection::dial`].
    pub async fn connect(&mut self) -> Result<(), ChannelError> {
        if self.reuse == Reuse::KeepAlive && self.take_idle().is_none_or(|idle| self.keep(idle)) {
            let (connection, ..) = Connection::dial(&self.dial).await?;
            self.idle = Some(connection);
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
    pub async fn open(&mut self, request: &Request) -> Result<ClientReply<'_>, ChannelError> {
        let (connection, response, opening) = match self.open_on_idle(request).await? {
            Some(opened) => opened,
            None => self.open_anew(request).await?,
        };
        Ok(ClientReply {
            client: self,
            connection: Some(connection),
            response,
            opening,
        })
    }

    /// Asks on the kept connection; `None` where there is none, or where the server had closed it.
    async fn open_on_idle(&mut self, request: &Request) -> Result<Option<Opened>, ChannelError> {
        let Some(connection) = self.take_idle() else {
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
                };
                Ok(Some((connection, response, opening)))
            }
            Err(error) if error.is_stale(connected) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn open_anew(&mut self, request: &Request) -> Result<Opened, ChannelError> {
        let (connection, resolved, connected) = Connection::dial(&self.dial).await?;
        let (connection, response, written) = self.exchange(connection, request).await?;
        let opening = Opening {
            resolved: Some(resolved),
            transport_connected: Some(connected),
            connected,
            written,
        };
        Ok((connection, response, opening))
    }

    /// Sends a request and waits for the reply's head; a connection that fails is done with, and its counters kept.
    async fn exchange(
        &mut self,
        mut connection: Connection,
        request: &Request,
    ) -> Result<(Connection, Response, Stamp), ChannelError> {
        let asked = async {
            let written = connection.send(request.stream()?).await?;
            let response = connection.response("POST", self.dial.idle_timeout).await?;
            Ok((written, response))
        };
        match asked.await {
            Ok((written, response)) => Ok((connection, response, written)),
            Err(error) => {
                self.past += connection.counters();
                Err(error)
            }
        }
    }

    /// What the client did so far, over all its connections.
    pub fn counters(&self) -> Counters {
        let idle = self.idle.as_ref().map(Connection::counters);
        self.past + idle.unwrap_or_default()
    }

    /// The idle connection, where it still is good.
    fn take_idle(&mut self) -> Option<Connection> {
        let mut connection = self.idle.take()?;
        if connection.is_fresh() {
            Some(connection)
        } else {
            self.past += connection.counters();
            None
        }
    }

    /// Puts a good connection back; says that none needs to be made.
    fn keep(&mut self, connection: Connection) -> bool {
        self.idle = Some(connection);
        false
    }
}

/// A connection with a reply on it, and the stamps of the request's way out.
type Opened = (Connection, Response, Opening);

/// A response that is arriving. Dropped before its end, it closes its connection.
#[derive(Debug)]
pub struct ClientReply<'a> {
    client: &'a mut Client,
    connection: Option<Connection>,
    response: Response,
    opening: Opening,
}

impl ClientReply<'_> {
    pub(crate) fn opening(&self) -> Opening {
        self.opening
    }

    pub(crate) fn head_at(&self) -> Stamp {
        self.response.head_at
    }

    pub(crate) fn status(&self) -> u16 {
        self.response.head.status
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Chunk>, ChannelError> {
        match &mut self.connection {
            Some(connection) => {
                let idle = self.client.dial.idle_timeout;
                connection.chunk(&mut self.response, idle).await
            }
            None => Ok(None),
        }
    }

    pub(crate) async fn finish(mut self) -> Result<(), ChannelError> {
        while self.next().await?.is_some() {}
        if self.client.reuse == Reuse::KeepAlive && self.response.is_reusable() {
            self.client.idle = self.connection.take();
        }
        Ok(())
    }
}

impl Drop for ClientReply<'_> {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            self.client.past += connection.counters();
        }
    }
}
