//! The OpenAI-compatible HTTP API over the engine: one file an endpoint, and what they share.
//!
//! Everything here runs on one thread. The engine is a task among the connections' tasks: it computes one step, hands
//! the tokens to their jobs and yields, so that each token is written to its socket before the next step begins.
//!
//! Lenient where OpenAI's clients are used to it: any model name is served by the one model, and members that mean
//! nothing here (`tools`, `response_format`, ...) are passed by. A slow reader holds up nobody: its tokens (ids, not
//! text) wait in its job's channel, at most as many as the job may generate.

mod answer;
mod body;
mod chat;
mod chunks;
mod completions;
mod error;
mod memory;
mod metrics;
mod models;
mod pace;
mod responses;
pub(crate) mod router;
pub(crate) mod service;
mod stop;
mod worker;
