//! What one thread of the proxy works with. Connections stay on the thread that took them.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokenlag_channel::BaseUrl;
use tokenlag_probes::{StateAt, Transport};
use tokio::sync::{Mutex, watch};
use tokio::task::coop::has_budget_remaining;
use tokio::time::timeout;

use crate::archive::CREDENTIALS;
use crate::book::Book;
use crate::carried::{ByChannel, Carried, Total};
use crate::front::WsLimits;
use crate::front::tcp::Door;
use crate::kind::Kind;
use crate::leg::Leg;
use crate::options::ProxyOptions;
use crate::upstream::{self, Pool};

/// How long the farewell to the upstream may take.
const FAREWELL: Duration = Duration::from_millis(300);

/// One thread's share of the proxy.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Where clients over TCP come in.
    pub(crate) door: Door,
    pub(crate) upstream: BaseUrl,
    /// Its name in `Host`.
    pub(crate) authority: String,
    /// Over HTTP/1.1.
    pub(crate) pool: Rc<Pool>,
    /// Over another channel, for what that can carry.
    pub(crate) leg: Option<Leg>,
    /// Over WebSockets that were joined to clients' own.
    pub(crate) joined: Total,
    pub(crate) book: Arc<Book>,
    /// Where finished responses are kept.
    pub(crate) state_at: StateAt,
    /// Bounds of each client's WebSocket.
    pub(crate) websocket: WsLimits,
    /// Held by who has something large read on another thread: one at a time.
    pub(crate) reading: Mutex<()>,
    drain: watch::Receiver<bool>,
}

impl Worker {
    pub(crate) fn new(
        options: ProxyOptions,
        door: Door,
        book: Arc<Book>,
        drain: watch::Receiver<bool>,
    ) -> Self {
        Self {
            door,
            pool: Rc::new(Pool::new(&options)),
            leg: upstream::leg(&options),
            joined: Total::new(options.upstream.is_tls()),
            authority: options.upstream.authority(),
            upstream: options.upstream,
            book,
            state_at: options.state_at,
            websocket: options.websocket,
            reading: Mutex::new(()),
            drain,
        }
    }

    /// What this thread's connections to the upstream carried up to now, for each channel that was used, or is to be.
    pub(crate) fn carried(&self) -> ByChannel {
        let mut sum = ByChannel::new();
        match &self.leg {
            Some(leg) => sum.insert(leg.transport(), leg.carried()),
            None => sum.insert(self.pool.transport(), Carried::default()),
        };
        for (channel, carried) in [
            (self.pool.transport(), self.pool.carried()),
            (Transport::Ws, self.joined.carried()),
        ] {
            if carried != Carried::default() {
                sum.entry(channel).or_default().add(&carried);
            }
        }
        sum
    }

    /// An id for a response of the proxy's own.
    pub(crate) fn response_id(&self) -> String {
        self.book.archive.new_id()
    }

    /// What the upstream speaks, found out now where it is not known. `target` is where a response is asked for, `fields` are
    /// the client's: with its own key the upstream may be asked. Where the answers do not tell, it is taken for one that has
    /// the Responses API: what is asked passes, and the upstream says what it thinks of it.
    pub(crate) async fn upstream_kind<'a>(
        &self,
        target: &str,
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Kind {
        let known = |name: &[u8]| CREDENTIALS.iter().any(|own| name.eq_ignore_ascii_case(own));
        let credentials: Vec<_> = fields.filter(|(name, _)| known(name)).collect();
        let found = self.book.kinds.find(target, &credentials).await;
        found.unwrap_or(Kind::Responses)
    }

    /// Whether a request must be whole before it goes upstream: on channels that carry no other, and where something of a
    /// create of the Responses API is changed, or may have to be.
    pub(crate) fn wants_whole(&self, is_create: bool) -> bool {
        if self.leg.as_ref().is_some_and(Leg::carries_all) {
            return true;
        }
        let reads_creates =
            self.leg.is_some() || self.state_at == StateAt::Proxy || self.book.kinds.may_be_chat();
        is_create && reads_creates
    }

    /// Says goodbye to the upstream, where its channel has words for it: it need not find out by silence.
    pub(crate) async fn leave_upstream(&self) {
        if let Some(leg) = &self.leg {
            // One that does not listen is left without.
            let _ = timeout(FAREWELL, leg.close()).await;
        }
    }

    /// Whether no new exchange may begin.
    pub(crate) fn is_draining(&self) -> bool {
        *self.drain.borrow()
    }

    /// Returns when no new exchange may begin.
    pub(crate) async fn draining(&self) {
        let (news, mut drain) = (self.drain.clone(), self.drain.clone());
        // A sender that is gone means the same.
        let mut waits = pin!(async move { drop(drain.wait_for(|&draining| draining).await) });
        let mut known: Option<Waker> = None;
        // Connections ask with every request: who stands in line already does so until there is news.
        poll_fn(|context| {
            let waker = context.waker();
            let stands = known.as_ref().is_some_and(|it| it.will_wake(waker));
            if stands && matches!(news.has_changed(), Ok(false)) {
                return Poll::Pending;
            }
            // A task that is to make way for others is told to wait, and to ask again.
            let asked = has_budget_remaining();
            let over = waits.as_mut().poll(context);
            known = asked.then(|| waker.clone());
            over
        })
        .await
    }
}
