//! The client-facing channels.

mod exchange;
mod http;
mod http2;
mod http3;
mod quic;
pub(crate) mod tcp;
mod tunnel;
mod turn;
pub(crate) mod udp;
mod ws;

pub use ws::WsLimits;
