//! What an upstream still has to say when the client has all that it waited for: read and forgotten beside the traffic, so that
//! the connection can be used again.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::inlet::Inlet;
use crate::tap::Tap;
use crate::upstream::Pool;
use crate::worker::Worker;

/// How long the end of a reply is waited for after its terminal event. A connection that takes longer is closed.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many bytes may come after it.
const LIMIT: usize = 64 * 1024;

/// The rest of a reply that nobody waits for.
pub(crate) struct Remains {
    inlet: Inlet,
    pool: Rc<Pool>,
    /// The request was not sent to its end: the connection is of no further use.
    owed: bool,
}

impl Remains {
    pub(crate) fn of(inlet: Inlet, worker: &Worker, tap: &Tap) -> Self {
        Self {
            inlet,
            pool: Rc::clone(&worker.pool),
            owed: tap.overlapped,
        }
    }

    /// Reads the rest in a task of its own, and gives the connection back. Must be called within a `LocalSet`.
    pub(crate) fn forget(self) {
        if !self.owed {
            spawn_local(self.read());
        }
    }

    async fn read(mut self) {
        if let Ok(Some(())) = timeout(PATIENCE, self.read_to_end()).await {
            self.inlet.give_back(&self.pool, self.owed).await;
        }
    }

    /// `None` where the connection is not worth keeping.
    async fn read_to_end(&mut self) -> Option<()> {
        let mut left = LIMIT;
        loop {
            while let Some(chunk) = self.inlet.buffered().ok()? {
                left = left.checked_sub(chunk.bytes.len())?;
            }
            if self.inlet.is_done() {
                return Some(());
            }
            self.inlet.more().await.ok()?;
        }
    }
}
