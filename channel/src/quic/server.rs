//! The accepting end of `tokenlag/1`.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use quinn::{ReadError, RecvStream, SendStream, VarInt};
use tokenlag_probes::{Clock, MonoClock, Stamp};

use super::compact::Compactor;
use super::established::{Confirmed, Established};
use super::frame::{self, Frame, ReplyForm};
use super::stop::Stop;
use super::{CUT_OFF, NOT_BEGUN, early};
use crate::bounds::{ExchangeLimits, Pace, Share, in_time};
use crate::http::head::MAX_HEAD;
use crate::incoming::Head;
use crate::pieces::Pieces;
use crate::{ExchangeError, Incoming};

const READ_LIMIT: usize = 64 * 1024;

/// Room for the first frames of a reply.
const FRAMES: usize = 1024;

/// A connection that was accepted. Clones share it.
#[derive(Clone, Debug)]
pub struct ServerConnection(Rc<Established>);

/// One stream of a connection: a request, and room for its reply. Dropped before it was read, it tells the client that it
/// can send the request elsewhere.
#[derive(Debug)]
pub struct Exchange {
    /// `None` once it is read.
    writing: Option<Box<Writing>>,
    connection: Rc<Established>,
}

impl ServerConnection {
    pub(crate) fn new(established: Established) -> Self {
        Self(Rc::new(established))
    }

    /// Returns when the connection is closed, by whichever end.
    pub async fn closed(&self) {
        self.0.connection.closed().await;
    }

    /// How the client broke the rules, where that ended the connection: the name under which it is counted.
    pub fn offence(&self) -> Option<&'static str> {
        self.0.offence()
    }

    /// The next exchange; `None` once the client is gone. May be cancelled without loss.
    pub async fn next_exchange(&self) -> Option<Exchange> {
        let (send, recv) = self.0.connection.accept_bi().await.ok()?;
        let door = &self.0.door;
        Some(Exchange {
            writing: Some(Box::new(Writing {
                send,
                recv: Some(recv),
                events: false,
                compactor: None,
                frames: Vec::new(),
                limits: door.limits.exchange,
                share: Share::new(&door.room),
                stalled: false,
            })),
            connection: Rc::clone(&self.0),
        })
    }
}

impl Exchange {
    /// Reads the whole request; gives it and the way to answer. A request that came as early data waits until the client
    /// is known to be there, unless it says that it is safe to replay.
    ///
    /// # Errors
    /// The client is gone or too slow, or what it sent is no request. The stream is reset where the writer is dropped.
    pub async fn request(
        mut self,
    ) -> Result<(Incoming, ReplyWriter), (ExchangeError, ReplyWriter)> {
        let mut writer = self.writing.take().expect("taken once, by value");
        let Writing { recv, share, .. } = &mut *writer;
        let (form, mut incoming) = match read_request(recv, &self.connection, share).await {
            Ok(read) => read,
            Err(error) => {
                writer.recv = None;
                return Err((error, ReplyWriter(writer)));
            }
        };
        let early = writer.recv.take().is_some_and(|recv| recv.is_0rtt());
        writer.events = form != ReplyForm::Bytes;
        writer.compactor = (form == ReplyForm::Compact).then(Compactor::default);
        writer.frames.reserve(FRAMES);
        let safe = early::is_marked(&mut incoming);
        if early && !safe {
            confirmed(&self.connection.confirmed).await;
        }
        Ok((incoming, ReplyWriter(writer)))
    }
}

/// A connection that breaks meanwhile is found out where the reply is written.
async fn confirmed(confirmed: &Confirmed) {
    confirmed.wait().await;
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(mut writing) = self.writing.take() {
            // A stream that the client gave up has nothing left to reset.
            let _ = writing.send.reset(VarInt::from_u32(NOT_BEGUN));
        }
    }
}

