//! One client's WebSocket, from its opening to its end: reads messages and lets exchanges run side by side.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use tokenlag_channel::ws::{Farewell, Received, Text, WebSocket};
use tokenlag_channel::{ExchangeError, Share};
use tokenlag_dialect::responses::BadRequest;
use tokenlag_probes::Stamp;
use tokio::select;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::exchange::{self, Message};
use super::lanes::Lanes;
use super::limits::{WAITING, WsLimits};
use super::memory::Memory;
use super::pulse::{Pulse, Reading, overdue};
use super::request::{Content, is_large};
use super::{broken, events};
use crate::worker::Worker;

/// What the exchanges of one connection share.
pub(super) struct Session {
    pub(super) worker: Rc<Worker>,
    pub(super) socket: WebSocket,
    /// The path that was opened, and asked upstream.
    pub(super) target: String,
    /// The opening's fields, as far as they concern the upstream.
    pub(super) fields: Vec<(Bytes, Bytes)>,
    pub(super) memory: Memory,
    pub(super) lanes: Lanes,
    pub(super) wants_timing: bool,
    limits: WsLimits,
    ending: Cell<Option<Ending>>,
    /// Nothing can be sent any more.
    gone: Cell<bool>,
    went: Notify,
    held: Cell<usize>,
    /// Something that was held is not any more.
    released: Notify,
}

/// Why no further create is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Aged,
    ShutDown,
}

/// A message's share of what the connection holds, and of what all connections hold together, until it is dropped.
pub(super) struct Held {
    session: Rc<Session>,
    bytes: usize,
    share: Share,
}

impl Session {
    pub(super) fn new(
        worker: Rc<Worker>,
        socket: WebSocket,
        target: &str,
        fields: Vec<(Bytes, Bytes)>,
        memory: Memory,
        wants_timing: bool,
    ) -> Self {
        Self {
            limits: worker.websocket,
            worker,
            socket,
            target: target.to_owned(),
            fields,
            memory,
            lanes: Lanes::default(),
            wants_timing,
            ending: Cell::default(),
            gone: Cell::default(),
            went: Notify::new(),
            held: Cell::default(),
            released: Notify::new(),
        }
    }

    /// Serves the connection to its end.
    pub(super) async fn serve(self: Rc<Self>) {
        let mut exchanges = JoinSet::new();
        let farewell = self.read(&mut exchanges).await;
        // Whoever is still at work finds that nobody listens.
        self.leave();
        while exchanges.join_next().await.is_some() {}
        match farewell {
            Some(farewell) => self.socket.close(Some(&farewell)).await,
            None => self.socket.close(None).await,
        }
    }

    /// Reads until the client is gone (`None`) or is to be told goodbye.
    async fn read(self: &Rc<Self>, exchanges: &mut JoinSet<()>) -> Option<Farewell> {
        let mut age = pin!(sleep(self.limits.age));
        let mut pulse = Pulse::new(self.limits.silence);
        let reading = Reading::default();
        loop {
            if let Some(ending) = self.ending.get()
                && exchanges.is_empty()
            {
                return Some(self.goodbye(ending).await);
            }
            let has_room = self.has_room();
            match has_room {
                true => reading.goes_on(),
                false => reading.pauses(),
            }
            select! {
                biased;
                Some(_) = exchanges.join_next() => {}
                received = self.socket.receive(), if has_room => match received {
                    Ok(Received::Text { text, in_head, in_body }) => {
                        let mut held = Held::new(self, text.len());
                        // What is read ahead is kept twice.
                        let copies = if is_large(&text) { 2 } else { 1 };
                        let content = match held.take(copies * text.len()) {
                            Ok(()) if is_large(&text) => {
                                self.unless_gone(Content::ahead(text, &self.worker)).await??
                            }
                            // For its lane alone it is not worth the while.
                            Err(_) if is_large(&text) => Content::Dropped,
                            _ => Content::Text(text),
                        };
                        let message = Message { content, in_head, in_body, held };
                        self.begin(exchanges, exchange::serve(Rc::clone(self), message)).await;
                    }
                    Ok(Received::Binary(_)) => {
                        self.begin(exchanges, exchange::refuse_binary(Rc::clone(self))).await;
                    }
                    Ok(Received::Closed(_)) => return None,
                    Ok(Received::Stalled) => {
                        self.worker.book.metrics.refused("ws", "stalled");
                        return None;
                    }
                    Err(farewell) => {
                        self.worker.book.metrics.refused("ws", broken(&farewell));
                        return Some(farewell);
                    }
                },
                () = self.released.notified(), if !has_room => {}
                // One that is not read on cannot show a sign of life.
                beat = pulse.missed(&self.socket), if has_room => {
                    if beat.is_too_many() && !exchanges.is_empty() {
                        self.worker.book.metrics.refused("ws", "silent");
                        return None;
                    }
                    self.unless_gone(self.socket.ping()).await?.ok()?;
                }
                () = overdue(&self.socket, &reading, self.limits.message), if has_room => {
                    let why = "a message took too long to come";
                    let farewell = Farewell::new(Farewell::POLICY, why);
                    self.worker.book.metrics.refused("ws", broken(&farewell));
                    return Some(farewell);
                }
                () = &mut age, if self.ending.get().is_none() => self.ending.set(Some(Ending::Aged)),
                () = self.worker.draining(), if self.ending.get().is_none() => {
                    self.ending.set(Some(Ending::ShutDown));
                }
                () = self.gone() => return None,
            }
        }
    }

