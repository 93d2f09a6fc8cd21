//! A backend with known token times: a measuring instrument.
//!
//! An OpenAI-compatible server that computes nothing. A [`Script`] says when each token leaves, how events lie in writes, and
//! how the reply ends; a request may bring its own in the header `x-script`. The moment immediately *before* the write of each
//! delta is kept by trace id, so that a test can compare what was measured with what was done, and how late that moment was
//! after its script is kept too: [`Lateness`].
//!
//! Over plain HTTP/1.1 nothing of what is measured is part of the instrument: blocking sockets that are read by a thread for
//! each connection, and one thread that does all timed writes, on absolute schedules. The other channels are spoken through
//! [`Doors`], by the accepting ends of `tokenlag-channel`: there the stamp is taken before an event is handed to the channel,
//! so that what the accepting end takes to write it counts as the path's.
//!
//! What a channel has no form for is played in its own: an event is one message on a WebSocket and one frame of events on
//! the raw QUIC channel, and leaves whole with its last piece; a ping is a WebSocket's own, and none on the raw channel; a
//! reply that is closed or reset resets its stream where the connection carries others, and closes it elsewhere.

mod alarm;
mod answer;
mod backend;
mod conductor;
mod connection;
mod doors;
mod http;
mod journal;
mod lateness;
mod out;
mod pace;
mod play;
mod reply;
mod request;
mod script;
mod socket;
mod wait;

pub use backend::ScriptedBackend;
pub use doors::Doors;
pub use journal::ReceivedRequest;
pub use lateness::Lateness;
pub use pace::Pace;
pub use script::{BadScript, Early, Ending, Script, Stall};

/// The request header that brings a script.
pub const SCRIPT_HEADER: &str = "x-script";
