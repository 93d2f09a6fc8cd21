//! The way upstream over a channel that takes whole requests: HTTP/2, HTTP/3, WebSocket, raw QUIC.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use tokenlag_channel::quic::frame::ReplyForm;
use tokenlag_channel::{Channel, ChannelError, Dial, Message, Reply, Request, STALE_WITHIN};
use tokenlag_dialect::responses::Create;
use tokenlag_dialect::responses::bad_request::CONNECTION_LIMIT_REACHED;
use tokenlag_probes::{Clock, Encoding, MonoClock, Stamp, Transport};

use crate::carried::{Carried, Metered, Total};
use crate::inlet::Inlet;
use crate::opening::{Key, Opening};
use crate::question::Question;
use crate::refusal::Refusal;
use crate::tap::Tap;

/// Openings of WebSockets that one thread keeps apart: as many clients, about, have warm ones.
const OPENINGS: usize = 64;

/// One thread's connections of a channel other than HTTP/1.1.
#[derive(Debug)]
pub(crate) struct Leg {
    transport: Transport,
    encoding: Encoding,
    authority: String,
    dial: Dial,
    /// One for all.
    channel: Rc<Metered>,
    /// WebSockets say in their opening whose they are: what one client opened carries no other's requests. The one used
    /// last comes last.
    sockets: RefCell<Vec<(Key, Rc<Metered>)>>,
    /// What was carried over all of them.
    total: Total,
}

impl Leg {
    /// Dials nothing yet. `authority` is the name that the upstream knows itself by.
    pub(crate) fn new(
        transport: Transport,
        encoding: Encoding,
        authority: String,
        dial: Dial,
    ) -> Self {
        let total = Total::new(dial.tls.is_some());
        Self {
            transport,
            encoding,
            authority,
            channel: Metered::new(Channel::new(transport, dial.clone()), &total),
            dial,
            sockets: RefCell::default(),
            total,
        }
    }

    /// Closes what is idle, with the channel's own farewell.
    pub(crate) async fn close(&self) {
        self.channel.channel().clone().close().await;
        let sockets = self.sockets.take();
        for (_, channel) in sockets {
            channel.channel().clone().close().await;
        }
    }

    /// The channel that it is of.
    pub(crate) fn transport(&self) -> Transport {
        self.transport
    }

    /// What was carried up to now, over connections and clients that are gone too. What idle connections did below their bytes
    /// is booked on the way: there are few.
    pub(crate) fn carried(&self) -> Carried {
        self.channel.look();
        for (_, channel) in self.sockets.borrow().iter() {
            channel.look();
        }
        self.total.carried()
    }

    /// Whether any request can travel here.
    pub(crate) fn carries_all(&self) -> bool {
        self.transport != Transport::Ws
    }

    /// Whether the request can travel here. WebSockets carry nothing but streamed creates of the Responses API.
    pub(crate) fn takes(&self, question: &Question<'_>) -> bool {
        self.carries_all()
            || (question.is_create()
                && is_streamed(&question.body)
                && Opening::of(question, question.target).is_some())
    }

    /// Asks, and waits for the reply's head; `target` is the question's as the upstream knows it.
    ///
    /// # Errors
    /// No connection, or one that ends, falls silent or breaks its protocol before the reply began.
    pub(crate) async fn ask(
        &self,
        question: &Question<'_>,
        target: &str,
        tap: &mut Tap,
    ) -> Result<Inlet, ChannelError> {
        let traceparent = question.traceparent.map(|value| {
            let name = Bytes::from_static(b"traceparent");
            (name, Bytes::copy_from_slice(value.as_bytes()))
        });
        let fields: Vec<_> = question.fields.iter().cloned().chain(traceparent).collect();
        let message = Message {
            method: question.method,
            target,
            authority: &self.authority,
            fields: &fields,
            body: &question.body,
            form: match self.encoding {
                // Whatever else is streamed keeps its bytes: what an event of another API is called is not known here.
                _ if !question.is_create() => ReplyForm::Bytes,
                Encoding::Events => ReplyForm::Events,
                Encoding::Compact => ReplyForm::Compact,
            },
        };
        let request = Request::pass_on(self.transport, &message)?;
        let opening = match self.transport {
            Transport::Ws => Opening::of(question, target),
            _ => None,
        };
        match opening {
            Some(opening) => self.ask_socket(&opening, &request, tap).await,
            None => {
                let reply = self.channel.channel().open(&request).await?;
                note(tap, &reply);
                Inlet::channel(reply, Rc::clone(&self.channel), question.method)
            }
        }
    }

