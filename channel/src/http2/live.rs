//! One connection of a client, driven by a task of its own, by whoever has just written to it, and by an exchange that waits alone.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use tokenlag_probes::Stamp;
use tokio::task::AbortHandle;

use super::ledger::Ledger;
use super::link::{Link, Shared};
use super::nudge::{Known, Nudge};
use super::slots::{Allowed, Slots};
use super::{ALPN, settings};
use crate::bounds::TooLate;
use crate::timers::{Timers, Wait};
use crate::{ChannelError, Counters, Dial, Socket, tcp};

/// A connection, shared by the exchanges on it.
#[derive(Debug)]
pub(crate) struct Live {
    /// `None` only while it is dropped.
    send: RefCell<Option<SendRequest<Bytes>>>,
    driver: Arc<Driver>,
    pub(crate) nudge: Arc<Nudge>,
    /// Who drove the connection last instead of its task.
    guest: RefCell<Known>,
    /// What the only exchange leaves with the library.
    own: Arc<Own>,
    own_waker: Waker,
    task: AbortHandle,
    pub(crate) shared: Shared,
    /// For what its exchanges wait for.
    pub(crate) timers: Timers,
    pub(crate) slots: Slots,
    /// Where its counters go in the end.
    past: Rc<Cell<Counters>>,
}

/// The stamps of a connection's making.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    pub(crate) resolved: Stamp,
    pub(crate) transport_connected: Stamp,
}

impl Live {
    /// Connects: prior knowledge in clear, ALPN inside TLS.
    pub(crate) async fn dial(
        dial: &Dial,
        past: &Rc<Cell<Counters>>,
    ) -> Result<(Self, Made), ChannelError> {
        let made = tcp::dial(dial, &[ALPN]).await?;
        let refused = |reason: String| ChannelError::Handshake {
            address: dial.authority(),
            protocol: "HTTP/2",
            reason,
        };
        if made.socket.is_tls() && made.socket.protocol() != Some(ALPN) {
            let why = "it does not offer h2 inside TLS (ALPN); use the channel http with it";
            return Err(refused(why.to_owned()));
        }
        let live = Self::over(made.socket, past).await;
        let live = live.map_err(|error| refused(error.to_string()))?;
        let made = Made {
            resolved: made.resolved,
            transport_connected: made.transport_connected,
        };
        Ok((live, made))
    }

    /// A connection over a socket on which nothing was said yet.
    pub(super) async fn over(socket: Socket, past: &Rc<Cell<Counters>>) -> Result<Self, h2::Error> {
        let shared = Shared::new(Ledger::default());
        let nudge = Nudge::new();
        let link = Link::dialled(socket, shared.clone(), &nudge);
        let (send, connection) = settings::client().handshake(link).await?;
        let allowed = Arc::<Allowed>::default();
        let driver = Arc::new(Driver(Mutex::new(Driven {
            connection: Some(connection),
            waker: Waker::from(Arc::clone(&nudge)),
            shared: shared.clone(),
            allowed: Arc::clone(&allowed),
        })));
        let (driven, its_nudge) = (Arc::clone(&driver), Arc::clone(&nudge));
        let mut known = Known::default();
        // A plain task, so that a client needs no LocalSet.
        let task = tokio::spawn(poll_fn(move |context| {
            its_nudge.is_for(context.waker(), &mut known);
            // Where somebody else drove the connection since, nothing is left to do.
            match its_nudge.take_due() {
                true => driven.state().drive(),
                false => Poll::Pending,
            }
        }));
        let own = Arc::new(Own {
            nudge: Arc::clone(&nudge),
            driving: AtomicBool::new(false),
            woken: AtomicBool::new(false),
        });
        let live = Self {
            own_waker: Waker::from(Arc::clone(&own)),
            own,
            send: RefCell::new(Some(send)),
            driver,
            nudge,
            guest: RefCell::default(),
            task: task.abort_handle(),
            shared,
            timers: Timers::default(),
            slots: Slots::new(allowed),
            past: Rc::clone(past),
        };
        // The settings leave now, and the slots become known.
        live.push();
        Ok(live)
    }

    /// A handle on which one request can be sent; `None` while the connection is dropped. Not the one that is kept: it would
    /// hold on to a stream that is given up before the peer allows it.
    pub(crate) fn sender(&self) -> Option<SendRequest<Bytes>> {
        self.send.borrow().clone()
    }

    /// Whether the connection takes requests.
    pub(crate) fn is_open(&self) -> bool {
        // No request is sent on this handle, so that it never waits: it is only told whether the connection is good.
        let mut nobody = Context::from_waker(Waker::noop());
        let mut send = self.send.borrow_mut();
        let ready = send.as_mut().map(|send| send.poll_ready(&mut nobody));
        matches!(ready, Some(Poll::Ready(Ok(())))) && !self.slots.is_closed()
    }

