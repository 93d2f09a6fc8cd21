//! What can go wrong on a channel: what was tried, with which address, and what to do.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokenlag_probes::{Clock, FailureKind, MonoClock, Stamp};

/// A channel's failure. [`ChannelError::kind`] is how it is counted. Clones are for all who waited for the same connection.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The name of the other end did not resolve.
    #[error("cannot resolve {host}: {source}; check the name, or give an IP address")]
    Resolve {
        /// The name that was asked for.
        host: String,
        /// The resolver's word.
        source: Arc<io::Error>,
    },
    /// No connection could be made.
    #[error("cannot connect to {address}: {source}; is a server listening there?")]
    Connect {
        /// Where to.
        address: String,
        /// The system's word.
        source: Arc<io::Error>,
    },
    /// A connection was made, and the protocol's opening failed.
    #[error("the {protocol} handshake with {address} failed: {reason}")]
    Handshake {
        /// Where to.
        address: String,
        /// Which protocol.
        protocol: &'static str,
        /// Why.
        reason: String,
    },
    /// The connection ended before anything of the reply came: on one that was used before, the server may just have
    /// closed it as idle.
    #[error("{address} closed the connection without a reply ({detail})")]
    NoReply {
        /// The other end.
        address: String,
        /// The system's word.
        detail: String,
    },
    /// The connection ended before the reply did.
    #[error("{address} closed the connection before the reply ended ({detail})")]
    Lost {
        /// The other end.
        address: String,
        /// The system's or the protocol's word.
        detail: String,
    },
    /// Nothing came for too long.
    #[error("{address}: no {what} within {after:?}")]
    Timeout {
        /// The other end.
        address: String,
        /// What was waited for.
        what: &'static str,
        /// How long.
        after: Duration,
    },
    /// Too many others made handshakes, for too long.
    #[error(
        "waited for a turn to connect to {address}, and had none within {after:?}: {others} other handshakes are under way; does the server answer?"
    )]
    Turn {
        /// Where to.
        address: String,
        /// Handshakes that are under way at a time.
        others: usize,
        /// How long it waited.
        after: Duration,
    },
    /// What came of a reply lay unread while others on its connection had to go on.
    #[error(
        "the reply of {address} was read too slowly: {most} bytes of it lay there, on a connection that others share; read it faster, or give it a connection of its own"
    )]
    Unread {
        /// The other end.
        address: String,
        /// Bytes that may lie there.
        most: usize,
    },
    /// Bytes that the protocol does not allow.
    #[error("{address} broke the protocol: {reason}")]
    Protocol {
        /// The other end.
        address: String,
        /// What was wrong.
        reason: String,
    },
    /// The request itself cannot be sent on this channel.
    #[error("the request cannot be sent: {0}")]
    Request(String),
    /// Certificates or keys could not be used.
    #[error("TLS: {0}")]
    Tls(String),
}

/// How soon after a request a silent close still means that the server had closed the connection as idle. Later it is the
/// server's failure, and the request may have been worked on: it is not repeated then.
pub const STALE_WITHIN: Duration = Duration::from_millis(250);

impl ChannelError {
    /// Whether a request that was sent at `since` on a kept connection failed because the server had just closed the
    /// connection as idle: it can be repeated on another.
    pub fn is_stale(&self, since: Stamp) -> bool {
        let soon = MonoClock.now().since(since) < STALE_WITHIN.as_nanos() as i64;
        soon && matches!(self, Self::NoReply { .. })
    }

    /// How the failure is counted.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Resolve { .. } | Self::Connect { .. } | Self::Tls(_) => FailureKind::Connect,
            Self::Handshake { .. } | Self::Protocol { .. } | Self::Request(_) => {
                FailureKind::Protocol
            }
            Self::NoReply { .. } | Self::Lost { .. } => FailureKind::ConnectionLost,
            Self::Timeout { .. } | Self::Turn { .. } | Self::Unread { .. } => FailureKind::Timeout,
        }
    }
}
