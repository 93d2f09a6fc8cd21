//! tokenlag's own QUIC channel, ALPN `tokenlag/1`: one connection, one bidirectional stream per exchange, frames of
//! a few bytes around each delta. The wire format is specified in docs/quic-channel.md.

mod client;
mod compact;
pub mod frame;
mod server;
mod socket;
mod transport;
mod varint;

pub use client::{Client, ClientReply};
pub use server::{Accepted, Exchange, Handshake, Listener, ReplyWriter, bind};
pub use transport::CONGESTION_CONTROL;

/// The protocol's name in TLS's ALPN; its digit is the format's version.
pub const ALPN: &[u8] = b"tokenlag/1";
