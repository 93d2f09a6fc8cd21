//! A backend with known token times: a measuring instrument.
//!
//! An OpenAI-compatible HTTP/1.1 server that computes nothing. A [`Script`] says when each token leaves, how events lie in
//! writes, and how the reply ends; a request may bring its own in the header `x-script`. The moment immediately before the
//! write of each delta is kept by trace id, so that a test can compare what was measured with what was done.
//!
//! Blocking sockets, a thread per connection, absolute schedules with a short spin at the end of each wait: nothing of
//! what is measured (channels, runtimes) is part of the instrument.

mod backend;
mod connection;
mod http;
mod journal;
mod play;
mod reply;
mod request;
mod script;
mod wait;

pub use backend::ScriptedBackend;
pub use journal::ReceivedRequest;
pub use script::{BadScript, Early, Ending, Script, Stall};

/// The request header that brings a script.
pub const SCRIPT_HEADER: &str = "x-script";
