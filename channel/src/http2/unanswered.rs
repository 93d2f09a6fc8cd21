//! What is said of an HTTP/2 exchange that has no reply, or loses the rest of it.

use h2::Reason;
use tokenlag_probes::Stamp;

use crate::{ChannelError, Dial};

/// Why an exchange has no reply.
pub(super) struct Unanswered {
    pub(super) error: ChannelError,
    /// The server did not work on it: it can be asked again on another connection.
    pub(super) untouched: bool,
}

impl Unanswered {
    /// Nothing was sent on this connection.
    #[cold]
    pub(super) fn takes_no_more(dial: &Dial) -> Self {
        Self {
            error: no_reply(&"it takes no more exchanges on this connection", dial),
            untouched: true,
        }
    }

    /// Nothing was sent on this connection, because of `error`.
    #[cold]
    pub(super) fn unsent(error: &h2::Error, dial: &Dial) -> Self {
        Self {
            untouched: error.is_go_away() || error.is_io(),
            error: failed(error, dial),
        }
    }

    /// Nothing came for as long as the client waits.
    #[cold]
    pub(super) fn silent(dial: &Dial, what: &'static str) -> Self {
        Self {
            error: silent(dial, what),
            untouched: false,
        }
    }

    /// A request was sent, on a connection that was `kept` or just made, and `error` is all that came of it.
    #[cold]
    pub(super) fn because(error: &h2::Error, dial: &Dial, kept: bool, connected: Stamp) -> Self {
        // A GOAWAY of the peer ends only the streams that it will not work on (RFC 9113, section 6.8).
        let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        let refused = error.is_remote() && (refused || error.is_go_away());
        let error = if error.is_io() {
            no_reply(error, dial)
        } else {
            failed(error, dial)
        };
        Self {
            untouched: refused || (kept && error.is_stale(connected)),
            error,
        }
    }
}

/// What `error` of a stream or its connection means to whoever asked.
#[cold]
pub(super) fn failed(error: &h2::Error, dial: &Dial) -> ChannelError {
    let address = dial.authority();
    if error.is_library() && !error.is_io() {
        let reason = format!("{error}; does it speak HTTP/2 here?");
        return ChannelError::Protocol { address, reason };
    }
    ChannelError::Lost {
        address,
        detail: error.to_string(),
    }
}

/// Nothing came for as long as the client waits.
#[cold]
pub(super) fn silent(dial: &Dial, what: &'static str) -> ChannelError {
    ChannelError::Timeout {
        address: dial.authority(),
        what,
        after: dial.idle_timeout,
    }
}

fn no_reply(detail: &dyn std::fmt::Display, dial: &Dial) -> ChannelError {
    ChannelError::NoReply {
        address: dial.authority(),
        detail: detail.to_string(),
    }
}
