//! The dialling end of HTTP/3.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use h3::error::{Code, StreamError};
use http::HeaderValue;
use tokenlag_probes::{Clock, MonoClock, Stamp};

use super::is_offence;
use super::live::{Live, Spoken};
use super::meter::TooLong;
use super::reply::ClientReply;
use super::track::Tracks;
use crate::kept::Kept;
use crate::quic::early::SAFE_TO_REPLAY;
use crate::turns::Ahead;
use crate::{ChannelError, Counters, Dial, Opening, Request, TurnAhead};

/// A client with at most one connection at a time, on a socket of its own. Clones share it.
#[derive(Clone, Debug)]
pub struct Client(Rc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dial: Dial,
    live: Kept<Live>,
    ahead: Ahead,
    /// Counters of the connections that are gone.
    past: Rc<Cell<Counters>>,
}

/// Why an exchange has no reply.
struct Unanswered {
    error: ChannelError,
    /// The server did not work on it: it can be sent again.
    untouched: bool,
}

/// Why a request was not answered.
enum Failed {
    Channel(ChannelError),
    Stream(StreamError),
}

impl From<ChannelError> for Failed {
    fn from(error: ChannelError) -> Self {
        Self::Channel(error)
    }
}

impl From<StreamError> for Failed {
    fn from(error: StreamError) -> Self {
        Self::Stream(error)
    }
}

impl Client {
    /// A client that will dial when it is first needed.
    pub fn new(dial: Dial) -> Self {
        Self(Rc::new(Shared {
            dial,
            live: Kept::default(),
            ahead: Ahead::default(),
            past: Rc::default(),
        }))
    }

    /// Connects now, where no connection is there.
    ///
    /// # Errors
    /// No connection, or a peer that shows another certificate or does not speak HTTP/3.
    pub async fn connect(&self) -> Result<(), ChannelError> {
        self.0.live().await.map(drop)
    }

    /// Waits for a turn to make a handshake, where the next exchange has to make a connection.
    pub(crate) async fn turn(&self) -> Result<TurnAhead<'_>, ChannelError> {
        let missing = || self.0.live.is_missing(Live::is_open);
        self.0.ahead.take(&self.0.dial, missing).await
    }

    /// Sends a request on a stream of its own and waits for the reply's head.
    ///
    /// What the server says it did not begin (H3_REQUEST_REJECTED, GOAWAY), early data that it did not take, and what met a
    /// kept connection that the server turns out to have closed, is sent once more.
    ///
    /// # Errors
    /// No connection, one that ends or falls silent, a stream that is reset, or frames that break the protocol.
    pub async fn open(&self, request: &Request) -> Result<Box<ClientReply>, ChannelError> {
        let request = request.fields()?;
        let (live, resolved) = self.0.live().await?;
        match self.0.exchange(&live, resolved, request).await {
            Err(unanswered) if unanswered.untouched => {
                drop(live);
                let (live, anew) = self.0.live().await?;
                let again = self.0.exchange(&live, anew.or(resolved), request).await;
                again.map_err(|unanswered| unanswered.error)
            }
            reply => reply.map_err(|unanswered| unanswered.error),
        }
    }

    /// What the client did so far; a connection that is being made, or that only ends its exchanges, is left out.
    pub fn counters(&self) -> Counters {
        let live = self.0.live.peek().map(|live| live.dialled.counters());
        self.0.past.get() + live.unwrap_or_default()
    }

    /// Closes the connection and lets the farewell leave.
    pub async fn close(self) {
        if let Some(live) = self.0.live.close().await {
            live.dialled.close(Code::H3_NO_ERROR.value() as u32).await;
        }
    }
}

impl Shared {
    /// The connection; where it was just made, also when the name was resolved.
    async fn live(&self) -> Result<(Rc<Live>, Option<Stamp>), ChannelError> {
        let make = async || Live::new(&self.dial, self.ahead.used(), &self.past).await;
        self.live.get(Live::is_open, make).await
    }

