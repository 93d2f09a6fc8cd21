//! The client-facing end of an exchange, whatever the channel.

use std::io;

use bytes::Bytes;
use tokenlag_channel::http::{Framing, ResponseHead};
use tokenlag_dialect::SseEvent;
use tokenlag_probes::Stamp;

/// Where a reply goes. What is put in leaves with the next flush.
pub(crate) trait Outlet {
    /// Whether an event stream is wanted as its events; otherwise as its bytes.
    fn wants_events(&self) -> bool;

    /// Puts in the head. `events` says in which of the two forms the body will come, `framing` how long it is.
    fn start(&mut self, head: &ResponseHead, framing: Framing, events: bool);

    /// The upstream was read at `at`; what is put in next came with that. `up_written` is the tap's.
    fn upstream_read(&mut self, _up_written: Option<Stamp>, _at: Stamp) {}

    /// Puts in an event.
    fn event(&mut self, event: SseEvent<'_>);

    /// Puts in bytes of the body.
    fn bytes(&mut self, bytes: &Bytes);

    /// Whether the terminal event is all that tells the client of the reply's end: then nothing after it is waited for.
    fn ends_with_terminal(&self) -> bool {
        false
    }

    /// Puts in the reply's end.
    fn end(&mut self);

    /// Sends what was put in; waits while the client is slow. The stamp was taken before the write.
    async fn flush(&mut self) -> io::Result<Stamp>;

    /// Returns when the client is gone. May be cancelled without loss.
    async fn gone(&mut self);
}
