//! The transports, both ends side by side: HTTP/1.1, HTTP/2, HTTP/3, WebSocket, raw QUIC; and TLS under them.
//!
//! The dialling end is one enum, [`Channel`]: `open(request) -> Reply`, `Reply::next() -> Option<Chunk>`.
//! A read is stamped when the call that carried it returned, before a byte of it is parsed; a write is stamped
//! before the call that carries the byte in question. Where [`Stamping`] says so, the kernel stamps what a dialled socket
//! receives, as it comes.

pub mod accept;
mod bell;
mod bounds;
mod chunk;
mod dial;
pub mod distance;
mod error;
mod fields;
pub mod http;
pub mod http2;
pub mod http3;
mod incoming;
mod kept;
mod overlap;
mod pieces;
pub mod quic;
mod request;
mod segments;
mod socket;
mod stamped;
mod stamping;
pub mod tcp;
mod timers;
pub mod tls;
mod turns;
mod url;
mod watch;
mod wire;
mod witness;
pub mod ws;

pub use bounds::{ExchangeLimits, Room, Share};
pub use chunk::Chunk;
pub use dial::{Channel, Counters, Datagrams, Dial, Opening, Reply};
pub use error::{ChannelError, STALE_WITHIN};
pub use incoming::{ExchangeError, Incoming};
pub use request::{Ask, Message, Request};
pub use socket::Socket;
pub use stamping::Stamping;
pub use turns::TurnAhead;
pub use url::{BadUrl, BaseUrl};
pub use watch::SocketWatch;
