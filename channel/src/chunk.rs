//! What one read of a socket released of one exchange.

use bytes::Bytes;
use tokenlag_probes::Stamp;

/// Bytes of one exchange's reply that one read released.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// When the read returned, or where [`crate::Stamping`] says so, when the kernel received the last of what it returned.
    pub at: Stamp,
    /// Ordinal of the read among those that carried bytes of this exchange, from 0. WebSocket messages and QUIC
    /// events that one read released share it.
    pub ordinal: u32,
    /// The bytes: a piece of the body where the reply is framed as SSE, one whole event where it is messages.
    pub bytes: Bytes,
}
