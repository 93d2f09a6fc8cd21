//! Writes a reply to an HTTP/1.1 client.

use std::io;

use bytes::Bytes;
use tokenlag_channel::http::body::{LAST_CHUNK, push_chunk};
use tokenlag_channel::http::render::{push_field, start_response};
use tokenlag_channel::http::{Framing, RequestHead, ResponseHead, ServerConnection};
use tokenlag_dialect::{SseEvent, write_event};
use tokenlag_probes::{Outcome, Stamp};

use super::{After, DOOR};
use crate::outlet::Outlet;
use crate::worker::Worker;

/// Writes a reply to an HTTP/1.1 client.
pub(super) struct HttpOutlet<'a> {
    worker: &'a Worker,
    client: &'a mut ServerConnection,
    out: Vec<u8>,
    chunked: bool,
    version: u8,
    /// The connection can carry another request.
    keep: bool,
    /// The reply was passed on to its end.
    ended: bool,
}

impl<'a> HttpOutlet<'a> {
    /// Answers a request of that `head`. What is put in lies in `out`, which is empty.
    pub(super) fn new(
        worker: &'a Worker,
        client: &'a mut ServerConnection,
        head: &RequestHead,
        out: Vec<u8>,
    ) -> Self {
        let keep = head.keep_alive() && client.body_is_done() && !worker.is_draining();
        Self {
            worker,
            client,
            out,
            chunked: false,
            version: head.version,
            keep,
            ended: false,
        }
    }

    /// Puts in bytes of the body.
    fn put(&mut self, bytes: &[u8]) {
        if self.chunked {
            push_chunk(&mut self.out, bytes);
        } else {
            self.out.extend_from_slice(bytes);
        }
    }

    /// What becomes of the connection after an exchange that ended so.
    pub(super) fn after(&self, outcome: Outcome) -> After {
        match outcome {
            Outcome::Cancelled => After::Abort,
            _ if !self.ended => After::Abort,
            _ if self.keep => After::Again,
            _ => After::Close,
        }
    }
}

impl Outlet for HttpOutlet<'_> {
    fn wants_events(&self) -> bool {
        false
    }

    fn start(&mut self, head: &ResponseHead, framing: Framing, _events: bool) {
        start_response(&mut self.out, head.status, &head.reason);
        for (name, value) in head.headers.end_to_end() {
            push_field(&mut self.out, name, value);
        }
        let alt_svc = self.worker.door.alt_svc(self.client.is_tls());
        if let Some(alt_svc) = alt_svc.filter(|_| head.headers.get("alt-svc").is_none()) {
            push_field(&mut self.out, b"alt-svc", alt_svc.as_bytes());
        }
        let unbounded = matches!(framing, Framing::Chunked | Framing::UntilClose);
        self.chunked = unbounded && self.version == 1;
        // To HTTP/1.0 the end of such a body is the end of the connection.
        self.keep &= !unbounded || self.chunked;
        if self.chunked {
            push_field(&mut self.out, b"transfer-encoding", b"chunked");
        }
        if !self.keep {
            push_field(&mut self.out, b"connection", b"close");
        }
        self.out.extend_from_slice(b"\r\n");
    }

    fn event(&mut self, event: SseEvent<'_>) {
        let mut bytes = Vec::with_capacity(event.data.len() + 64);
        let name = std::str::from_utf8(event.name)
            .ok()
            .filter(|name| !name.is_empty());
        write_event(&mut bytes, name, event.data);
        self.put(&bytes);
    }

    fn bytes(&mut self, bytes: &Bytes) {
        self.put(bytes);
    }

    fn end(&mut self) {
        self.ended = true;
        if self.chunked {
            self.out.extend_from_slice(LAST_CHUNK);
        }
    }

    async fn flush(&mut self) -> io::Result<Stamp> {
        if self.out.is_empty() {
            return Ok(self.client.read_at());
        }
        let written = self.client.write_all(&self.out).await;
        self.out.clear();
        if let Err(error) = &written
            && error.kind() == io::ErrorKind::TimedOut
        {
            self.worker.book.metrics.refused(DOOR, "stalled");
        }
        written
    }

    async fn gone(&mut self) {
        self.client.hung_up().await;
    }
}
