//! One connection and its lanes. Its task reads it, and hands each event to the exchange of its lane.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokenlag_dialect::responses::{ends_connection, event_lane, message_type};
use tokenlag_probes::Stamp;
use tokio::select;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::lane::{Event, Lane, Next};
use super::{NAMES, UNREAD, lane_of};
use crate::timers::Timers;
use crate::ws::opening::open_as_said;
use crate::ws::{Farewell, Received, Text, WebSocket};
use crate::{ChannelError, Counters, Dial};

/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_millis(200);

/// A connection that is read.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) line: Rc<Line>,
    /// For what its exchanges wait for.
    pub(super) timers: Timers,
    reading: AbortHandle,
    /// Where its counters go in the end.
    past: Rc<Cell<Counters>>,
}

/// The stamps of a connection's making.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    pub(super) resolved: Stamp,
    pub(super) transport_connected: Stamp,
}

/// A connection and its lanes.
#[derive(Debug)]
pub(super) struct Line {
    socket: WebSocket,
    address: String,
    /// Borrowed within one poll, never across an await.
    lanes: RefCell<Vec<Lane>>,
    /// Why nothing more comes.
    end: RefCell<Option<ChannelError>>,
    /// The server takes no more exchanges on it.
    leaving: Cell<bool>,
    /// A message may have left in part whose exchange was given up.
    unfinished: Notify,
    /// A lane became idle, or none ever will.
    freed: Notify,
}

impl Live {
    /// Connects. Must run within a local set: the connection is read by a task of its own.
    pub(super) async fn dial(
        dial: &Dial,
        past: &Rc<Cell<Counters>>,
    ) -> Result<(Self, Made), ChannelError> {
        let opened = open_as_said(dial).await?;
        let socket = WebSocket::new(opened.socket, Role::Client, dial.idle_timeout, None);
        let line = Rc::new(Line {
            socket: socket.await,
            address: dial.authority(),
            lanes: RefCell::new((0..NAMES).map(|_| Lane::default()).collect()),
            end: RefCell::default(),
            leaving: Cell::default(),
            unfinished: Notify::new(),
            freed: Notify::new(),
        });
        let read = Rc::clone(&line);
        let live = Self {
            line,
            timers: Timers::default(),
            reading: spawn_local(async move { read.serve().await }).abort_handle(),
            past: Rc::clone(past),
        };
        let made = Made {
            resolved: opened.resolved,
            transport_connected: opened.transport_connected,
        };
        Ok((live, made))
    }

    /// Whether it takes new exchanges.
    pub(super) fn is_good(&self) -> bool {
        self.line.end.borrow().is_none() && !self.line.leaving.get()
    }

    /// Says goodbye, whatever is under way.
    pub(super) async fn close(&self) {
        self.reading.abort();
        let farewell = Farewell::new(Farewell::NORMAL, "");
        // A peer that does not answer is left without an answer.
        let _ = timeout(FAREWELL, self.line.socket.close(Some(&farewell))).await;
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.reading.abort();
        self.past.set(self.past.get() + self.line.counters());
    }
}

impl Line {
    /// Reads to the connection's end, and tells all who wait for an answer.
    async fn serve(&self) {
        let (error, farewell) = select! {
            biased;
            ended = self.read() => ended,
            error = self.flush() => (error, None),
        };
        *self.end.borrow_mut() = Some(error);
        self.lanes_mut().iter_mut().for_each(Lane::wake);
        self.freed.notify_waiters();
        self.socket.close(farewell.as_ref()).await;
    }

    /// Reads until there is nothing more to be read: why, and what the peer is to be told.
    async fn read(&self) -> (ChannelError, Option<Farewell>) {
        loop {
            let (begun, at, bytes) = match self.socket.receive().await {
                Ok(Received::Text {
                    text,
                    in_head,
                    in_body,
                }) => (in_head, in_body, text.into()),
                Ok(Received::Binary(bytes)) => {
                    (self.socket.read_at(), self.socket.read_at(), bytes)
                }
                Ok(Received::Closed(None)) => return (self.lost("end of stream"), None),
                Ok(Received::Closed(Some(said))) => {
                    let detail = format!("close frame {}: {}", said.code, said.reason);
                    return (self.lost(detail.trim_end_matches([':', ' '])), None);
                }
                Ok(Received::Stalled) => {
                    return (self.lost("it takes no answer to its pings"), None);
                }
                Err(farewell) => return (self.broken(farewell.reason.clone()), Some(farewell)),
            };
            let read = self.socket.reads();
            let event = Event {
                begun,
                at,
                read,
                bytes,
            };
            if let Err(reason) = self.deliver(event) {
                let farewell = Farewell::new(Farewell::PROTOCOL, &reason);
                return (self.broken(reason), Some(farewell));
            }
        }
    }

