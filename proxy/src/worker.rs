//! What one thread of the proxy works with. Connections stay on the thread that took them.

use std::cell::Cell;
use std::sync::Arc;

use tokio::sync::watch;

use tokenlag_channel::BaseUrl;

use crate::book::Book;
use crate::front::WsLimits;
use crate::options::{ProxyOptions, StateAt};
use crate::upstream::Pool;

/// One thread's share of the proxy.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) upstream: BaseUrl,
    pub(crate) pool: Pool,
    pub(crate) book: Arc<Book>,
    /// Where finished responses are kept.
    pub(crate) state_at: StateAt,
    /// Bounds of each client's WebSocket.
    pub(crate) websocket: WsLimits,
    drain: watch::Receiver<bool>,
    responses: Cell<u64>,
}

impl Worker {
    pub(crate) fn new(
        options: ProxyOptions,
        book: Arc<Book>,
        drain: watch::Receiver<bool>,
    ) -> Self {
        Self {
            pool: Pool::new(&options.upstream, options.patience),
            upstream: options.upstream,
            book,
            state_at: options.state_at,
            websocket: options.websocket,
            drain,
            responses: Cell::new(0),
        }
    }

    /// An id for a response of the proxy's own. Ids live no longer than their connection, which stays on this thread.
    pub(crate) fn response_id(&self) -> String {
        let number = self.responses.get() + 1;
        self.responses.set(number);
        format!("resp_tokenlag_{number}")
    }

    /// Whether no new exchange may begin.
    pub(crate) fn is_draining(&self) -> bool {
        *self.drain.borrow()
    }

    /// Returns when no new exchange may begin.
    pub(crate) async fn draining(&self) {
        // A sender that is gone means the same.
        let _ = self.drain.clone().wait_for(|&draining| draining).await;
    }
}
