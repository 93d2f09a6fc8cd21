//! The accepting end of `ws`.

use std::io;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokenlag_probes::{Clock, MonoClock, Stamp};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::config;
use super::socket::Stamped;
use crate::http::render::{push_field, start_response};
use crate::http::{RequestHead, ServerConnection};

/// A WebSocket that was accepted.
#[derive(Debug)]
pub struct Accepted {
    socket: WebSocketStream<Stamped>,
}

/// What a client sent.
#[derive(Debug)]
pub enum Received {
    /// A text message, with the stamps of the first and the last read that carried it.
    Text {
        /// The message.
        text: Utf8Bytes,
        /// Read with its first byte.
        in_head: Stamp,
        /// Read with its last byte.
        in_body: Stamp,
    },
    /// A binary message; the Responses API has none.
    Binary,
    /// The client is gone, politely or not.
    Closed,
}

/// Why a server says goodbye (RFC 6455, section 7.4.1, and its registry).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// 1001: the server is going away.
    GoingAway,
    /// 1009: a message was too long.
    TooBig,
}

/// Opens the WebSocket that `head` asks for, or tells the client why not: `None` then.
///
/// # Errors
/// The client is gone.
pub async fn accept(
    mut connection: ServerConnection,
    head: &RequestHead,
) -> io::Result<Option<Accepted>> {
    if head.headers.get("sec-websocket-version") != Some("13") {
        let fields = [("sec-websocket-version", "13"), ("connection", "close")];
        let why = b"only version 13 of WebSocket is spoken here\n";
        connection
            .respond(426, "Upgrade Required", &fields, why)
            .await?;
        return Ok(None);
    }
    let Some(key) = head.headers.get("sec-websocket-key") else {
        let why = b"Sec-WebSocket-Key is missing\n";
        connection
            .respond(400, "Bad Request", &[("connection", "close")], why)
            .await?;
        return Ok(None);
    };
    let mut response = Vec::with_capacity(256);
    start_response(&mut response, 101, "Switching Protocols");
    push_field(&mut response, b"upgrade", b"websocket");
    push_field(&mut response, b"connection", b"Upgrade");
    push_field(
        &mut response,
        b"sec-websocket-accept",
        derive_accept_key(key.trim().as_bytes()).as_bytes(),
    );
    response.extend_from_slice(b"\r\n");
    connection.write_all(&response).await?;
    let stamped = Stamped::after_opening(connection.into_wire());
    let socket = WebSocketStream::from_raw_socket(stamped, Role::Server, Some(config())).await;
    Ok(Some(Accepted { socket }))
}

impl Accepted {
    /// The next message. May be cancelled without loss.
    ///
    /// # Errors
    /// The client broke the protocol, or sent a message that is too long; say which with a farewell.
    pub async fn receive(&mut self) -> Result<Received, (Farewell, String)> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    let (in_head, in_body) = self.socket.get_mut().take_message_stamps();
                    return Ok(Received::Text {
                        text,
                        in_head,
                        in_body,
                    });
                }
                Some(Ok(Message::Binary(_))) => return Ok(Received::Binary),
                // The library answers pings itself. Their reads are none of the next message's.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                    self.socket.get_mut().take_message_stamps();
                }
                Some(Err(Error::Capacity(error))) => {
                    return Err((Farewell::TooBig, error.to_string()));
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(Received::Closed),
            }
        }
    }

    /// Sends text messages and flushes them; the stamp was taken before the write that carried the last of them.
    ///
    /// # Errors
    /// The client is gone, or the bytes are not UTF-8 ([`io::ErrorKind::InvalidData`]).
    pub async fn send(&mut self, texts: impl Iterator<Item = Bytes>) -> io::Result<Stamp> {
        let mut sent = false;
        for text in texts {
            let text = Utf8Bytes::try_from(text)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            self.socket
                .feed(Message::Text(text))
                .await
                .map_err(io_error)?;
            sent = true;
        }
        if !sent {
            return Ok(MonoClock.now());
        }
        self.socket.flush().await.map_err(io_error)?;
        Ok(self.socket.get_ref().written_at())
    }

    /// Closes with a reason.
    pub async fn close(mut self, farewell: Farewell, reason: &str) {
        let code = match farewell {
            Farewell::GoingAway => CloseCode::Away,
            Farewell::TooBig => CloseCode::Size,
        };
        let frame = CloseFrame {
            code,
            reason: Utf8Bytes::from(reason),
        };
        // The client may be gone already.
        let _ = self.socket.close(Some(frame)).await;
    }
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::other(other),
    }
}