    /// Hands an event to whom it concerns.
    ///
    /// # Errors
    /// It concerns nobody: why.
    fn deliver(&self, event: Event) -> Result<(), String> {
        let lane = match event_lane(&event.bytes) {
            Ok(Some(name)) => match lane_of(&name) {
                Some(lane) if self.lanes()[lane].was_used() => lane,
                _ => {
                    return Err(format!(
                        "an event is for the lane {:?}, in which nothing was asked",
                        &name[..name.floor_char_boundary(64)]
                    ));
                }
            },
            Ok(None) => return self.deliver_to_all(&event),
            Err(error) => return Err(format!("an event is {error}")),
        };
        // One lane is told of it; no other needs to ask in vain.
        if ends_connection(&event.bytes) {
            self.leaving.set(true);
        }
        if self.lanes_mut()[lane].take(event) {
            self.freed.notify_waiters();
        }
        Ok(())
    }

    /// What names no lane concerns the connection: all who wait for an answer are told.
    fn deliver_to_all(&self, event: &Event) -> Result<(), String> {
        let kind = message_type(&event.bytes).unwrap_or_default();
        if kind.starts_with("response.") {
            return Err(format!(
                "a {kind} names no lane, and all requests did; it serves no lanes: do without --multiplex"
            ));
        }
        if kind == "error" {
            self.leaving.set(true);
        }
        let mut lanes = self.lanes_mut();
        for lane in lanes.iter_mut().filter(|lane| lane.is_answering()) {
            lane.take(Event {
                bytes: Bytes::clone(&event.bytes),
                ..*event
            });
        }
        Ok(())
    }

    /// Sees messages leave whose exchanges were given up while a part of them had left. Returns where that fails.
    async fn flush(&self) -> ChannelError {
        loop {
            self.unfinished.notified().await;
            if let Err(error) = self.socket.flush().await {
                return self.lost(&error);
            }
        }
    }

    /// Sends a request; `begun` is set once some of it may have left. The stamp was taken before the write that carried the
    /// last of it.
    pub(super) async fn send(&self, text: Text, begun: &Cell<bool>) -> io::Result<Stamp> {
        let sent = self.socket.send_noting(text, begun).await;
        // Nothing can be sent any more, also where its end was not read yet.
        self.leaving.set(self.leaving.get() || sent.is_err());
        sent
    }

    /// A message may have left in part, and nobody sees to the rest.
    pub(super) fn leave_unfinished(&self) {
        self.unfinished.notify_one();
    }

    /// The next event of the exchange in `lane`.
    pub(super) fn poll_next(
        &self,
        lane: u8,
        context: &Context<'_>,
    ) -> Poll<Result<Event, ChannelError>> {
        match self.lane(lane).poll_next(context) {
            Poll::Ready(Next::Event(event)) => Poll::Ready(Ok(event)),
            Poll::Ready(Next::CutOff) => Poll::Ready(Err(ChannelError::Unread {
                address: self.address.clone(),
                most: UNREAD,
            })),
            Poll::Pending => match &*self.end.borrow() {
                Some(end) => Poll::Ready(Err(end.clone())),
                None => Poll::Pending,
            },
        }
    }

    /// One of its lanes.
    pub(super) fn lane(&self, lane: u8) -> RefMut<'_, Lane> {
        RefMut::map(self.lanes_mut(), |lanes| &mut lanes[usize::from(lane)])
    }

    /// Ends the exchange in `lane`, `over` where the server works on it no more.
    pub(super) fn leave(&self, lane: u8, over: bool) {
        self.lane(lane).leave(over);
        self.freed.notify_waiters();
    }

    /// Returns once a lane may have become idle.
    pub(super) fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    /// Why nothing more comes, where that is so.
    pub(super) fn ended(&self) -> Option<ChannelError> {
        self.end.borrow().clone()
    }

    /// The lanes in which something is under way, one bit each.
    pub(super) fn busy(&self) -> u32 {
        let lanes = self.lanes();
        let numbered = lanes.iter().enumerate();
        let busy = numbered.filter(|(_, lane)| !lane.is_idle());
        busy.fold(0, |busy, (number, _)| busy | 1 << number)
    }

    /// Books what the connection did below its bytes.
    pub(super) fn book(&self) {
        self.socket.book();
    }

    pub(super) fn counters(&self) -> Counters {
        self.socket.counters()
    }

    fn lanes(&self) -> Ref<'_, Vec<Lane>> {
        self.lanes.borrow()
    }

    fn lanes_mut(&self) -> RefMut<'_, Vec<Lane>> {
        self.lanes.borrow_mut()
    }

    pub(super) fn lost(&self, detail: impl ToString) -> ChannelError {
        ChannelError::Lost {
            address: self.address.clone(),
            detail: detail.to_string(),
        }
    }

    fn broken(&self, reason: String) -> ChannelError {
        ChannelError::Protocol {
            address: self.address.clone(),
            reason,
        }
    }
}
