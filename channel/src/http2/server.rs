//! The accepting end of `http2`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use http::request::Parts;
use tokenlag_probes::Stamp;
use tokio::time::{Sleep, sleep};

use super::ledger::Ledger;
use super::link::{Link, Shared};
use super::nudge::{Known, Nudge};
use super::writer::Writing;
use super::{ReplyWriter, code_name, settings};
use crate::bounds::{ExchangeLimits, Pace, Room};
use crate::pieces::Pieces;
use crate::socket::Socket;
use crate::{Counters, ExchangeError, Incoming, fields};

/// A connection that was accepted. Its exchanges may be served by other tasks of the thread; [`Accepted::next_exchange`] must be
/// awaited all the while, since it is what reads.
#[derive(Debug)]
pub struct Accepted(Rc<Inner>);

/// What a connection's exchanges share.
#[derive(Debug)]
pub(crate) struct Inner {
    connection: RefCell<Connection<Link, Bytes>>,
    pub(crate) shared: Shared,
    pub(crate) limits: ExchangeLimits,
    pub(crate) room: Arc<Room>,
    is_tls: bool,
    /// Whoever drives the connection, it is the acceptor that is woken.
    pub(crate) nudge: Arc<Nudge>,
    waker: Waker,
    /// The task that accepts, as the nudge knows it.
    acceptor: RefCell<Known>,
    /// Exchanges that came while somebody else drove the connection.
    arrived: RefCell<VecDeque<Arrival>>,
    /// Runs while a head is there in part.
    patience: RefCell<Option<Pin<Box<Sleep>>>>,
    verdict: Cell<Option<&'static str>>,
    ended: Cell<bool>,
}

type Arrival = (Request<RecvStream>, SendResponse<Bytes>);

/// One stream of a connection: a request, and room for its reply.
#[derive(Debug)]
pub struct Exchange {
    /// Boxed, since the task that serves it is moved about before it runs.
    head: Box<Parts>,
    /// Read with its first byte.
    in_head: Stamp,
    body: RecvStream,
    writer: ReplyWriter,
}

impl Accepted {
    /// Opens the connection: settings go out, the client's preface comes in.
    ///
    /// # Errors
    /// The client does not speak HTTP/2, or is gone.
    pub(crate) async fn handshake(
        socket: Socket,
        limits: ExchangeLimits,
        room: Arc<Room>,
    ) -> Result<Self, h2::Error> {
        let shared = Shared::new(Ledger::accepting());
        let is_tls = socket.is_tls();
        let nudge = Nudge::new();
        let link = Link::accepted(socket, shared.clone(), &nudge);
        let connection = settings::server().handshake(link).await?;
        Ok(Self(Rc::new(Inner {
            connection: RefCell::new(connection),
            shared,
            limits,
            room,
            is_tls,
            waker: Waker::from(Arc::clone(&nudge)),
            nudge,
            acceptor: RefCell::default(),
            arrived: RefCell::default(),
            patience: RefCell::default(),
            verdict: Cell::new(None),
            ended: Cell::new(false),
        })))
    }

    /// The next exchange; `None` once the connection is over, by whichever end. May be cancelled without loss.
    pub async fn next_exchange(&self) -> Option<Exchange> {
        let inner = &self.0;
        let (request, respond) = poll_fn(|context| inner.poll_accept(context)).await?;
        let id = respond.stream_id().as_u32();
        let claimed = inner.shared.ledger().claim(id);
        if !claimed.newest {
            inner.nudge.again();
        }
        let (head, body) = request.into_parts();
        Some(Exchange {
            head: Box::new(head),
            in_head: claimed.head_at,
            body,
            writer: ReplyWriter::new(Rc::clone(inner), id, respond),
        })
    }

    /// Asks the client to begin no exchange any more (GOAWAY); those under way go on, and then the connection is over.
    pub fn drain(&self) {
        self.0.connection.borrow_mut().graceful_shutdown();
        self.0.push();
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        self.0.is_tls
    }

    /// Streams that were refused so far: the client had as many as it may.
    pub fn refused_streams(&self) -> u64 {
        self.0.shared.ledger().refused_streams()
    }

    /// Why the client was turned away; `None` where it left by itself.
    pub fn verdict(&self) -> Option<&'static str> {
        let said = self.0.shared.ledger().farewell();
        let error = said.filter(|&code| code != 0).map(code_name);
        self.0.verdict.get().or(error)
    }

    /// What the connection did so far.
    pub fn counters(&self) -> Counters {
        self.0.shared.ledger().counters
    }
}

