//! The client-facing channels.

pub(crate) mod http;
pub(crate) mod quic;
mod tunnel;
mod turn;
mod ws;
