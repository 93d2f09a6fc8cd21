//! Bounds of a client's WebSocket.

use std::time::Duration;

/// Responses of one connection that are made at a time; further creates wait.
pub(super) const ACTIVE: usize = 16;

/// Lanes that a connection can name in its life. The default lane has no name.
pub(super) const NAMED_LANES: usize = 32;

/// Creates of one connection that wait for their turn. Beyond it the connection is not read on: its client is left to wait.
pub(super) const WAITING: usize = 256;

/// Pings in a row that may stay without any sign of life while a response is under way.
pub(super) const UNANSWERED_PINGS: u32 = 2;

/// Bounds in time, and in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WsLimits {
    /// How old a connection may get. Then no further create is taken, and it is closed once the last response has ended.
    pub age: Duration,
    /// How long a client may be silent before it is pinged, which also keeps the path open. One that leaves two pings in a
    /// row without any sign of life, and for as long again, is given up where a response is under way: it should be
    /// reading. Between responses it is left alone, for many clients answer pings only while they read, and a tool may take
    /// long; hosts that are gone are found by TCP's own probes.
    pub silence: Duration,
    /// How long a message may take from its first byte to its last.
    pub message: Duration,
    /// How long a client may take not one byte of what is sent to it.
    pub stalled: Duration,
    /// Bytes of all creates of one connection that wait or are answered. Beyond it the connection is not read on.
    pub held: usize,
}

impl Default for WsLimits {
    /// The age is that of OpenAI's own service.
    fn default() -> Self {
        Self {
            age: Duration::from_secs(60 * 60),
            silence: Duration::from_secs(30),
            message: Duration::from_secs(300),
            stalled: Duration::from_secs(120),
            held: 128 * 1024 * 1024,
        }
    }
}
