//! Clients of HTTP/3.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokenlag_channel::http::{Framing, ResponseHead};
use tokenlag_channel::http3::{Exchange, ReplyWriter, ServerConnection};
use tokenlag_dialect::SseEvent;
use tokenlag_dialect::write_event;
use tokenlag_probes::Stamp;
use tokio::select;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::exchange::{self, Exchanges, ReplyOutlet};
use crate::outlet::Outlet;
use crate::worker::Worker;

const CHANNEL: &str = "http3";

/// How long a connection that is done stays open, so that its last bytes can leave.
const LINGER: Duration = Duration::from_millis(300);

/// Serves one connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, mut connection: ServerConnection) {
    let exchanges = Rc::new(Exchanges::new(CHANNEL));
    let mut running = JoinSet::new();
    loop {
        select! {
            biased;
            exchange = connection.next_exchange() => match exchange {
                Some(exchange) => {
                    let (worker, exchanges) = (Rc::clone(&worker), Rc::clone(&exchanges));
                    running.spawn_local(serve_exchange(worker, exchanges, exchange));
                }
                None => break,
            },
            Some(_) = running.join_next() => {}
            () = worker.draining() => {
                connection.leave().await;
                break;
            }
        }
    }
    finish(&mut connection, &mut running).await;
    if let Some(reason) = connection.offence() {
        worker.book.metrics.refused(CHANNEL, reason);
    }
}

/// Lets the exchanges under way come to their end; others are sent away meanwhile. Where the client is gone, each finds that
/// out by itself and is booked.
async fn finish(connection: &mut ServerConnection, running: &mut JoinSet<()>) {
    let all_done = async { while running.join_next().await.is_some() {} };
    select! {
        () = all_done => {}
        () = send_away(connection) => {}
    }
    // The last reply's end may still be on its way: closing now would take it back. HTTP/3 is over when all requests are,
    // and the connection under it is not.
    let linger = async {
        while connection.next_exchange().await.is_some() {}
        connection.closed().await;
    };
    let _ = timeout(LINGER, linger).await;
}

/// Sends exchanges away for as long as it is waited for.
async fn send_away(connection: &mut ServerConnection) {
    while connection.next_exchange().await.is_some() {}
    std::future::pending().await
}

async fn serve_exchange(worker: Rc<Worker>, exchanges: Rc<Exchanges>, exchange: Exchange) {
    let _active = worker.book.metrics.begin(CHANNEL);
    let (request, writer) = match exchange.request().await {
        Ok((incoming, writer)) => (Ok(incoming), writer),
        Err((error, Some(writer))) => (Err(error), writer),
        Err((error, None)) => {
            exchange::count(&worker, CHANNEL, &error);
            return;
        }
    };
    let outlet = Http3Outlet {
        worker: Rc::clone(&worker),
        writer,
        ended: false,
    };
    exchanges.serve(&worker, request, outlet).await;
}

/// Writes a reply as a response of HTTP/3.
struct Http3Outlet {
    worker: Rc<Worker>,
    writer: ReplyWriter,
    /// The reply was passed on to its end.
    ended: bool,
}

impl Outlet for Http3Outlet {
    fn wants_events(&self) -> bool {
        false
    }

    fn start(&mut self, head: &ResponseHead, _framing: Framing, _events: bool) {
        let fields = head.headers.end_to_end().filter_map(|(name, value)| {
            let name = std::str::from_utf8(name).ok()?.to_owned();
            Some((name, Bytes::copy_from_slice(value)))
        });
        let fields: Vec<_> = fields.collect();
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

impl ReplyOutlet for Http3Outlet {
    fn has_ended(&self) -> bool {
        self.ended
    }

    async fn finish(self) -> io::Result<()> {
        self.writer.finish().await
    }

    async fn cut_off(self) {
        self.writer.cut_off().await;
    }
}