    /// Lets everything leave that the socket takes, now instead of when the connection's task has its turn.
    pub(crate) fn push(&self) {
        self.nudge.take_due();
        if self.driver.state().drive().is_ready() {
            self.task.abort();
        }
    }

    /// Waits so long for something that the connection brings. The only exchange on it drives it meanwhile: to wake the task,
    /// only to be woken by it, would be a turn more for both.
    ///
    /// # Errors
    /// It was not there in time.
    pub(crate) async fn brings<T>(
        &self,
        limit: Duration,
        mut wanted: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<T, TooLate> {
        let mut found = None;
        let mut waiting = Waiting {
            live: self,
            limit: self.timers.wait(limit),
            asked: false,
        };
        poll_fn(|context| {
            waiting.poll(context, &mut |context| {
                wanted(context).map(|wanted| found = Some(wanted))
            })
        })
        .await;
        found.ok_or(TooLate)
    }

    /// Whether the connection takes requests, after all that the peer has said: a farewell may lie in the socket.
    pub(crate) fn is_good(&self) -> bool {
        if self.nudge.has_news() {
            self.push();
        }
        self.is_open()
    }

    /// Books what the connection did below its bytes, where that is watched. It is booked with its end in any case.
    pub(crate) fn book(&self) {
        // The library has the socket: it is looked at as it is driven once more, when all that could be read and written was.
        self.push();
        self.shared.want_look();
        self.push();
    }

    pub(crate) fn counters(&self) -> Counters {
        self.shared.ledger().counters
    }
}

/// Wakes the exchange that drives the connection, unless it does so now: it looks afterwards anyway.
#[derive(Debug)]
struct Own {
    nudge: Arc<Nudge>,
    driving: AtomicBool,
    /// Since the exchange last looked.
    woken: AtomicBool,
}

impl Wake for Own {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        if !self.driving.load(Ordering::Acquire) {
            self.nudge.wake_task();
        }
    }
}

/// A wait for something that the connection brings. It leaves the connection to its task when it is over or given up.
struct Waiting<'a> {
    live: &'a Live,
    limit: Wait<'a>,
    /// Whether what is waited for was left our own waker, which then tells when to ask again.
    asked: bool,
}

impl Waiting<'_> {
    /// Ready once `wanted` is, or too late. (One function for all that is waited for: in the course of an exchange it is
    /// several things, and its code is to be fetched once.)
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        wanted: &mut dyn FnMut(&mut Context<'_>) -> Poll<()>,
    ) -> Poll<()> {
        match self.poll_wanted(context, wanted) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => self.limit.poll_over(context),
        }
    }

    fn poll_wanted(
        &mut self,
        context: &mut Context<'_>,
        wanted: &mut dyn FnMut(&mut Context<'_>) -> Poll<()>,
    ) -> Poll<()> {
        let live = self.live;
        if live.slots.taken() > 1 {
            live.nudge.leave();
            self.asked = false;
            return wanted(context);
        }
        if live.nudge.is_due() {
            live.own.driving.store(true, Ordering::Release);
            live.push();
            live.own.driving.store(false, Ordering::Release);
        }
        // Before it can be woken, from another thread too: a wake that found no guest would only reach the task, which has
        // nothing to do with it.
        let mut guest = live.guest.borrow_mut();
        live.nudge.host(context.waker(), &mut guest);
        drop(guest);
        let woken = &live.own.woken;
        let woken = woken.load(Ordering::Acquire) && woken.swap(false, Ordering::AcqRel);
        if !woken && self.asked {
            return Poll::Pending;
        }
        self.asked = true;
        wanted(&mut Context::from_waker(&live.own_waker))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.live.nudge.leave();
    }
}

/// Says goodbye: the library sends GOAWAY once nobody can send on the connection any more. What does not leave at once
/// is not waited for.
impl Drop for Live {
    fn drop(&mut self) {
        self.send.take();
        self.push();
        self.driver.state().connection = None;
        self.task.abort();
        self.past.set(self.past.get() + self.counters());
    }
}

/// The connection's own side. Its task and its exchanges are on one thread: the lock is never waited for.
#[derive(Debug)]
struct Driver(Mutex<Driven>);

impl Driver {
    fn state(&self) -> MutexGuard<'_, Driven> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Driven {
    /// `None` once it is over.
    connection: Option<Connection<Link, Bytes>>,
    /// Whoever drives the connection, it is the task that is woken.
    waker: Waker,
    shared: Shared,
    /// What the slots know of the peer.
    allowed: Arc<Allowed>,
}

impl Driven {
    fn drive(&mut self) -> Poll<()> {
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(());
        };
        let polled = Pin::new(&mut *connection).poll(&mut Context::from_waker(&self.waker));
        if self.shared.take_settled() {
            self.allowed.set(connection.max_concurrent_send_streams());
        }
        if polled.is_ready() {
            // How it ended each exchange learns from its own stream.
            self.connection = None;
            self.allowed.close();
        }
        polled.map(drop)
    }
}
