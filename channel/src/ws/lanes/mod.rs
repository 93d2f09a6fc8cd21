//! Exchanges that share a WebSocket, each session's in a lane of its own (`stream_id`).
//!
//! A session has its lane from its first exchange to its end, since a server keeps the latest response of each lane to go on
//! from. A connection has [`SIDE_BY_SIDE`] of them at a time, as many as a server answers at once; whoever comes when all are
//! taken shares a further connection. An exchange that is given up leaves its lane to the server until the response has
//! ended there: what still comes of it is passed over, and the lane has no session until then.
//!
//! A task of the connection reads it, and hands each event to the exchange of its lane, with the stamp of its read. So the
//! lanes do not wait for each other: what one of them does not take lies there for it, to [`UNREAD`] bytes. One that leaves
//! more has its exchange ended with an error, and the others go on.

mod client;
mod exchange;
mod lane;
mod line;
mod seats;
#[cfg(test)]
mod tests;

pub use client::{Client, ClientReply};

/// Lanes of a connection that have a session, or a response under way, at a time.
const SIDE_BY_SIDE: u32 = 16;

/// Lanes that a connection may name in its life.
const NAMES: usize = 32;

/// Bytes of events that may lie unread in a lane beside the oldest, which may be of any length.
const UNREAD: usize = 8 * 1024 * 1024;

/// The name of a lane.
fn name(lane: u8) -> String {
    format!("lane-{lane}")
}

/// The lane of that name.
fn lane_of(name: &str) -> Option<usize> {
    let number = name.strip_prefix("lane-")?;
    let lane: u8 = number.parse().ok()?;
    let canonical = !number.starts_with('+') && (number.len() == 1 || !number.starts_with('0'));
    (canonical && usize::from(lane) < NAMES).then_some(lane.into())
}
