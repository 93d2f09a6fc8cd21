//! The accepting end of HTTP/3.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::{Buf, Bytes};
use h3::error::{Code, StreamError};
use h3::server::{self, RequestStream};
use tokenlag_probes::{Clock, MonoClock, Stamp};
use tokio::time::sleep;

use super::connection::{Connection, Under};
use super::meter::TooLong;
use super::streams::{BidiStream, RecvStream, SendStream};
use super::track::{Track, Tracks};
use super::{MAX_FIELDS, is_offence};
use crate::bounds::{ExchangeLimits, Pace, Share, in_time};
use crate::http::head::MAX_HEAD;
use crate::pieces::Pieces;
use crate::quic::early;
use crate::quic::established::Established;
use crate::{ExchangeError, Incoming, fields};

/// How long what was written of a reply that is cut off has to arrive.
const CUT_OFF_LIMIT: Duration = Duration::from_secs(1);

/// A connection that was accepted.
pub struct ServerConnection {
    h3: server::Connection<Connection, Bytes>,
    tracks: Arc<Tracks>,
    established: Rc<Established>,
    /// No further exchange is taken.
    leaving: bool,
    broken: bool,
}

impl std::fmt::Debug for ServerConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerConnection").finish_non_exhaustive()
    }
}

/// A request's head and its stream.
type Resolved = Result<(::http::Request<()>, RequestStream<BidiStream, Bytes>), StreamError>;

/// One stream of a connection: a request, and room for its reply.
pub struct Exchange {
    /// Its head, as it comes. Boxed, since the task that serves the exchange is moved about before it runs.
    resolving: Pin<Box<dyn Future<Output = Resolved>>>,
    track: Arc<Track>,
    established: Rc<Established>,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}

impl ServerConnection {
    pub(crate) async fn new(established: Established) -> Result<Self, String> {
        let tracks = Arc::new(Tracks::default());
        let under = Under {
            connection: established.connection.clone(),
            socket: Arc::clone(&established.socket),
            tracks: Arc::clone(&tracks),
            // A reply can be whole before its request is (RFC 9114, section 4.1).
            unwanted: Code::H3_NO_ERROR,
        };
        let h3 = server::builder()
            .max_field_section_size(MAX_FIELDS)
            .send_grease(false)
            .build(Connection::new(under))
            .await
            .map_err(|error| error.to_string())?;
        Ok(Self {
            h3,
            tracks,
            established: Rc::new(established),
            leaving: false,
            broken: false,
        })
    }

    /// Returns when the connection is closed, by whichever end.
    pub async fn closed(&self) {
        self.established.connection.closed().await;
    }

    /// How the client broke the rules, where that ended the connection: the name under which it is counted.
    pub fn offence(&self) -> Option<&'static str> {
        match self.broken || self.tracks.is_broken() {
            true => Some("protocol"),
            false => self.established.offence(),
        }
    }

    /// The next exchange; `None` once the client is gone. Exchanges under way go on only while this is waited for. May be
    /// cancelled without loss.
    pub async fn next_exchange(&mut self) -> Option<Exchange> {
        loop {
            match self.h3.accept().await {
                Ok(Some(resolver)) => {
                    let track = self.tracks.newest();
                    if self.leaving {
                        // The client can send it elsewhere (RFC 9114, section 5.2).
                        track.condemn(Code::H3_REQUEST_REJECTED);
                        continue;
                    }
                    return Some(Exchange {
                        resolving: Box::pin(resolver.resolve_request()),
                        track,
                        established: Rc::clone(&self.established),
                    });
                }
                Ok(None) => return None,
                Err(error) => {
                    self.broken |= is_offence(&error);
                    return None;
                }
            }
        }
    }

    /// Tells the client that no further exchange is taken (GOAWAY).
    pub async fn leave(&mut self) {
        self.leaving = true;
        // The number is that of the first stream that is not served. A client that is gone needs no farewell.
        let _ = self.h3.shutdown(1).await;
    }
}

impl Exchange {
    /// Reads the whole request; gives it and the way to answer, where there is one. A request that came as early data waits
    /// until the client is known to be there, unless it says that it is safe to replay.
    ///
    /// # Errors
    /// The client is gone or too slow, or what it sent is no request. The stream is reset where the writer is dropped.
    pub async fn request(
        self,
    ) -> Result<(Incoming, ReplyWriter), (ExchangeError, Option<ReplyWriter>)> {
        let door = Arc::clone(&self.established.door);
        let limits = door.limits.exchange;
        let pace = Pace::since(self.established.socket.read_at(), limits);
        let track = self.track;
        let mut resolving = self.resolving;
        let (head, stream) = match pace.wait(false, &mut resolving).await {
            Ok(Ok(resolved)) => resolved,
            Ok(Err(error)) => return Err((unread(&error), None)),
            Err(slow) => {
                // h3 holds the stream, and gives it to nobody who could answer.
                track.condemn(Code::H3_EXCESSIVE_LOAD);
                return Err((slow, None));
            }
        };
        drop(resolving);
        let (send, mut recv) = stream.split();
        let mut writer = Box::new(Writing {
            send,
            head: None,
            body: Pieces::default(),
            limits,
            share: Share::new(&door.room),
            track: Arc::clone(&track),
            established: Rc::clone(&self.established),
            finished: false,
        });
        let body = match read_body(&mut recv, &pace, limits.body, &mut writer.share).await {
            Ok(body) => body,
            Err(error) => return Err((error, Some(ReplyWriter(writer)))),
        };
        let in_body = track.last();
        let in_head = track.first().map_or(in_body, |first| first.at);
        let (parts, ()) = head.into_parts();
        if fields::concerns_one_connection(&parts.headers) {
            let what = "a field concerns one connection only".to_owned();
            return Err((ExchangeError::Malformed(what), Some(ReplyWriter(writer))));
        }
        let mut incoming = match fields::request(Box::new(parts), body, in_head, in_body) {
            Ok(incoming) => incoming,
            Err(error) => return Err((error, Some(ReplyWriter(writer)))),
        };
        let safe = early::is_marked(&mut incoming);
        if track.early && !safe {
            self.established.confirmed.wait().await;
        }
        Ok((incoming, ReplyWriter(writer)))
    }
}

