//! The client-facing channels.

mod exchange;
pub(crate) mod http;
mod http3;
mod quic;
mod tunnel;
mod turn;
pub(crate) mod udp;
mod ws;

pub use ws::WsLimits;
