//! Clients of the raw QUIC channel: one stream an exchange, any HTTP request on it.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokenlag_channel::http::{Framing, ResponseHead};
use tokenlag_channel::quic::{Accepted, Exchange, Handshake, ReplyWriter};
use tokenlag_dialect::SseEvent;
use tokenlag_probes::Stamp;
use tokio::select;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::exchange::{BODY_LIMIT, Exchanges, ReplyOutlet};
use crate::outlet::Outlet;
use crate::worker::Worker;

const CHANNEL: &str = "quic";

/// How long a connection that is done stays open, so that its last bytes can leave.
const LINGER: Duration = Duration::from_millis(300);

/// Serves one connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, handshake: Handshake) {
    // A client that does not trust the certificate has said so itself.
    let Ok(connection) = handshake.finish().await else {
        return;
    };
    let exchanges = Rc::new(Exchanges::new(CHANNEL));
    let mut running = JoinSet::new();
    while let Some(exchange) = next_exchange(&worker, &connection).await {
        let (worker, exchanges) = (Rc::clone(&worker), Rc::clone(&exchanges));
        running.spawn_local(serve_exchange(worker, exchanges, exchange));
        while running.try_join_next().is_some() {}
    }
    while running.join_next().await.is_some() {}
    // The last reply's end may still be on its way: closing now would take it back.
    let _ = timeout(LINGER, connection.closed()).await;
}

async fn next_exchange(worker: &Worker, connection: &Accepted) -> Option<Exchange> {
    select! {
        biased;
        exchange = connection.next_exchange() => exchange,
        () = worker.draining() => None,
    }
}

async fn serve_exchange(worker: Rc<Worker>, exchanges: Rc<Exchanges>, exchange: Exchange) {
    let _active = worker.book.metrics.begin(CHANNEL);
    let (request, writer) = match exchange.request(BODY_LIMIT).await {
        Ok((incoming, writer)) => (Ok(incoming), writer),
        Err((error, writer)) => (Err(error), writer),
    };
    let outlet = QuicOutlet {
        writer,
        ended: false,
    };
    exchanges.serve(&worker, request, outlet).await;
}

/// Writes a reply as frames.
struct QuicOutlet {
    writer: ReplyWriter,
    /// The reply was passed on to its end.
    ended: bool,
}

impl Outlet for QuicOutlet {
    fn wants_events(&self) -> bool {
        self.writer.wants_events()
    }

    fn start(&mut self, head: &ResponseHead, _framing: Framing, events: bool) {
        let fields = head.headers.end_to_end().filter_map(|(name, value)| {
            let name = std::str::from_utf8(name).ok()?.to_owned();
            Some((name, Bytes::copy_from_slice(value)))
        });
        self.writer.head(head.status, fields.collect(), events);
    }

    fn event(&mut self, event: SseEvent<'_>) {
        self.writer.event(event.name, event.data);
    }

    fn bytes(&mut self, bytes: Bytes) {
        self.writer.data(bytes);
    }

    fn end(&mut self) {
        self.ended = true;
    }

    async fn flush(&mut self) -> io::Result<Stamp> {
        self.writer.flush().await
    }

    async fn gone(&mut self) {
        self.writer.given_up().await;
    }
}

impl ReplyOutlet for QuicOutlet {
    fn has_ended(&self) -> bool {
        self.ended
    }

    async fn finish(self) -> io::Result<()> {
        self.writer.finish().await
    }
}
