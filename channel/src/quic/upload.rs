//! The sending half of an exchange's stream while the request goes out.

use std::future::poll_fn;
use std::task::{Poll, ready};

use quinn::{SendStream, VarInt, WriteError};

use super::CUT_OFF;
use super::stop::Stop;

/// A request on its way. Dropped before [`Self::finish`], it resets the stream: quinn would finish it, and a request that
/// breaks off between two frames would look whole.
pub(super) struct Upload {
    send: SendStream,
    finished: bool,
}

impl Upload {
    pub(super) fn new(send: SendStream) -> Self {
        Self {
            send,
            finished: false,
        }
    }

    /// Waits until the endpoint has taken all bytes; `took` is told of them as they are taken.
    ///
    /// # Errors
    /// The server stopped the stream, the connection is gone, or early data was not taken.
    pub(super) async fn write_all(
        &mut self,
        bytes: &[u8],
        took: impl Fn(usize),
    ) -> Result<(), WriteError> {
        let mut stop = Stop::default();
        let mut rest = bytes;
        poll_fn(|context| {
            while !rest.is_empty() {
                let written = ready!(stop.poll_write(&mut self.send, context, rest))?;
                took(written);
                rest = &rest[written..];
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Ends the request. A stream that the server stopped, or early data that it did not take, has no end.
    pub(super) fn finish(&mut self) {
        self.finished = self.send.finish().is_ok();
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.finished {
            // A stream of early data that was not taken has nothing to reset.
            let _ = self.send.reset(VarInt::from_u32(CUT_OFF));
        }
    }
}
