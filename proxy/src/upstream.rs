//! The upstream: where it is, and the warm connections to it that one thread keeps.

use std::cell::RefCell;
use std::time::Duration;

use tokenlag_channel::http::Connection;
use tokenlag_channel::tls::ClientTls;
use tokenlag_channel::{ChannelError, Dial};
use tokenlag_probes::{Clock, MonoClock, Stamp, Transport};

use crate::leg::Leg;
use crate::options::ProxyOptions;

/// Idle connections that a thread keeps; more are closed as they come back.
const IDLE_CONNECTIONS: usize = 1024;

/// How soon after a request a silent close still means that the upstream had closed the connection as idle.
pub(crate) const STALE_WITHIN: Duration = Duration::from_millis(250);

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

/// Finds out whom to trust, once for all threads: what the options leave open is the system's to say.
///
/// # Errors
/// A channel that cannot be dialled, or cannot be dialled so.
pub(crate) fn complete(mut options: ProxyOptions) -> Result<ProxyOptions, ChannelError> {
    let channel = options.upstream_channel;
    if channel.dialled() != channel || channel == Transport::Direct {
        let what = format!("{channel} is no channel to dial an upstream by");
        return Err(ChannelError::Request(what));
    }
    let encrypted = options.upstream.is_tls() || channel.is_encrypted_always();
    if encrypted && options.upstream_tls.is_none() {
        options.upstream_tls = Some(ClientTls::of_system()?.with_resumption());
    }
    Ok(options)
}

/// How to dial the upstream over TCP.
pub(crate) fn dial(options: &ProxyOptions) -> Dial {
    Dial {
        host: options.upstream.host().to_owned(),
        port: options.upstream.port(),
        path: String::new(),
        headers: Vec::new(),
        connect_timeout: options.patience.connect,
        idle_timeout: options.patience.idle,
        tls: options
            .upstream_tls
            .clone()
            .filter(|_| options.upstream.is_tls()),
    }
}

/// The way upstream where it is not HTTP/1.1.
pub(crate) fn leg(options: &ProxyOptions) -> Option<Leg> {
    let channel = options.upstream_channel;
    let mut dial = dial(options);
    match channel {
        Transport::Http | Transport::HttpCold => return None,
        _ if channel.is_encrypted_always() => dial.tls = options.upstream_tls.clone(),
        _ => {}
    }
    let authority = options.upstream.authority();
    Some(Leg::new(
        channel,
        options.upstream_encoding,
        authority,
        dial,
    ))
}

/// Warm connections of one thread: HTTP/1.1.
#[derive(Debug)]
pub(crate) struct Pool {
    dial: Dial,
    /// Every request has a connection of its own.
    cold: bool,
    idle: RefCell<Vec<Connection>>,
}

impl Pool {
    pub(crate) fn new(options: &ProxyOptions) -> Self {
        Self {
            dial: dial(options),
            cold: options.upstream_channel == Transport::HttpCold,
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
        if idle.len() < IDLE_CONNECTIONS && !self.cold {
            idle.push(connection);
        }
    }

    /// Whether requests ask the upstream to close after them.
    pub(crate) fn is_cold(&self) -> bool {
        self.cold
    }

    /// How its connections are dialled.
    pub(crate) fn dialled(&self) -> &Dial {
        &self.dial
    }

    pub(crate) fn idle_timeout(&self) -> Duration {
        self.dial.idle_timeout
    }

    fn pop(&self) -> Option<Connection> {
        self.idle.borrow_mut().pop()
    }
}