    async fn exchange(
        self: &Rc<Self>,
        live: &Rc<Live>,
        resolved: Option<Stamp>,
        request: &http::Request<Bytes>,
    ) -> Result<Box<ClientReply>, Unanswered> {
        let begun = MonoClock.now();
        let mut spoken = live.spoken();
        let error = match self.send(live, &mut spoken, resolved, request).await {
            Ok(reply) => return Ok(reply),
            Err(Failed::Stream(error)) => error,
            Err(Failed::Channel(error)) => {
                return Err(Unanswered {
                    error,
                    untouched: false,
                });
            }
        };
        let untouched = live.was_untouched(&spoken, &error).await;
        let explained = self.explained(&spoken.tracks, &error);
        Err(match (&error, explained) {
            // The connection ended before anything came.
            (StreamError::ConnectionError { .. }, ChannelError::Lost { address, detail })
                if resolved.is_none() =>
            {
                let error = ChannelError::NoReply { address, detail };
                // A closed port refuses the datagrams: after a long way that takes longer than a server's word.
                let socket = &live.dialled.socket;
                let refused = socket.is_refused() && socket.read_at() < begun;
                Unanswered {
                    untouched: refused || error.is_stale(begun),
                    error,
                }
            }
            (_, error) => Unanswered {
                error,
                untouched: untouched.unwrap_or(false),
            },
        })
    }

    async fn send(
        self: &Rc<Self>,
        live: &Rc<Live>,
        spoken: &mut Spoken,
        resolved: Option<Stamp>,
        request: &http::Request<Bytes>,
    ) -> Result<Box<ClientReply>, Failed> {
        let mut head = http::Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.headers_mut() = request.headers().clone();
        if live.dialled.is_early() {
            let mark = HeaderValue::from_static("1");
            head.headers_mut().insert(SAFE_TO_REPLAY, mark);
        }
        let idle = self.dial.idle_timeout;
        let begun = spoken.sender.send_request(head);
        let mut stream = live
            .timers
            .in_time(idle, pin!(begun))
            .await
            .map_err(|_| self.silent("stream for the request"))??;
        let track = spoken.tracks.get(stream.id().into_inner());
        let send = async {
            let sent = match request.body() {
                body if body.is_empty() => Ok(()),
                body => stream.send_data(body.clone()).await,
            };
            let written = MonoClock.now();
            let overlapped = match sent {
                Ok(()) => {
                    stream.finish().await?;
                    false
                }
                // The server has heard enough, and says why in its reply (RFC 9114, section 4.1).
                Err(StreamError::RemoteTerminate { code, .. }) if code == Code::H3_NO_ERROR => true,
                Err(error) => return Err(error),
            };
            Ok::<_, StreamError>((written, overlapped))
        };
        let (written, overlapped) = live
            .timers
            .in_time(idle, pin!(send))
            .await
            .map_err(|_| self.silent("room for the request"))??;
        let opening = Opening {
            resolved,
            transport_connected: None,
            connected: track.opened,
            written,
            overlapped,
        };
        let reply = ClientReply::new(self, live, spoken, stream, track, opening);
        let mut reply = Box::new(reply);
        live.timers
            .in_time(idle, pin!(reply.head()))
            .await
            .map_err(|_| self.silent("reply"))??;
        Ok(reply)
    }

    pub(super) fn silent(&self, what: &'static str) -> ChannelError {
        ChannelError::Timeout {
            address: self.dial.authority(),
            what,
            after: self.dial.idle_timeout,
        }
    }

    /// What went wrong, in the words of every channel.
    pub(super) fn explained(&self, tracks: &Tracks, error: &StreamError) -> ChannelError {
        let broken = match error {
            StreamError::StreamError { .. } | StreamError::HeaderTooBig { .. } => true,
            StreamError::ConnectionError { 0: error, .. } => {
                is_offence(error) || tracks.is_broken()
            }
            StreamError::Undefined { 0: cause, .. } => cause.is::<TooLong>(),
            _ => false,
        };
        let address = self.dial.authority();
        match broken {
            true => ChannelError::Protocol {
                address,
                reason: error.to_string(),
            },
            false => ChannelError::Lost {
                address,
                detail: error.to_string(),
            },
        }
    }
}
