//! The accepting end of `ws`: an HTTP request becomes a WebSocket, or is told why not.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::socket::Stamped;
use super::websocket::WebSocket;
use crate::http::render::{push_field, start_response};
use crate::http::{Framing, RequestHead, ServerConnection};

/// A request to open a WebSocket that can be granted (RFC 6455, section 4.2.1).
#[derive(Debug)]
pub struct Upgrade {
    accept: String,
}

/// Why a WebSocket is not opened: the HTTP answer that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotGranted {
    /// The status.
    pub status: u16,
    /// The reason phrase.
    pub reason: &'static str,
    /// Fields beside those of any answer.
    pub fields: &'static [(&'static str, &'static str)],
    /// The reason in words.
    pub message: &'static str,
}

impl NotGranted {
    const fn bad_request(message: &'static str) -> Self {
        Self {
            status: 400,
            reason: "Bad Request",
            fields: &[],
            message,
        }
    }
}

impl Upgrade {
    /// Reads the request.
    ///
    /// # Errors
    /// It is not as the protocol has it.
    pub fn of(head: &RequestHead) -> Result<Self, NotGranted> {
        let headers = &head.headers;
        if headers.get("sec-websocket-version").map(str::trim) != Some("13") {
            return Err(NotGranted {
                status: 426,
                reason: "Upgrade Required",
                fields: &[("sec-websocket-version", "13")],
                message: "only version 13 of WebSocket is spoken here",
            });
        }
        if head.framing() != Ok(Framing::Empty) {
            let why = "a request that opens a WebSocket has no body";
            return Err(NotGranted::bad_request(why));
        }
        match headers.get("sec-websocket-key").map(str::trim) {
            Some(key) if is_key(key) => Ok(Self {
                accept: derive_accept_key(key.as_bytes()),
            }),
            _ => Err(NotGranted::bad_request(
                "Sec-WebSocket-Key is not the base64 of 16 bytes",
            )),
        }
    }

    /// Opens the WebSocket. `fields` go into the answer beside those of the opening; a client that takes not one byte for
    /// `stalled` is given up.
    ///
    /// Extensions that the client offers are declined by not being named (section 9.1).
    ///
    /// # Errors
    /// The client is gone.
    pub async fn grant<'a>(
        self,
        mut connection: ServerConnection,
        fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
        stalled: Duration,
    ) -> io::Result<WebSocket> {
        let mut response = Vec::with_capacity(256);
        start_response(&mut response, 101, "Switching Protocols");
        push_field(&mut response, b"upgrade", b"websocket");
        push_field(&mut response, b"connection", b"Upgrade");
        push_field(
            &mut response,
            b"sec-websocket-accept",
            self.accept.as_bytes(),
        );
        for (name, value) in fields {
            push_field(&mut response, name, value);
        }
        response.extend_from_slice(b"\r\n");
        connection.write_all(&response).await?;
        let room = Arc::clone(connection.room());
        let socket = Stamped::after_opening(connection.into_wire(), &room);
        Ok(WebSocket::new(socket, Role::Server, stalled, Some(room)).await)
    }
}

/// Whether the text has the form of 16 bytes in base64.
fn is_key(key: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    key.strip_suffix("==")
        .is_some_and(|digits| digits.len() == 22 && digits.bytes().all(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    fn check(fields: &str, expected: Option<u16>) {
        let head = format!("GET /v1/responses HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
        let head = RequestHead::take(&mut BytesMut::from(head.as_bytes()));
        let refused = Upgrade::of(&head.unwrap().unwrap()).err();
        assert_eq!(refused.map(|refused| refused.status), expected, "{fields}");
    }

    const KEY: &str = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    const VERSION: &str = "sec-websocket-version: 13\r\n";

    #[test]
    fn what_the_protocol_asks_of_an_opening() {
        check(&format!("{KEY}{VERSION}"), None);
        check(
            &format!(
                "{KEY}{VERSION}sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n"
            ),
            None,
        );
        check(KEY, Some(426));
        check(&format!("{KEY}sec-websocket-version: 8\r\n"), Some(426));
        check(VERSION, Some(400));
        check(
            &format!("{VERSION}sec-websocket-key: c2hvcnQ=\r\n"),
            Some(400),
        );
        check(
            &format!("{VERSION}sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ__\r\n"),
            Some(400),
        );
        check(&format!("{KEY}{VERSION}content-length: 4\r\n"), Some(400));
        check(
            &format!("{KEY}{VERSION}transfer-encoding: chunked\r\n"),
            Some(400),
        );
    }

    #[test]
    fn the_key_is_answered_as_the_standard_shows() {
        let head = format!("GET / HTTP/1.1\r\nhost: a\r\n{KEY}{VERSION}\r\n");
        let head = RequestHead::take(&mut BytesMut::from(head.as_bytes()));
        let upgrade = Upgrade::of(&head.unwrap().unwrap()).unwrap();
        assert_eq!(upgrade.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