impl Inner {
    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<Option<Arrival>> {
        let mut acceptor = self.acceptor.borrow_mut();
        self.nudge.is_for(context.waker(), &mut acceptor);
        drop(acceptor);
        if let Some(arrival) = self.arrived.borrow_mut().pop_front() {
            return Poll::Ready(Some(arrival));
        }
        // Where somebody else drove the connection since, nothing is left to do.
        if self.ended.get() || self.nudge.take_due() {
            // The library moves the connection on as far as it goes before it gives an exchange: where there is none after
            // it, nothing is left to do then either.
            let driven = self.drive(&mut Context::from_waker(&self.waker));
            if driven.is_ready() {
                return driven;
            }
        }
        self.poll_patience(context)
    }

    /// Moves the connection on.
    fn drive(&self, context: &mut Context<'_>) -> Poll<Option<Arrival>> {
        if self.ended.get() {
            return Poll::Ready(None);
        }
        let polled = self.connection.borrow_mut().poll_accept(context);
        match polled {
            Poll::Ready(Some(Ok(arrival))) => Poll::Ready(Some(arrival)),
            // What was wrong is in the GOAWAY that went out, or nobody is there to be told.
            Poll::Ready(Some(Err(_)) | None) => {
                self.ended.set(true);
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Gives up on a client that does not end the head which it began.
    fn poll_patience(&self, context: &mut Context<'_>) -> Poll<Option<Arrival>> {
        let mut patience = self.patience.borrow_mut();
        if !self.shared.has_half_a_head() {
            if patience.is_some() {
                *patience = None;
            }
            return Poll::Pending;
        }
        let timer = patience.get_or_insert_with(|| Box::pin(sleep(self.limits.head)));
        if timer.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        drop(patience);
        self.verdict.set(Some("slow_head"));
        self.shut(Reason::ENHANCE_YOUR_CALM);
        Poll::Ready(None)
    }

    /// Ends the connection, whatever is under way.
    fn shut(&self, reason: Reason) {
        self.connection.borrow_mut().abrupt_shutdown(reason);
        // What the socket does not take at once is not waited for.
        let mut nobody = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(_)) = self.drive(&mut nobody) {}
        self.ended.set(true);
    }

    /// Lets everything leave that the socket takes, now instead of when the connection's task has its turn.
    pub(crate) fn push(&self) {
        if self.ended.get() {
            return;
        }
        self.nudge.take_due();
        let mut context = Context::from_waker(&self.waker);
        let mut wake = false;
        while let Poll::Ready(arrival) = self.drive(&mut context) {
            wake = true;
            match arrival {
                Some(arrival) => self.arrived.borrow_mut().push_back(arrival),
                None => break,
            }
        }
        if wake || self.shared.has_half_a_head() {
            self.nudge.wake_task();
        }
    }
}

impl Exchange {
    /// The request's method.
    pub fn method(&self) -> &str {
        self.head.method.as_str()
    }

    /// The way to answer, without the request.
    pub fn into_writer(self) -> ReplyWriter {
        self.writer
    }

    /// Reads the whole request; gives it and the way to answer.
    ///
    /// # Errors
    /// The client is gone, too slow, or what it sent is no request. The stream is reset where the writer is dropped.
    pub async fn request(self) -> Result<(Incoming, ReplyWriter), (ExchangeError, ReplyWriter)> {
        let Self {
            head,
            in_head,
            body,
            mut writer,
        } = self;
        let id = writer.0.id;
        let read = read(body, in_head, &mut writer.0).await;
        let in_body = writer.0.server.shared.ledger().ended_at(id);
        match read.and_then(|body| fields::request(head, body, in_head, in_body)) {
            Ok(incoming) => Ok((incoming, writer)),
            Err(error) => Err((error, writer)),
        }
    }
}

/// Reads the whole body.
async fn read(
    mut body: RecvStream,
    in_head: Stamp,
    writing: &mut Writing,
) -> Result<Bytes, ExchangeError> {
    let Writing { server, share, .. } = writing;
    let pace = Pace::since(in_head, server.limits);
    let mut whole = Pieces::default();
    loop {
        let data = pace.wait(true, pin!(body.data())).await?;
        let Some(data) = data else {
            return Ok(whole.take());
        };
        let data = data.map_err(|error| ExchangeError::Gone(error.to_string()))?;
        // It is read: the client may send as much again. Where the stream has ended nothing is to be released.
        let _ = body.flow_control().release_capacity(data.len());
        if whole.len() + data.len() > server.limits.body {
            return Err(ExchangeError::TooLarge(server.limits.body));
        }
        share.grow(data.len())?;
        whole.push(data);
        if body.is_end_stream() {
            return Ok(whole.take());
        }
    }
}
