//! The dialling end of `quic`.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;

use quinn::{ReadError, WriteError};
use tokenlag_probes::{Clock, MonoClock, Stamp};

use super::dialled::Dialled;
use super::reply::{ClientReply, Headless};
use super::upload::Upload;
use super::{ALPN, NOT_BEGUN, early};
use crate::kept::Kept;
use crate::timers::Timers;
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

/// A connection; what it counted is kept when its last exchange is over.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) dialled: Dialled,
    /// For what its exchanges wait for.
    pub(super) timers: Timers,
    /// The server takes no more exchanges on it.
    leaving: Cell<bool>,
    past: Rc<Cell<Counters>>,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.past.set(self.past.get() + self.dialled.counters());
    }
}

/// Why an exchange has no reply.
struct Unanswered {
    error: ChannelError,
    /// The server did not work on it: it can be sent again.
    untouched: bool,
}

impl From<ChannelError> for Unanswered {
    fn from(error: ChannelError) -> Self {
        Self {
            error,
            untouched: false,
        }
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
    /// No connection, or a peer that shows another certificate or speaks another protocol.
    pub async fn connect(&self) -> Result<(), ChannelError> {
        self.0.live().await.map(drop)
    }

    /// Waits for a turn to make a handshake, where the next exchange has to make a connection.
    pub(crate) async fn turn(&self) -> Result<TurnAhead<'_>, ChannelError> {
        let missing = || self.0.live.is_missing(Live::takes_more);
        self.0.ahead.take(&self.0.dial, missing).await
    }

    /// Sends a request on a stream of its own and waits for the reply's head.
    ///
    /// What the server says it did not begin, early data that it did not take among it, and what met a kept connection that
    /// the server turns out to have closed, is sent once more.
    ///
    /// # Errors
    /// No connection, one that ends or falls silent, or frames that break the format.
    pub async fn open(&self, request: &Request) -> Result<Box<ClientReply>, ChannelError> {
        let (live, resolved) = self.0.live().await?;
        match self.0.exchange(&live, resolved, request).await {
            Err(unanswered) if unanswered.untouched => {
                live.dialled.settled().await;
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
            live.dialled.close(0).await;
        }
    }
}

impl Shared {
    /// The connection; where it was just made, also when the name was resolved.
    async fn live(&self) -> Result<(Rc<Live>, Option<Stamp>), ChannelError> {
        let make = async || {
            let (dialled, resolved) =
                Dialled::new(&self.dial, ALPN, "QUIC", self.ahead.used()).await?;
            let live = Live {
                dialled,
                timers: Timers::default(),
                leaving: Cell::new(false),
                past: Rc::clone(&self.past),
            };
            Ok((live, resolved))
        };
        self.live.get(Live::takes_more, make).await
    }

    async fn exchange(
        self: &Rc<Self>,
        live: &Rc<Live>,
        resolved: Option<Stamp>,
        request: &Request,
    ) -> Result<Box<ClientReply>, Unanswered> {
        let bytes = if live.dialled.is_early() {
            early::marked(request.stream()?)?
        } else {
            request.stream()?.clone()
        };
        let idle = self.dial.idle_timeout;
        let (send, recv) = live
            .timers
            .in_time(idle, pin!(live.dialled.connection.open_bi()))
            .await
            .map_err(|_| self.silent("stream for the request"))?
            .map_err(|error| Unanswered {
                // Not a byte left. Where the connection is new, another would fare no better.
                untouched: resolved.is_none(),
                error: self.lost_by(&error),
            })?;
        let connected = MonoClock.now();
        let mut upload = Upload::new(send);
        let took = |bytes| live.dialled.socket.gave(bytes);
        let overlapped = match live
            .timers
            .in_time(idle, pin!(upload.write_all(&bytes, took)))
            .await
        {
            Ok(Ok(())) => false,
            // The server has heard enough, and says why in its reply.
            Ok(Err(WriteError::Stopped(code))) if !live.was_left(code.into_inner()) => true,
            Ok(Err(error)) => return Err(self.unsent(&error)),
            Err(_) => return Err(self.silent("room for the request").into()),
        };
        let written = MonoClock.now();
        // Where the stream has no end any more, the reply tells.
        upload.finish();
        let opening = Opening {
            resolved,
            transport_connected: None,
            connected,
            written,
            overlapped,
        };
        let reply = Box::new(ClientReply::new(self, live, recv, opening));
        reply.with_head().await.map_err(|headless| match headless {
            Headless::Channel(error) => error.into(),
            Headless::Read(error) => self.unanswered(live, &error, &opening),
        })
    }

    fn unsent(&self, error: &WriteError) -> Unanswered {
        Unanswered {
            untouched: matches!(error, WriteError::ZeroRttRejected | WriteError::Stopped(_)),
            error: self.lost_by(error),
        }
    }

    fn unanswered(&self, live: &Live, error: &ReadError, opening: &Opening) -> Unanswered {
        let kept = opening.resolved.is_none();
        match error {
            ReadError::ConnectionLost(why) if kept => {
                let error = ChannelError::NoReply {
                    address: self.dial.authority(),
                    detail: why.to_string(),
                };
                // A closed port refuses the datagrams: after a long way that takes longer than a server's word.
                let socket = &live.dialled.socket;
                let refused = socket.is_refused() && socket.read_at() < opening.written;
                Unanswered {
                    untouched: refused || error.is_stale(opening.written),
                    error,
                }
            }
            _ => Unanswered {
                untouched: match error {
                    ReadError::ZeroRttRejected => true,
                    ReadError::Reset(code) => live.was_left(code.into_inner()),
                    _ => false,
                },
                error: self.lost_by(error),
            },
        }
    }

    pub(super) fn lost(&self, detail: &dyn std::fmt::Display) -> ChannelError {
        ChannelError::Lost {
            address: self.dial.authority(),
            detail: detail.to_string(),
        }
    }

    /// The same with the error's cause, which quinn's own words leave out: they say that the connection is lost, and not why.
    pub(super) fn lost_by(&self, error: &dyn std::error::Error) -> ChannelError {
        match error.source() {
            Some(cause) => self.lost(&format_args!("{error}: {cause}")),
            None => self.lost(&error),
        }
    }

    pub(super) fn broken(&self, reason: &dyn std::fmt::Display) -> ChannelError {
        ChannelError::Protocol {
            address: self.dial.authority(),
            reason: reason.to_string(),
        }
    }

    pub(super) fn silent(&self, what: &'static str) -> ChannelError {
        ChannelError::Timeout {
            address: self.dial.authority(),
            what,
            after: self.dial.idle_timeout,
        }
    }
}

impl Live {
    fn takes_more(&self) -> bool {
        self.dialled.is_open() && !self.leaving.get()
    }

    /// Whether a stream's code says that the server takes no more exchanges; then no more are begun here.
    fn was_left(&self, code: u64) -> bool {
        let left = code == u64::from(NOT_BEGUN);
        self.leaving.set(self.leaving.get() || left);
        left
    }
}
