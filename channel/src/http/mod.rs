//! HTTP/1.1 with a reader of our own on the socket, so that a byte is stamped where it was read.

pub mod body;
mod client;
mod connection;
pub mod head;
mod headers;
pub mod render;
mod server;
mod server_error;

pub use body::{BodyDecoder, BodyError};
pub use client::{Client, ClientReply, Reuse};
pub use connection::{ALPN, Connection, Dialled, Response, ResponseBody};
pub use head::{Framing, HeadError, Headers, MAX_HEAD, RequestHead, ResponseHead};
pub use server::{Incoming, ServerConnection};
pub use server_error::ServerError;
