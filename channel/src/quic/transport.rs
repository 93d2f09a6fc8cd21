//! Transport parameters that both ends share, so that neither makes the other wait.

use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{IdleTimeout, TransportConfig, VarInt};

/// How fast a QUIC connection may send, and what it takes for a sign of a jam (RFC 9438).
pub const CONGESTION_CONTROL: &str = "cubic";

/// An agent may think for minutes between turns; keep-alives hold the connection open meanwhile.
const IDLE: u32 = 5 * 60 * 1000;
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Exchanges that may run side by side on one connection.
const STREAMS: u32 = 256;

/// A stream's window: a 128k-token history is half a megabyte, and must never stall on flow control.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;

pub(crate) fn config() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .congestion_controller_factory(Arc::new(CubicConfig::default()))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        // What a slow reader may leave unread at the writer's side, before the writer has to wait.
        .send_window(u64::from(STREAM_WINDOW))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW));
    Arc::new(config)
}
