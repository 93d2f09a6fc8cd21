//! Transport parameters that both ends share, so that neither makes the other wait.

use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{IdleTimeout, TransportConfig, VarInt};

/// How fast a QUIC connection may send, and what it takes for a sign of a jam (RFC 9438).
pub const CONGESTION_CONTROL: &str = "cubic";

/// How long a peer may be silent before it is taken for gone, which nothing else tells of one that died without a word.
const IDLE: u32 = 15 * 1000;

/// An agent may think for minutes between turns: these hold the connection open meanwhile.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Exchanges that may run side by side on one connection.
const STREAMS: u32 = 256;

/// Streams of one direction that the other end may have open: HTTP/3 uses three, and one more for what has no meaning.
const ONE_WAY_STREAMS: u32 = 8;

/// A stream's window: a 128k-token history is half a megabyte, and must never stall on flow control.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;

/// What all streams of a connection may have sent that was not read yet, or came out of order.
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// Which end a connection is set up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Opens exchanges, and has none opened to it.
    Client,
    /// Takes exchanges.
    Server,
}

pub(crate) fn config(side: Side) -> Arc<TransportConfig> {
    let exchanges = match side {
        Side::Client => 0,
        Side::Server => STREAMS,
    };
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .congestion_controller_factory(Arc::new(CubicConfig::default()))
        .max_concurrent_bidi_streams(VarInt::from_u32(exchanges))
        .max_concurrent_uni_streams(VarInt::from_u32(ONE_WAY_STREAMS))
        // Nothing here sends datagrams.
        .datagram_receive_buffer_size(None)
        // What a slow reader may leave unread at the writer's side, before the writer has to wait.
        .send_window(u64::from(STREAM_WINDOW))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW));
    Arc::new(config)
}
