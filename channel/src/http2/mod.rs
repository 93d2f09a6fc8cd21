//! HTTP/2 with the h2 library over a socket of our own, which walks the frames: the library hands bodies between tasks
//! after the read, and writes what it is given when its turn comes.

mod client;
pub mod frames;
mod ledger;
mod link;
mod live;
mod nudge;
mod server;
mod settings;
mod slots;
mod unanswered;
mod writer;

pub use client::{Client, ClientReply};
pub use server::{Accepted, Exchange};
pub use settings::{MAX_HEAD, MAX_STREAMS};
pub use writer::ReplyWriter;

/// HTTP/2's name in ALPN.
pub const ALPN: &[u8] = b"h2";

/// The name of an error code (RFC 9113, section 7), as a counter's label.
fn code_name(code: u32) -> &'static str {
    match code {
        0x1 => "protocol_error",
        0x2 => "internal_error",
        0x3 => "flow_control_error",
        0x4 => "settings_timeout",
        0x5 => "stream_closed",
        0x6 => "frame_size_error",
        0x7 => "refused_stream",
        0x8 => "cancel",
        0x9 => "compression_error",
        0xa => "connect_error",
        0xb => "enhance_your_calm",
        0xc => "inadequate_security",
        0xd => "http_1_1_required",
        _ => "no_error",
    }
}
