//! WebSocket (RFC 6455) in the Responses API's mode: JSON text messages, one connection, many exchanges.
//!
//! The library is tokio-tungstenite: the one in widest use, and it reads from the socket only when its buffer holds no
//! whole message, so that the last read's stamp is that of the read which completed the message. It has no
//! permessage-deflate; an offer of it is declined by not being answered.

mod client;
mod server;
mod socket;

pub use client::{Client, ClientReply};
pub use server::{Accepted, Farewell, Received, accept};

use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// The longest message that is taken: a history of 128k tokens is about half a megabyte.
pub const MAX_MESSAGE: usize = 64 * 1024 * 1024;

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        // Events that one upstream read released leave in one write. Every send ends with a flush: a buffer that waits
        // would hold a token back.
        .write_buffer_size(32 * 1024)
        // The library allocates it at once: the default of 128 KiB is 1.3 GB at ten thousand connections.
        .read_buffer_size(16 * 1024)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}