async fn read_body(
    recv: &mut RequestStream<RecvStream, Bytes>,
    pace: &Pace,
    limit: usize,
    share: &mut Share,
) -> Result<Bytes, ExchangeError> {
    let mut body = Pieces::default();
    while let Some(mut piece) = pace
        .wait(true, poll_fn(|context| recv.poll_recv_data(context)))
        .await?
        .map_err(|error| unread(&error))?
    {
        let length = piece.remaining();
        if body.len() + length > limit {
            return Err(ExchangeError::TooLarge(limit));
        }
        share.grow(length)?;
        body.push(piece.copy_to_bytes(length));
    }
    // Trailers are not passed on, and what may not follow them is found out.
    pace.wait(true, poll_fn(|context| recv.poll_recv_trailers(context)))
        .await?
        .map_err(|error| unread(&error))?;
    Ok(body.take())
}

fn unread(error: &StreamError) -> ExchangeError {
    match error {
        StreamError::HeaderTooBig { .. } => ExchangeError::HeadTooLarge(MAX_HEAD),
        StreamError::StreamError { reason, .. } => ExchangeError::Malformed(reason.clone()),
        StreamError::Undefined { 0: cause, .. } if cause.is::<TooLong>() => {
            ExchangeError::HeadTooLarge(MAX_HEAD)
        }
        other => ExchangeError::Gone(other.to_string()),
    }
}

/// Writes one reply. Dropped before [`Self::finish`], it resets the stream, so that the client never takes a reply that
/// was cut off for a whole one.
pub struct ReplyWriter(Box<Writing>);

/// What a writer keeps. Boxed, since the task that serves an exchange is moved about before it runs.
struct Writing {
    send: RequestStream<SendStream, Bytes>,
    head: Option<::http::Response<()>>,
    /// What the next flush sends of it.
    body: Pieces,
    limits: ExchangeLimits,
    share: Share,
    track: Arc<Track>,
    established: Rc<Established>,
    finished: bool,
}

impl std::fmt::Debug for ReplyWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplyWriter")
            .field("room", &self.0.share)
            .finish_non_exhaustive()
    }
}

impl ReplyWriter {
    /// Adds the head to what the next flush sends.
    pub fn head(&mut self, status: u16, fields: &[(String, Bytes)]) {
        self.0.head = Some(fields::response(status, fields));
    }

    /// Adds bytes of the body to what the next flush sends.
    pub fn data(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.0.body.push(bytes);
        }
    }

    /// Hands what was added to the endpoint; the stamp was taken before.
    ///
    /// # Errors
    /// The client is gone, or took nothing for too long ([`io::ErrorKind::TimedOut`]).
    pub async fn flush(&mut self) -> io::Result<Stamp> {
        let at = MonoClock.now();
        let head = self.0.head.take();
        let body = self.0.body.take();
        let send = &mut self.0.send;
        let mut write = pin!(async move {
            if let Some(head) = head {
                send.send_response(head).await?;
            }
            if !body.is_empty() {
                send.send_data(body).await?;
            }
            Ok::<(), StreamError>(())
        });
        loop {
            let before = self.0.track.sent.load(Relaxed);
            match in_time(self.0.limits.stalled, &mut write).await {
                Ok(written) => return written.map(|()| at).map_err(io::Error::other),
                // It is slow, and takes something.
                Err(_) if self.0.track.sent.load(Relaxed) != before => {}
                Err(stalled) => return Err(stalled.into()),
            }
        }
    }

    /// Ends the reply.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn finish(mut self) -> io::Result<()> {
        self.flush().await?;
        self.0.finished = true;
        self.0.send.finish().await.map_err(io::Error::other)
    }

    /// Gives a reply up that cannot be whole. What was written has time to arrive: a reset takes back what is on its way
    /// (RFC 9000, section 19.4).
    pub async fn cut_off(self) {
        let there_and_back = self.0.established.connection.rtt();
        sleep((there_and_back * 2).min(CUT_OFF_LIMIT)).await;
    }

    /// Returns when the client gives the reply up.
    pub async fn given_up(&self) {
        self.0.track.given_up().await;
    }
}

/// h3 finishes a stream that is dropped as if it were whole; this one is reset instead.
impl Drop for Writing {
    fn drop(&mut self) {
        if !self.finished {
            self.send.stop_stream(Code::H3_INTERNAL_ERROR);
        }
    }
}
