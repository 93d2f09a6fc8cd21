//! WebSocket (RFC 6455) in the Responses API's mode: JSON text messages, one connection, many exchanges.
//!
//! The library is tokio-tungstenite: the one in widest use, and it reads from the socket only when its buffer holds no
//! whole message, so that the last read's stamp is that of the read which completed the message.
//!
//! It has no permessage-deflate (RFC 7692); an offer of it is declined by not being answered, as the standard has it, and
//! clients go on without. That is a choice. Two kept crates have it, yawc and sockudo-ws; either would replace the whole
//! library under the stamps, and would have to be shown to read as exactly first. A connection with compression takes some
//! 300 KiB more (zlib: 256 to deflate, 40 to inflate), ten thousand of them 3 GB. And compression changes how many bytes a
//! token takes: it belongs into the comparison as a factor of its own, and not into a row that is called `ws`.

mod client;
mod farewell;
mod frames;
pub mod lanes;
mod opening;
mod server;
mod socket;
mod websocket;

pub use client::{Client, ClientReply};
pub use farewell::Farewell;
pub use opening::{NotOpened, dial};
pub use server::{NotGranted, Upgrade};
pub use tokio_tungstenite::tungstenite::Utf8Bytes as Text;
pub use websocket::{Received, WebSocket};

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
