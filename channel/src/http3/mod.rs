//! HTTP/3 (RFC 9114), both ends, ALPN `h3`: h3 reads and writes the frames, over streams of our own that stamp, count and
//! bound what passes.

mod client;
mod connection;
mod live;
mod meter;
mod reply;
mod server;
mod streams;
mod track;

pub use client::Client;
pub use reply::ClientReply;
pub use server::{Exchange, ReplyWriter, ServerConnection};

use h3::error::{Code, ConnectionError, LocalError};

use crate::http::head::MAX_HEAD;

/// The protocol's name in TLS's ALPN.
pub const ALPN: &[u8] = b"h3";

/// The most that the fields of a head may have, counted as RFC 9114, section 4.2.2 does: each has 32 bytes more.
const MAX_FIELDS: u64 = MAX_HEAD as u64;

/// Whether this end closed the connection for what the other had sent.
fn is_offence(error: &ConnectionError) -> bool {
    matches!(
        error,
        ConnectionError::Local {
            error: LocalError::Application { code, .. },
            ..
        } if *code != Code::H3_NO_ERROR
    )
}
