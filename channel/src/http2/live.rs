//! One connection of a client, driven by a task of its own, by whoever has just written to it, and by an exchange that waits alone.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use tokenlag_probes::Stamp;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::AbortHandle;

use super::ledger::Ledger;
use super::link::{Link, Shared};
use super::nudge::Nudge;
use super::{ALPN, settings};
use crate::timers::Timers;
use crate::{ChannelError, Counters, Dial, tcp};

/// Slots that are counted where the peer sets no bound.
const MOST_SLOTS: usize = 1 << 16;

/// A connection, shared by the exchanges on it.
#[derive(Debug)]
pub(crate) struct Live {
    /// `None` only while it is dropped.
    send: RefCell<Option<SendRequest<Bytes>>>,
    driver: Arc<Driver>,
    pub(crate) nudge: Arc<Nudge>,
    /// What the only exchange leaves with the library.
    own: Arc<Own>,
    own_waker: Waker,
    task: AbortHandle,
    pub(crate) shared: Shared,
    /// For what its exchanges wait for.
    pub(crate) timers: Timers,
    /// One permit for each stream that the peer allows at once.
    slots: Arc<Semaphore>,
    /// Slots that are taken.
    taken: Cell<usize>,
    /// Where its counters go in the end.
    past: Rc<Cell<Counters>>,
}

/// Room for one exchange on a connection.
#[derive(Debug)]
pub(crate) struct Slot(pub(crate) Rc<Live>);

impl Slot {
    /// A slot, where one is free.
    pub(crate) fn take(live: &Rc<Live>) -> Option<Self> {
        let permit = live.slots.try_acquire().ok()?;
        Some(Self::of(live, permit))
    }

    /// Waits for a slot; `None` where the connection takes no more exchanges.
    pub(crate) async fn wait(live: &Rc<Live>) -> Option<Self> {
        let permit = live.slots.acquire().await.ok()?;
        Some(Self::of(live, permit))
    }

    /// The permit is given back as the slot is dropped.
    fn of(live: &Rc<Live>, permit: SemaphorePermit<'_>) -> Self {
        permit.forget();
        live.taken.set(live.taken.get() + 1);
        Self(Rc::clone(live))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.taken.set(self.0.taken.get() - 1);
        self.0.slots.add_permits(1);
    }
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
        let shared = Shared::new(Ledger::default());
        let nudge = Nudge::new();
        let link = Link::dialled(made.socket, shared.clone(), &nudge);
        let (send, connection) = settings::client()
            .handshake(link)
            .await
            .map_err(|error| refused(error.to_string()))?;
        let slots = Arc::new(Semaphore::new(0));
        let driver = Arc::new(Driver(Mutex::new(Driven {
            connection: Some(connection),
            waker: Waker::from(Arc::clone(&nudge)),
            allowed: 0,
            slots: Arc::clone(&slots),
        })));
        let (driven, its_nudge) = (Arc::clone(&driver), Arc::clone(&nudge));
        // A plain task, so that a client needs no LocalSet.
        let task = tokio::spawn(poll_fn(move |context| {
            its_nudge.is_for(context.waker());
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
            task: task.abort_handle(),
            shared,
            timers: Timers::default(),
            slots,
            taken: Cell::default(),
            past: Rc::clone(past),
        };
        // The settings leave now, and the slots become known.
        live.push();
        let made = Made {
            resolved: made.resolved,
            transport_connected: made.transport_connected,
        };
        Ok((live, made))
    }

    /// A handle on which one request can be sent; `None` where the connection takes no more. Not the one that is kept: it would
    /// hold on to a stream that is given up before the peer allows it.
    pub(crate) fn sender(&self) -> Option<SendRequest<Bytes>> {
        self.is_open().then(|| self.send.borrow().clone()).flatten()
    }

    /// Whether the connection takes requests.
    fn is_open(&self) -> bool {
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

    /// Waits for something that the connection brings. The only exchange on it drives it meanwhile: to wake the task, only
    /// to be woken by it, would be a turn more for both.
    pub(crate) async fn brings<T>(&self, mut wanted: impl Future<Output = T> + Unpin) -> T {
        let _leave = Leave(&self.nudge);
        // Whether what is waited for was left our own waker, which then tells when to ask again.
        let mut asked = false;
        poll_fn(|context| {
            if self.taken.get() > 1 {
                self.nudge.leave();
                asked = false;
                return Pin::new(&mut wanted).poll(context);
            }
            if self.nudge.is_due() {
                self.own.driving.store(true, Ordering::Release);
                self.push();
                self.own.driving.store(false, Ordering::Release);
            }
            // Before it can be woken, from another thread too: a wake that found no guest would only reach the task, which has
            // nothing to do with it.
            self.nudge.host(context.waker());
            if !self.own.woken.swap(false, Ordering::AcqRel) && asked {
                return Poll::Pending;
            }
            asked = true;
            Pin::new(&mut wanted).poll(&mut Context::from_waker(&self.own_waker))
        })
        .await
    }

    /// Whether the connection takes requests, after all that the peer has said: a farewell may lie in the socket.
    pub(crate) fn is_good(&self) -> bool {
        if self.nudge.has_news() {
            self.push();
        }
        self.is_open()
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

/// Leaves the connection to its task when a wait is over or given up.
struct Leave<'a>(&'a Nudge);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.leave();
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
    /// Streams that the peer allows at once, as far as the slots know.
    allowed: usize,
    slots: Arc<Semaphore>,
}

impl Driven {
    fn drive(&mut self) -> Poll<()> {
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(());
        };
        let polled = Pin::new(&mut *connection).poll(&mut Context::from_waker(&self.waker));
        let allowed = connection.max_concurrent_send_streams().min(MOST_SLOTS);
        if allowed > self.allowed {
            self.slots.add_permits(allowed - self.allowed);
        } else if allowed < self.allowed {
            // Exchanges that hold a slot keep it; the library makes those wait that are too many by then.
            self.slots.forget_permits(self.allowed - allowed);
        }
        self.allowed = allowed;
        if polled.is_ready() {
            // How it ended each exchange learns from its own stream.
            self.connection = None;
            self.slots.close();
        }
        polled.map(drop)
    }
}
