//! Writes that learn at once that the peer stopped their stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use quinn::{SendStream, StoppedError, VarInt, WriteError};

/// Completes when the stream is stopped, taken to its end, or lost with its connection.
type Stopped =
    Pin<Box<dyn Future<Output = Result<Option<VarInt>, StoppedError>> + Send + Sync + 'static>>;

/// The peer's word that it takes no more of a stream. quinn wakes a write once when that word comes, and the write is
/// put to sleep again where the whole connection has no room; when there is room, it is not woken, since the stream
/// itself has none. So a write that has to wait listens for the word itself.
#[derive(Default)]
pub(crate) struct Stop(Option<Stopped>);

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stop").finish_non_exhaustive()
    }
}

impl Stop {
    /// Writes some of `bytes` to the stream, which must be the same in every call.
    pub(crate) fn poll_write(
        &mut self,
        send: &mut SendStream,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, WriteError>> {
        let written = Pin::new(&mut *send).poll_write(context, bytes);
        if written.is_ready() {
            return written;
        }
        let stopped = self.0.get_or_insert_with(|| Box::pin(send.stopped()));
        let stopped = ready!(stopped.as_mut().poll(context));
        self.0 = None;
        Poll::Ready(Err(match stopped {
            Ok(Some(code)) => WriteError::Stopped(code),
            // It was finished before: nothing can be written to it.
            Ok(None) => WriteError::ClosedStream,
            Err(StoppedError::ConnectionLost(error)) => WriteError::ConnectionLost(error),
            Err(StoppedError::ZeroRttRejected) => WriteError::ZeroRttRejected,
        }))
    }
}
