//! The HTTP API on the embedded model: a real server, a raw client, both on one thread.
//!
//! One thread makes arrivals exact: the client runs between two steps of the engine, so it sees what left in between.

mod chat;
mod client;
mod completions;
mod errors;
mod harness;
mod lifetimes;
mod pages;
mod responses;