    async fn ask_socket(
        &self,
        opening: &Opening,
        request: &Request,
        tap: &mut Tap,
    ) -> Result<Inlet, ChannelError> {
        match self.first_message(opening, request, tap).await {
            Err(unanswered) if unanswered.repeatable => {
                // Others that are idle will have been closed, too.
                self.sockets
                    .borrow_mut()
                    .retain(|(known, _)| *known != opening.key);
                let again = self.first_message(opening, request, tap).await;
                again.map_err(|unanswered| unanswered.error)
            }
            asked => asked.map_err(|unanswered| unanswered.error),
        }
    }

    async fn first_message(
        &self,
        opening: &Opening,
        request: &Request,
        tap: &mut Tap,
    ) -> Result<Inlet, Unanswered> {
        let metered = self.socket(opening);
        let opened = metered.channel().open(request).await;
        // A message that could not be written to its end is nobody's request.
        let mut reply = opened.map_err(|error| Unanswered {
            repeatable: is_closed(&error),
            error,
        })?;
        note(tap, &reply);
        let kept = reply.opening().resolved.is_none();
        let written = reply.opening().written;
        let first = reply.next().await.map_err(|error| Unanswered {
            repeatable: kept && is_stale(&error, written),
            error,
        })?;
        let Some(first) = first else {
            return Err(no_reply(&self.dial).into());
        };
        match Refusal::of(&first) {
            // Too old a connection: the request was not looked at.
            Some(refusal) if refusal.code.as_deref() == Some(CONNECTION_LIMIT_REACHED) && kept => {
                Err(Unanswered {
                    error: no_reply(&self.dial),
                    repeatable: true,
                })
            }
            Some(refusal) => {
                // A refused create ends with this; the connection goes on.
                let at = first.at;
                let whole = refusal.into_inlet(at);
                drop(reply.finish().await);
                Ok(whole)
            }
            None => Ok(Inlet::messages(reply, metered, first)),
        }
    }

    /// The channel whose WebSockets the requests of such an opening share.
    fn socket(&self, opening: &Opening) -> Rc<Metered> {
        let mut sockets = self.sockets.borrow_mut();
        let place = sockets.iter().position(|(known, _)| *known == opening.key);
        let entry = match place {
            Some(place) => sockets.remove(place),
            None => {
                if sockets.len() == OPENINGS {
                    sockets.remove(0);
                }
                let dial = Dial {
                    path: opening.key.target.clone(),
                    headers: opening.fields(),
                    ..self.dial.clone()
                };
                let channel = Channel::new(self.transport, dial);
                (opening.key.clone(), Metered::new(channel, &self.total))
            }
        };
        let channel = Rc::clone(&entry.1);
        sockets.push(entry);
        channel
    }
}

/// Why there is no reply.
struct Unanswered {
    error: ChannelError,
    /// Nobody worked on the request: it can be sent again.
    repeatable: bool,
}

impl From<ChannelError> for Unanswered {
    fn from(error: ChannelError) -> Self {
        Self {
            error,
            repeatable: false,
        }
    }
}

/// Whether a kept WebSocket had just been closed as the request was written to it.
fn is_stale(error: &ChannelError, written: Stamp) -> bool {
    let soon = MonoClock.now().since(written) < STALE_WITHIN.as_nanos() as i64;
    soon && is_closed(error)
}

fn is_closed(error: &ChannelError) -> bool {
    matches!(
        error,
        ChannelError::Lost { .. } | ChannelError::NoReply { .. }
    )
}

fn no_reply(dial: &Dial) -> ChannelError {
    ChannelError::NoReply {
        address: tokenlag_channel::tcp::authority(&dial.host, dial.port),
        detail: "the WebSocket was at its end".to_owned(),
    }
}

fn note(tap: &mut Tap, reply: &Reply) {
    let opening = reply.opening();
    tap.up_connected_anew = opening.resolved.is_some();
    tap.overlapped = opening.overlapped;
    tap.up_written = (!opening.overlapped).then_some(opening.written);
}

/// Whether a create asks for a stream, and for nothing that a WebSocket has no words for.
fn is_streamed(body: &[u8]) -> bool {
    Create::parse(body).is_ok_and(|create| {
        create.stream && create.generate && create.fields.get_bool("background") != Some(true)
    })
}

#[cfg(test)]
#[path = "leg_tests.rs"]
mod tests;
