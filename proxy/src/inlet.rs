//! The upstream's end of an exchange, whatever the channel: a reply that is arriving.

use tokenlag_channel::http::{Connection, Framing, Response, ResponseHead};
use tokenlag_channel::{ChannelError, Chunk};

use crate::worker::Worker;

/// A reply whose head is there.
#[derive(Debug)]
pub(crate) struct Inlet {
    /// The head, as it goes on to the client.
    pub(crate) head: ResponseHead,
    /// How its body is delimited.
    pub(crate) length: Framing,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Http {
        connection: Box<Connection>,
        response: Box<Response>,
    },
}

impl Inlet {
    /// A reply over HTTP/1.1 to a request of that `method`.
    ///
    /// # Errors
    /// Fields that contradict each other about the body's length.
    pub(crate) fn http(
        connection: Connection,
        response: Response,
        method: &str,
    ) -> Result<Self, ChannelError> {
        let length = response
            .head
            .framing(method)
            .map_err(|error| ChannelError::Protocol {
                address: "the upstream".to_owned(),
                reason: error.to_string(),
            })?;
        Ok(Self {
            head: response.head.clone(),
            length,
            source: Source::Http {
                connection: Box::new(connection),
                response: Box::new(response),
            },
        })
    }

    /// The next piece of the body that is there without waiting.
    ///
    /// # Errors
    /// The body breaks its coding.
    pub(crate) fn buffered(&mut self) -> Result<Option<Chunk>, ChannelError> {
        match &mut self.source {
            Source::Http {
                connection,
                response,
            } => connection.buffered_chunk(response),
        }
    }

    /// Waits until there is more of the body, or its end. May be cancelled without loss.
    ///
    /// # Errors
    /// The connection is gone or was silent for too long.
    pub(crate) async fn more(&mut self, worker: &Worker) -> Result<(), ChannelError> {
        match &mut self.source {
            Source::Http {
                connection,
                response,
            } => {
                connection
                    .read_more(response, worker.pool.idle_timeout())
                    .await
            }
        }
    }

    /// Whether the body is over.
    pub(crate) fn is_done(&self) -> bool {
        match &self.source {
            Source::Http { response, .. } => response.is_done(),
        }
    }

    /// Gives the connection back, where it can be used again. `owed` says that the request was not sent to its end.
    pub(crate) fn give_back(self, worker: &Worker, owed: bool) {
        match self.source {
            Source::Http {
                connection,
                response,
            } => {
                if response.is_reusable() && !owed {
                    worker.pool.put(*connection);
                }
            }
        }
    }
}
