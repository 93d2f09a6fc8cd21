//! The upstream's end of an exchange, whatever the channel: a reply that is arriving.

use std::rc::Rc;
use std::time::Duration;

use tokenlag_channel::http::render::reason;
use tokenlag_channel::http::{Framing, Headers, Response, ResponseBody, ResponseHead};
use tokenlag_channel::{ChannelError, Chunk, Reply};
use tokenlag_dialect as dialect;

use crate::carried::Metered;
use crate::pooled::Pooled;
use crate::upstream::Pool;

/// A reply whose head is there.
#[derive(Debug)]
pub(crate) struct Inlet {
    /// The head, as it goes on to the client.
    pub(crate) head: ResponseHead,
    /// How long its body is.
    pub(crate) length: Framing,
    /// How its chunks are framed; where it is messages, each is one event.
    pub(crate) framing: dialect::Framing,
    source: Source,
}

/// Where it comes from.
#[derive(Debug)]
enum Source {
    /// One HTTP/1.1 connection, whose reads can be told apart.
    Http {
        connection: Box<Pooled>,
        body: ResponseBody,
        idle: Duration,
    },
    /// Any other channel.
    Channel {
        reply: Box<Reply>,
        held: Option<Chunk>,
        done: bool,
        /// Books what the reply brought, once it is over.
        metered: Rc<Metered>,
    },
    /// What is there already.
    Whole(Option<Chunk>),
}

impl Inlet {
    /// A reply over HTTP/1.1; it may be silent for `idle`.
    pub(crate) fn http(connection: Box<Pooled>, response: Response, idle: Duration) -> Self {
        Self {
            length: response.body.framing(),
            head: response.head,
            framing: dialect::Framing::Sse,
            source: Source::Http {
                connection,
                body: response.body,
                idle,
            },
        }
    }

    /// A reply over another channel to a request of that `method`.
    ///
    /// # Errors
    /// Fields that contradict each other about the body's length.
    pub(crate) fn channel(
        reply: Reply,
        metered: Rc<Metered>,
        method: &str,
    ) -> Result<Self, ChannelError> {
        let mut headers = Headers::default();
        let framing = reply.framing();
        for (name, value) in reply.fields() {
            // Events are written anew: they are as long as they come out.
            if framing == dialect::Framing::Sse || !name.eq_ignore_ascii_case("content-length") {
                headers.push(&name, &value);
            }
        }
        let head = head(reply.status(), headers);
        Ok(Self {
            length: length(&head, method)?,
            head,
            framing,
            source: Source::Channel {
                reply: Box::new(reply),
                held: None,
                done: false,
                metered,
            },
        })
    }

    /// The messages that answer a create, of which `first` came already.
    pub(crate) fn messages(reply: Reply, metered: Rc<Metered>, first: Chunk) -> Self {
        let mut headers = Headers::default();
        headers.push("content-type", b"text/event-stream");
        Self {
            head: head(200, headers),
            length: Framing::UntilClose,
            framing: dialect::Framing::Messages,
            source: Source::Channel {
                reply: Box::new(reply),
                held: Some(first),
                done: false,
                metered,
            },
        }
    }

    /// A reply in one piece of JSON.
    pub(crate) fn whole(status: u16, json: Chunk) -> Self {
        let mut headers = Headers::default();
        headers.push("content-type", b"application/json");
        let length = json.bytes.len();
        headers.push("content-length", length.to_string().as_bytes());
        Self {
            head: head(status, headers),
            length: Framing::Length(length as u64),
            framing: dialect::Framing::Sse,
            source: Source::Whole(Some(json)),
        }
    }

    /// The next piece of the body that is there without waiting.
    ///
    /// # Errors
    /// The body breaks its coding.
    pub(crate) fn buffered(&mut self) -> Result<Option<Chunk>, ChannelError> {
        match &mut self.source {
            Source::Http {
                connection, body, ..
            } => connection.buffered_chunk(body),
            Source::Channel { held, .. } | Source::Whole(held) => Ok(held.take()),
        }
    }

    /// Waits until there is more of the body, or its end. May be cancelled without loss.
    ///
    /// # Errors
    /// The connection is gone or was silent for too long.
    pub(crate) async fn more(&mut self) -> Result<(), ChannelError> {
        match &mut self.source {
            Source::Http {
                connection,
                body,
                idle,
            } => connection.read_more(body, *idle).await,
            Source::Channel {
                reply, held, done, ..
            } => {
                *held = reply.next().await?;
                *done = held.is_none();
                Ok(())
            }
            Source::Whole(_) => Ok(()),
        }
    }

    /// The name of the event that the last chunk was, where its data does not tell it.
    pub(crate) fn event_name(&self) -> Option<&str> {
        match &self.source {
            Source::Channel { reply, .. } => reply.event_name(),
            Source::Http { .. } | Source::Whole(_) => None,
        }
    }

    /// Whether the body is over.
    pub(crate) fn is_done(&self) -> bool {
        match &self.source {
            Source::Http { body, .. } => body.is_done(),
            Source::Channel { held, done, .. } => *done && held.is_none(),
            Source::Whole(held) => held.is_none(),
        }
    }

    /// Whether the reply is over with its terminal event: nothing else tells the end of messages on a WebSocket.
    pub(crate) fn ends_with_terminal(&self) -> bool {
        matches!(&self.source, Source::Channel { reply, .. } if matches!(**reply, Reply::Ws(_)))
            && !self.is_done()
    }

    /// The terminal event came.
    pub(crate) fn end(&mut self) {
        if let Source::Channel { done, .. } = &mut self.source {
            *done = true;
        }
    }

    /// Hands over what is arriving, and leaves nothing.
    pub(crate) fn take(&mut self) -> Self {
        Self {
            head: std::mem::take(&mut self.head),
            source: std::mem::replace(&mut self.source, Source::Whole(None)),
            ..*self
        }
    }

    /// Gives the connection back, where it can be used again, and leaves nothing. `owed` says that the request was not sent to
    /// its end.
    pub(crate) async fn give_back(&mut self, pool: &Pool, owed: bool) {
        match std::mem::replace(&mut self.source, Source::Whole(None)) {
            Source::Http {
                connection, body, ..
            } => {
                if body.is_reusable() && !owed {
                    pool.put(connection);
                }
            }
            // The reply has ended: nothing is waited for, and nothing can fail that concerns it.
            Source::Channel { reply, metered, .. } => {
                // Its future has room for every channel, of which most exchanges use none.
                drop(Box::pin(reply.finish()).await);
                metered.book();
            }
            Source::Whole(_) => {}
        }
    }
}

fn head(status: u16, headers: Headers) -> ResponseHead {
    ResponseHead {
        status,
        reason: reason(status).into(),
        version: 1,
        headers,
    }
}

fn length(head: &ResponseHead, method: &str) -> Result<Framing, ChannelError> {
    head.framing(method)
        .map_err(|error| ChannelError::Protocol {
            address: "the upstream".to_owned(),
            reason: error.to_string(),
        })
}