    /// Lets an exchange run beside the others. It is polled here first: exchanges take their places in the order of their
    /// messages, and a request leaves without waiting for a task to be woken.
    async fn begin(
        &self,
        exchanges: &mut JoinSet<()>,
        exchange: impl Future<Output = ()> + 'static,
    ) {
        let mut exchange = Box::pin(exchange);
        let at_once = poll_fn(|context| Poll::Ready(exchange.as_mut().poll(context))).await;
        if at_once.is_pending() {
            exchanges.spawn_local(exchange);
        }
    }

    fn has_room(&self) -> bool {
        self.lanes.waiting() < WAITING && self.held.get() < self.limits.held
    }

    /// The event that answers a create which comes too late.
    pub(super) fn takes_no_more(&self, lane: Option<&str>) -> Option<Text> {
        Some(match self.ending.get()? {
            Ending::Aged => self.aged(lane),
            Ending::ShutDown => events::failed(&events::shutting_down(), lane),
        })
    }

    fn aged(&self, lane: Option<&str>) -> Text {
        let minutes = self.limits.age.as_secs() / 60;
        events::ours(BadRequest::connection_limit_reached(minutes).to_event(lane))
    }

    /// The last that is said on a connection whose exchanges have all ended.
    async fn goodbye(&self, ending: Ending) -> Farewell {
        let why = match ending {
            Ending::Aged => {
                self.worker.book.metrics.refused("ws", "aged");
                // The client may be gone already.
                let _ = self.send([self.aged(None)]).await;
                "the connection is as old as it may get"
            }
            Ending::ShutDown => "the proxy is shutting down",
        };
        Farewell::new(Farewell::GOING_AWAY, why)
    }

    /// Sends messages; the stamp was taken before the write that carried the last of them.
    pub(super) async fn send(&self, texts: impl IntoIterator<Item = Text>) -> io::Result<Stamp> {
        let sent = self.unless_gone(self.socket.send(texts)).await;
        match sent {
            Some(Err(error)) => {
                if error.kind() == io::ErrorKind::TimedOut && !self.gone.get() {
                    self.worker.book.metrics.refused("ws", "stalled");
                }
                self.leave();
                Err(error)
            }
            Some(sent) => sent,
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn leave(&self) {
        self.gone.set(true);
        self.went.notify_waiters();
    }

    /// Returns when nothing can be sent any more.
    pub(super) async fn gone(&self) {
        let went = self.went.notified();
        if !self.gone.get() {
            went.await;
        }
    }

    /// Sees a future to its end; `None` where the connection ends first.
    pub(super) async fn unless_gone<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        select! {
            biased;
            output = future => Some(output),
            () = self.gone() => None,
        }
    }
}

impl Held {
    fn new(session: &Rc<Session>, bytes: usize) -> Self {
        session.held.set(session.held.get() + bytes);
        Self {
            session: Rc::clone(session),
            bytes,
            share: session.socket.share(),
        }
    }

    /// Takes `bytes` more of what all connections have together.
    ///
    /// # Errors
    /// There is no room: it has none at all from now on.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), ExchangeError> {
        let taken = self.share.resize(self.share.bytes() + bytes);
        if taken.is_err() {
            // It became less.
            let _ = self.share.resize(0);
        }
        taken
    }

    /// Whether there was room for the message.
    pub(super) fn has_room(&self) -> bool {
        self.share.bytes() > 0 || self.bytes == 0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let session = &self.session;
        session.held.set(session.held.get() - self.bytes);
        session.released.notify_one();
    }
}
