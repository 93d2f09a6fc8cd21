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
    /// # Errors
    /// No connection, a connection that ends or falls silent, or a reply that is not HTTP/1.1.
    pub async fn open(&mut self, request: &Request) -> Result<ClientReply<'_>, ChannelError> {
        let (mut connection, dialled, connected) = match self.take_idle() {
            Some(connection) => (connection, None, MonoClock.now()),
            None => {
                let (connection, resolved, connected) = Connection::dial(&self.dial).await?;
                (connection, Some((resolved, connected)), connected)
            }
        };
        let outcome = exchange(&mut connection, request, &self.dial).await;
        let (written, response) = match outcome {
            Ok(opened) => opened,
            Err(error) => {
                self.past += connection.counters();
                return Err(error);
            }
        };
        Ok(ClientReply {
            client: self,
            connection: Some(connection),
            response,
            opening: Opening {
                resolved: dialled.map(|(resolved, _)| resolved),
                transport_connected: dialled.map(|(_, connected)| connected),
                connected,
                written,
            },
        })
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

async fn exchange(
    connection: &mut Connection,
    request: &Request,
    dial: &Dial,
) -> Result<(Stamp, Response), ChannelError> {
    let written = connection.send(request.stream()?).await?;
    let response = connection.response("POST", dial.idle_timeout).await?;
    Ok((written, response))
}

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
