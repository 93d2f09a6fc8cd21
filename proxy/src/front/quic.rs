//! Clients of the raw QUIC channel: one stream an exchange, any HTTP request on it.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokenlag_channel::http::{Framing, ResponseHead};
use tokenlag_channel::quic::{Exchange, ReplyWriter, ServerConnection};
use tokenlag_dialect::SseEvent;
use tokenlag_probes::Stamp;
use tokio::select;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::exchange::{Exchanges, ReplyOutlet};
use crate::outlet::Outlet;
use crate::worker::Worker;

const CHANNEL: &str = "quic";

/// How long a connection that is done stays open, so that its last bytes can leave.
const LINGER: Duration = Duration::from_millis(300);

/// Serves one connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, connection: ServerConnection) {
    let exchanges = Rc::new(Exchanges::new(CHANNEL));
    let mut running = JoinSet::new();
    while let Some(exchange) = next_exchange(&worker, &connection).await {
        let (worker, exchanges) = (Rc::clone(&worker), Rc::clone(&exchanges));
        running.spawn_local(serve_exchange(worker, exchanges, exchange));
        while running.try_join_next().is_some() {}
    }
    finish(&connection, &mut running).await;
    if let Some(reason) = connection.offence() {
        worker.book.metrics.refused(CHANNEL, reason);
    }
}

async fn next_exchange(worker: &Worker, connection: &ServerConnection) -> Option<Exchange> {
    select! {
        biased;
        exchange = connection.next_exchange() => exchange,
        () = worker.draining() => None,
    }
}

/// Lets the exchanges under way come to their end; others are sent away meanwhile.
async fn finish(connection: &ServerConnection, running: &mut JoinSet<()>) {
    let all_done = async {
        while running.join_next().await.is_some() {}
        // The last reply's end may still be on its way: closing now would take it back.
        let _ = timeout(LINGER, connection.closed()).await;
    };
    let send_away = async {
        while let Some(exchange) = connection.next_exchange().await {
            drop(exchange);
        }
        std::future::pending().await
    };
    select! {
        () = all_done => {}
        () = send_away => {}
    }
}

async fn serve_exchange(worker: Rc<Worker>, exchanges: Rc<Exchanges>, exchange: Exchange) {
    let _active = worker.book.metrics.begin(CHANNEL);
    let (request, writer) = match exchange.request().await {
        Ok((incoming, writer)) => (Ok(incoming), writer),
        Err((error, writer)) => (Err(error), writer),
    };
    let outlet = QuicOutlet {
        worker: Rc::clone(&worker),
        writer,
        ended: false,
    };
    exchanges.serve(&worker, request, outlet).await;
}

/// Writes a reply as frames.
struct QuicOutlet {
    worker: Rc<Worker>,
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

    fn bytes(&mut self, bytes: &Bytes) {
        self.writer.data(bytes);
    }

    fn end(&mut self) {
        self.ended = true;
    }

    async fn flush(&mut self) -> io::Result<Stamp> {
        let flushed = self.writer.flush().await;
        if let Err(error) = &flushed
            && error.kind() == io::ErrorKind::TimedOut
        {
            self.worker.book.metrics.refused(CHANNEL, "stalled");
        }
        flushed
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