async fn read_request(
    recv: &mut Option<RecvStream>,
    connection: &Established,
    share: &mut Share,
) -> Result<(ReplyForm, Incoming), ExchangeError> {
    let recv = recv.as_mut().expect("it is read once");
    let socket = &connection.socket;
    let limits = connection.door.limits.exchange;
    let pace = Pace::since(socket.read_at(), limits);
    let malformed = |error: frame::FrameError| ExchangeError::Malformed(error.to_string());
    let not_a_request = || {
        let what = "a request is one REQUEST frame and then DATA frames";
        ExchangeError::Malformed(what.to_owned())
    };
    let mut inbox = BytesMut::new();
    let mut in_head = None;
    let mut in_body = Stamp::default();
    let mut head = None;
    let mut body = Pieces::default();
    while let Some(chunk) = pace
        .wait(head.is_some(), pin!(recv.read_chunk(READ_LIMIT, true)))
        .await?
        .map_err(|error| gone(&error))?
    {
        in_body = socket.read_at();
        in_head.get_or_insert(in_body);
        socket.took(chunk.bytes.len());
        share.grow(chunk.bytes.len())?;
        inbox.extend_from_slice(&chunk.bytes);
        if head.is_none() && frame::announced(&inbox).is_some_and(|head| head > MAX_HEAD as u64) {
            return Err(ExchangeError::HeadTooLarge(MAX_HEAD));
        }
        if inbox.len() + body.len() > limits.body + READ_LIMIT + MAX_HEAD {
            return Err(ExchangeError::TooLarge(limits.body));
        }
        while let Some(frame) = frame::take(&mut inbox).map_err(malformed)? {
            match frame {
                Frame::Request {
                    form,
                    method,
                    target,
                    fields,
                } if head.is_none() => head = Some((form, method, target, fields)),
                Frame::Data(bytes) if head.is_some() => {
                    if body.len() + bytes.len() > limits.body {
                        return Err(ExchangeError::TooLarge(limits.body));
                    }
                    body.push(bytes);
                }
                _ => return Err(not_a_request()),
            }
        }
    }
    let (form, method, target, fields) = head
        .filter(|_| inbox.is_empty())
        .ok_or_else(not_a_request)?;
    let incoming = Incoming {
        head: Head::Framed {
            method,
            target,
            fields,
        },
        body: body.take(),
        in_head: in_head.unwrap_or(in_body),
        in_body,
    };
    Ok((form, incoming))
}

fn gone(error: &ReadError) -> ExchangeError {
    ExchangeError::Gone(error.to_string())
}

/// Writes one reply. Dropped before [`Self::finish`], it ends the stream without an END frame: the client gets what was
/// written, and never takes it for whole.
#[derive(Debug)]
pub struct ReplyWriter(Box<Writing>);

/// What a writer keeps. Boxed, since the task that serves an exchange is moved about before it runs.
#[derive(Debug)]
struct Writing {
    send: SendStream,
    /// Until the request is read.
    recv: Option<RecvStream>,
    events: bool,
    compactor: Option<Compactor>,
    frames: Vec<u8>,
    limits: ExchangeLimits,
    /// The memory that the request has.
    share: Share,
    stalled: bool,
}

impl ReplyWriter {
    /// Whether the client wants a stream of events as events.
    pub fn wants_events(&self) -> bool {
        self.0.events
    }

    /// Adds the head to what the next flush sends. `events` says in which form the body will come.
    pub fn head(&mut self, status: u16, fields: Vec<(String, Bytes)>, events: bool) {
        let head = Frame::Response {
            events,
            status,
            fields,
        };
        head.write(&mut self.0.frames);
    }

    /// Adds an event to what the next flush sends: as a token where the client asked for the compact encoding and the
    /// event can be one.
    pub fn event(&mut self, name: &[u8], data: &[u8]) {
        if !tells_its_name(name, data) {
            let name = String::from_utf8_lossy(name).into_owned();
            let data = Bytes::copy_from_slice(data);
            Frame::NamedEvent { name, data }.write(&mut self.0.frames);
            return;
        }
        match &mut self.0.compactor {
            Some(compactor) => compactor.write(data, &mut self.0.frames),
            None => frame::write_event(data, &mut self.0.frames),
        }
    }

    /// Adds bytes of a body to what the next flush sends.
    pub fn data(&mut self, bytes: &[u8]) {
        frame::write_data(bytes, &mut self.0.frames);
    }

    /// Hands what was added to the endpoint; the stamp was taken before.
    ///
    /// # Errors
    /// The client is gone, or took nothing for too long ([`io::ErrorKind::TimedOut`]).
    pub async fn flush(&mut self) -> io::Result<Stamp> {
        let at = MonoClock.now();
        let mut written = 0;
        let mut stop = Stop::default();
        let writing = &mut *self.0;
        while written < writing.frames.len() {
            let frames = &writing.frames[written..];
            let send = &mut writing.send;
            let write = poll_fn(|context| stop.poll_write(send, context, frames));
            let write = in_time(writing.limits.stalled, pin!(write)).await;
            writing.stalled = write.is_err();
            written += write??;
        }
        self.0.frames.clear();
        Ok(at)
    }

    /// Ends the reply.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn finish(mut self) -> io::Result<()> {
        Frame::End.write(&mut self.0.frames);
        self.flush().await?;
        self.0.send.finish().map_err(io::Error::other)
    }

    /// Returns when the client gives the reply up.
    pub async fn given_up(&self) {
        // Whether it stopped the stream or lost the connection, nobody is there to read on.
        let _ = self.0.send.stopped().await;
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        // What a client does not take is not kept for it. quinn finishes any other stream that is dropped.
        if self.stalled {
            // A stream that the client stopped has nothing left to reset.
            let _ = self.send.reset(VarInt::from_u32(CUT_OFF));
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
