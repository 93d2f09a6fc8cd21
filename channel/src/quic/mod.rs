//! tokenlag's own QUIC channel, ALPN `tokenlag/1`: one connection, one bidirectional stream per exchange, frames of
//! a few bytes around each delta. The wire format is specified in docs/quic-channel.md. Also what HTTP/3 has in common
//! with it: the socket, the connection at both ends, early data.

mod client;
mod compact;
mod datagrams;
pub(crate) mod dialled;
mod door;
pub(crate) mod early;
pub(crate) mod established;
pub mod frame;
mod listener;
mod refusal;
mod reply;
mod server;
mod session;
pub(crate) mod socket;
pub(crate) mod stop;
mod stray;
mod transport;
mod upload;
pub(crate) mod varint;
mod watched;

pub use client::Client;
pub use door::{Door, DoorLimits};
pub use early::SAFE_TO_REPLAY;
pub use listener::{Accepted, Handshake, Listener, bind};
pub use refusal::Refusal;
pub use reply::ClientReply;
pub use server::{Exchange, ReplyWriter, ServerConnection};
pub use transport::CONGESTION_CONTROL;

/// The protocol's name in TLS's ALPN; its digit is the format's version.
pub const ALPN: &[u8] = b"tokenlag/1";

/// The code of a stream that is reset within its request or its reply: what came is not whole.
const CUT_OFF: u32 = 1;

/// The code of a stream that is reset before its request was looked at: the server takes no more on this connection.
const NOT_BEGUN: u32 = 2;
