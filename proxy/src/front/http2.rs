//! Clients of HTTP/2: one stream an exchange.

use std::io;
use std::rc::Rc;

use bytes::Bytes;
use tokenlag_channel::http::{Framing, ResponseHead};
use tokenlag_channel::http2::{Accepted, Exchange, ReplyWriter};
use tokenlag_dialect::{SseEvent, write_event};
use tokenlag_probes::Stamp;
use tokio::select;
use tokio::task::JoinSet;

use super::exchange::{self, Exchanges, ReplyOutlet};
use crate::failure::Failure;
use crate::outlet::Outlet;
use crate::worker::Worker;

const CHANNEL: &str = "http2";

/// Serves one connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, connection: Accepted) {
    let shared = Rc::new(Shared {
        exchanges: Exchanges::new(CHANNEL),
        is_tls: connection.is_tls(),
        worker,
    });
    let mut running = JoinSet::new();
    let mut draining = false;
    loop {
        select! {
            biased;
            exchange = connection.next_exchange() => match exchange {
                Some(exchange) => {
                    running.spawn_local(serve_exchange(Rc::clone(&shared), exchange));
                    while running.try_join_next().is_some() {}
                }
                None => break,
            },
            // Exchanges under way go on; the connection is over when the last of them is.
            () = shared.worker.draining(), if !draining => {
                draining = true;
                connection.drain();
            }
        }
    }
    let metrics = &shared.worker.book.metrics;
    let refused = connection.refused_streams();
    if refused > 0 {
        metrics.refused_many(CHANNEL, "too_many_streams", refused);
    }
    if let Some(reason) = connection.verdict() {
        metrics.refused(CHANNEL, reason);
    }
    // Their client is gone; each finds that out by itself and is booked.
    while running.join_next().await.is_some() {}
}

/// What the exchanges of one connection have in common.
struct Shared {
    worker: Rc<Worker>,
    exchanges: Exchanges,
    is_tls: bool,
}

async fn serve_exchange(shared: Rc<Shared>, exchange: Exchange) {
    let worker = &shared.worker;
    let _active = worker.book.metrics.begin(CHANNEL);
    let tunnel = exchange.method() == "CONNECT";
    let outlet = |writer| Http2Outlet {
        shared: &shared,
        writer,
        ended: false,
    };
    if tunnel {
        worker.book.metrics.refused(CHANNEL, "connect");
        let failure = Failure {
            status: 501,
            reason: "Not Implemented",
            code: "bad_request",
            message: "tunnels are not made; ask the upstream's own address for one".to_owned(),
        };
        // The client may be gone already.
        let _ = exchange::refuse(&failure, outlet(exchange.into_writer())).await;
        return;
    }
    let (request, writer) = match exchange.request().await {
        Ok((incoming, writer)) => (Ok(incoming), writer),
        Err((error, writer)) => (Err(error), writer),
    };
    let outlet = outlet(writer);
    shared.exchanges.serve(worker, request, outlet).await;
}

/// Writes a reply as a response of HTTP/2.
struct Http2Outlet<'a> {
    shared: &'a Shared,
    writer: ReplyWriter,
    /// The reply was passed on to its end.
    ended: bool,
}

impl Outlet for Http2Outlet<'_> {
    fn wants_events(&self) -> bool {
        false
    }

    fn start(&mut self, head: &ResponseHead, _framing: Framing, _events: bool) {
        let fields = head.headers.end_to_end().filter_map(|(name, value)| {
            let name = std::str::from_utf8(name).ok()?.to_owned();
            Some((name, Bytes::copy_from_slice(value)))
        });
        let mut fields: Vec<_> = fields.collect();
        let alt_svc = self.shared.worker.door.alt_svc(self.shared.is_tls);
        if let Some(alt_svc) = alt_svc.filter(|_| head.headers.get("alt-svc").is_none()) {
            let value = Bytes::copy_from_slice(alt_svc.as_bytes());
            fields.push(("alt-svc".to_owned(), value));
        }
        self.writer.head(head.status, &fields);
    }

    fn event(&mut self, event: SseEvent<'_>) {
        let mut bytes = Vec::with_capacity(event.data.len() + 64);
        let name = std::str::from_utf8(event.name)
            .ok()
            .filter(|name| !name.is_empty());
        write_event(&mut bytes, name, event.data);
        self.writer.data(bytes.into());
    }

    fn bytes(&mut self, bytes: &Bytes) {
        self.writer.data(bytes.clone());
    }

    fn end(&mut self) {
        self.ended = true;
        self.writer.end();
    }

    async fn flush(&mut self) -> io::Result<Stamp> {
        let flushed = self.writer.flush().await;
        if let Err(error) = &flushed
            && error.kind() == io::ErrorKind::TimedOut
        {
            let metrics = &self.shared.worker.book.metrics;
            metrics.refused(CHANNEL, "stalled");
        }
        flushed
    }

    async fn gone(&mut self) {
        self.writer.given_up().await;
    }
}

impl ReplyOutlet for Http2Outlet<'_> {
    fn has_ended(&self) -> bool {
        self.ended
    }

    async fn finish(self) -> io::Result<()> {
        self.writer.finish().await
    }
}
