//! The dialling end whose sessions share WebSockets.

use std::cell::RefCell;
use std::rc::Rc;

use tokenlag_probes::{Clock, MonoClock, Stamp};

use super::exchange::Exchange;
use super::name;
use super::seats::{Seat, Shared};
use crate::{ChannelError, Chunk, Counters, Dial, Opening, Request};

/// A client whose sessions share WebSockets, each in a lane of its own. Clones are of the same session. Needs a local set.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Rc<Shared>,
    /// This session's lane, once it has asked for something.
    seat: Rc<RefCell<Option<Rc<Seat>>>>,
}

impl Client {
    /// A client that will dial when it is first needed.
    pub fn new(dial: Dial) -> Self {
        Self {
            shared: Shared::new(dial),
            seat: Rc::default(),
        }
    }

    /// The same connections, for another session.
    #[must_use]
    pub fn for_session(&self) -> Self {
        Self {
            shared: Rc::clone(&self.shared),
            seat: Rc::default(),
        }
    }

    /// Connections that sessions share, lost ones that nobody has made anew among them.
    #[cfg(test)]
    pub(super) fn groups(&self) -> usize {
        self.shared.groups()
    }

    /// Connects now, where no connection is there.
    ///
    /// # Errors
    /// No connection, or a server that does not open a WebSocket.
    pub async fn connect(&self) -> Result<(), ChannelError> {
        self.seat().live().await.map(drop)
    }

    /// Writes the session's lane into a request, so that it need not be done as the request is sent.
    ///
    /// # Errors
    /// [`ChannelError::Request`] where it was rendered for another transport.
    pub fn address(&self, request: &mut Request) -> Result<(), ChannelError> {
        request.put_into_lane(&name(self.seat().lane))
    }

    /// Sends a request as one message, in the session's lane.
    ///
    /// # Errors
    /// No connection, or one that ends, or a lane that is not free in time.
    pub async fn open(&self, request: &Request) -> Result<Box<ClientReply>, ChannelError> {
        let seat = self.seat();
        let text = request.in_lane(&name(seat.lane))?;
        let (live, made) = seat.live().await?;
        let exchange = Exchange::begin(live, seat).await?;
        let connected = MonoClock.now();
        let written = exchange.send(text).await?;
        let opening = Opening {
            resolved: made.map(|made| made.resolved),
            transport_connected: made.map(|made| made.transport_connected),
            connected,
            written,
            overlapped: exchange.began_before(written),
        };
        Ok(Box::new(ClientReply {
            exchange,
            opening,
            head_at: None,
            last: None,
        }))
    }

    /// What all sessions' connections did so far; what they did below their bytes is booked, where that is watched
    /// ([`SocketWatch`]).
    ///
    /// [`SocketWatch`]: crate::SocketWatch
    pub fn counters(&self) -> Counters {
        self.shared.book();
        self.counted()
    }

    /// The same without a look at the sockets, which is a system call for each.
    pub fn counted(&self) -> Counters {
        self.shared.counters()
    }

    /// Says goodbye on the connections of all sessions and closes them.
    pub async fn close(self) {
        self.shared.close().await;
    }

    /// The session's lane. One in which the server still works on a response that was given up is left to it.
    fn seat(&self) -> Rc<Seat> {
        let mut seat = self.seat.borrow_mut();
        match &*seat {
            Some(seat) if !seat.is_given_up() => Rc::clone(seat),
            _ => Rc::clone(seat.insert(Rc::new(self.shared.seat()))),
        }
    }
}

/// The messages that answer a request. Dropped before [`Self::finish`], it gives the response up; the connection lives on.
#[derive(Debug)]
pub struct ClientReply {
    exchange: Exchange,
    opening: Opening,
    head_at: Option<Stamp>,
    /// The read that brought the last chunk, and how many that brought chunks came before it.
    last: Option<(u64, u32)>,
}

impl ClientReply {
    pub(crate) fn opening(&self) -> Opening {
        self.opening
    }

    pub(crate) fn head_at(&self) -> Option<Stamp> {
        self.head_at
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Chunk>, ChannelError> {
        let event = self.exchange.next().await?;
        self.head_at.get_or_insert(event.begun);
        let ordinal = match self.last {
            None => 0,
            Some((read, ordinal)) if read == event.read => ordinal,
            Some((_, ordinal)) => ordinal + 1,
        };
        self.last = Some((event.read, ordinal));
        Ok(Some(Chunk {
            at: event.at,
            ordinal,
            bytes: event.bytes,
        }))
    }

    pub(crate) fn finish(self) {
        self.exchange.finish();
    }
}
