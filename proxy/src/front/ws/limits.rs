//! Bounds of a client's WebSocket.

use std::time::Duration;

/// Responses of one connection that are made at a time; further creates wait.
pub(super) const ACTIVE: usize = 16;

/// Lanes that a connection can name in its life. The default lane has no name.
pub(super) const NAMED_LANES: usize = 32;

/// Creates of one connection that wait for their turn. Beyond it the connection is not read on: its client is left to wait.
pub(super) const WAITING: usize = 256;

/// Bytes of all creates of one connection that wait or are answered. Beyond it the connection is not read on.
pub(super) const HELD: usize = 128 * 1024 * 1024;

/// Pings in a row that may stay without any sign of life.
pub(super) const UNANSWERED_PINGS: u32 = 2;

/// Bounds in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WsLimits {
    /// How old a connection may get. Then no further create is taken, and it is closed once the last response has ended.
    pub age: Duration,
    /// How long a client may be silent before it is pinged. One that leaves two pings without any sign of life for as long
    /// again is taken for gone.
    pub silence: Duration,
    /// How long a client may take not one byte of what is sent to it.
    pub stalled: Duration,
}

impl Default for WsLimits {
    /// The age is that of OpenAI's own service.
    fn default() -> Self {
        Self {
            age: Duration::from_secs(60 * 60),
            silence: Duration::from_secs(30),
            stalled: Duration::from_secs(120),
        }
    }
}
