//! The upstream: where it is, and the warm connections to it that one thread keeps.

use std::cell::RefCell;
use std::time::Duration;

use tokenlag_channel::http::Connection;
use tokenlag_channel::{BaseUrl, ChannelError, Dial};
use tokenlag_probes::{Clock, MonoClock, Stamp};

/// Idle connections that a thread keeps; more are closed as they come back.
const IDLE_CONNECTIONS: usize = 1024;

/// How patient the proxy is with the upstream.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long name and connection may take together.
    pub connect: Duration,
    /// How long a reply may stay silent. There is no limit on its whole length.
    pub idle: Duration,
}

/// Whether an exchange failed on a connection that the upstream closed as idle just as it was taken: it can be repeated.
pub(crate) fn was_stale(anew: bool, error: &ChannelError, up_written: Option<Stamp>) -> bool {
    // Where nothing was written, nothing can have been worked on.
    let since = up_written.unwrap_or(MonoClock.now());
    !anew && error.is_stale(since)
}

/// Warm connections of one thread.
#[derive(Debug)]
pub(crate) struct Pool {
    dial: Dial,
    idle: RefCell<Vec<Connection>>,
}

impl Pool {
    pub(crate) fn new(upstream: &BaseUrl, patience: Patience) -> Self {
        Self {
            dial: Dial {
                host: upstream.host().to_owned(),
                port: upstream.port(),
                path: String::new(),
                headers: Vec::new(),
                connect_timeout: patience.connect,
                idle_timeout: patience.idle,
                tls: None,
            },
            idle: RefCell::new(Vec::new()),
        }
    }

    /// A connection, the warmest first, and whether it was made anew.
    pub(crate) async fn take(&self) -> Result<(Connection, bool), ChannelError> {
        while let Some(mut connection) = self.pop() {
            if connection.is_fresh() {
                return Ok((connection, false));
            }
        }
        Ok((self.dial().await?, true))
    }

    /// A connection that nobody used yet.
    pub(crate) async fn dial(&self) -> Result<Connection, ChannelError> {
        let dialled = Connection::dial(&self.dial).await?;
        Ok(dialled.connection)
    }

    /// Gives a connection back whose exchange is over.
    pub(crate) fn put(&self, connection: Connection) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_CONNECTIONS {
            idle.push(connection);
        }
    }

    pub(crate) fn idle_timeout(&self) -> Duration {
        self.dial.idle_timeout
    }

    fn pop(&self) -> Option<Connection> {
        self.idle.borrow_mut().pop()
    }
}
