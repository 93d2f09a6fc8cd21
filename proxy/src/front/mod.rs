//! The client-facing channels.

mod exchange;
pub(crate) mod http;
pub(crate) mod quic;
mod tunnel;
mod turn;
mod ws;
