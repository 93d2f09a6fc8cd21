//! The dialling end's opening handshake (RFC 6455, section 4.1).

use bytes::{Bytes, BytesMut};
use tokenlag_probes::Stamp;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::socket::Stamped;
use super::websocket::WebSocket;
use crate::bounds::Room;
use crate::http::render::{check_field, push_field, start_request};
use crate::http::{Connection, Response, ResponseHead};
use crate::{ChannelError, Dial, tcp};

/// The most of a refusal's body that is kept.
const REFUSAL: usize = 64 * 1024;

/// The most of a refusal's body that an error shows.
const SHOWN: usize = 200;

/// Why no WebSocket was opened.
#[derive(Debug)]
pub enum NotOpened {
    /// The server answered with something else than 101.
    Refused {
        /// The answer's head.
        head: ResponseHead,
        /// The answer's body, up to a bound.
        body: Bytes,
    },
    /// There is no answer that could be used.
    Failed(ChannelError),
}

impl From<ChannelError> for NotOpened {
    fn from(error: ChannelError) -> Self {
        Self::Failed(error)
    }
}

impl NotOpened {
    /// The error of a client that wanted to dial.
    fn into_error(self, dial: &Dial) -> ChannelError {
        match self {
            Self::Refused { head, body } => ChannelError::Handshake {
                address: dial.authority(),
                protocol: "WebSocket",
                reason: explained(&head, &body),
            },
            Self::Failed(error) => error,
        }
    }
}

/// A refusal with what to do about it.
fn explained(head: &ResponseHead, body: &[u8]) -> String {
    let remedy = match head.status {
        401 | 403 => "; check the key that is sent as Authorization",
        404 | 405 => {
            "; it has no WebSocket at this path: check the path, or choose another channel"
        }
        426 => {
            "; it does not speak this version of WebSocket, or none at all: choose another channel"
        }
        429 | 503 => "; it takes no further connection now",
        200..=299 => "; it took the opening for an ordinary request: choose another channel",
        _ => "",
    };
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    let shown = &text[..text.floor_char_boundary(SHOWN)];
    let said = if shown.is_empty() {
        String::new()
    } else {
        format!(": {}", shown.escape_debug())
    };
    format!("it answered {} {}{said}{remedy}", head.status, head.reason)
}

/// Opens a WebSocket at the dial's own path, with its headers.
///
/// # Errors
/// A header that cannot be sent, no connection, or a server that refuses.
pub(super) async fn open_as_said(dial: &Dial) -> Result<Opened, ChannelError> {
    for (name, value) in &dial.headers {
        check_field(name, value)?;
    }
    let fields = dial.headers.iter();
    let fields = fields.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let opened = open(dial, &dial.path, fields).await;
    opened.map_err(|error| error.into_error(dial))
}

/// A socket after its opening, the server's answer, and the stamps of its making.
pub(super) struct Opened {
    pub(super) socket: Stamped,
    pub(super) head: ResponseHead,
    pub(super) resolved: Stamp,
    pub(super) transport_connected: Stamp,
}

/// Opens a WebSocket at `target` with `fields` beside those of the opening, and gives it with the head of the server's
/// answer. The dial's own path and headers are not looked at.
///
/// # Errors
/// No connection, or a server that refuses.
pub async fn dial<'a>(
    dial: &Dial,
    target: &str,
    fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    stalled: std::time::Duration,
) -> Result<(WebSocket, ResponseHead), NotOpened> {
    let opened = open(dial, target, fields).await?;
    let socket = WebSocket::new(opened.socket, Role::Client, stalled, None).await;
    Ok((socket, opened.head))
}

async fn open<'a>(
    dial: &Dial,
    target: &str,
    fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<Opened, NotOpened> {
    let limit = dial.connect_timeout;
    timeout(limit, handshake(dial, target, fields))
        .await
        .unwrap_or_else(|_| Err(tcp::connect_timeout(&dial.host, dial.port, limit).into()))
}

async fn handshake<'a>(
    dial: &Dial,
    target: &str,
    fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<Opened, NotOpened> {
    let key = generate_key();
    let authority = dial.authority();
    let mut request = Vec::with_capacity(512);
    start_request(&mut request, "GET", target, &authority);
    for (name, value) in [
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", &key),
    ] {
        push_field(&mut request, name.as_bytes(), value.as_bytes());
    }
    for (name, value) in fields {
        push_field(&mut request, name, value);
    }
    request.extend_from_slice(b"\r\n");

    let dialled = Connection::dial(dial).await?;
    let mut connection = dialled.connection;
    connection.send(&request).await?;
    let mut response = connection.response("GET", dial.idle_timeout).await?;
    if response.head.status != 101 {
        let body = refusal(&mut connection, &mut response, dial).await;
        return Err(NotOpened::Refused {
            head: response.head,
            body,
        });
    }
    let wrong = |reason: &str| {
        NotOpened::Failed(ChannelError::Handshake {
            address: authority.clone(),
            protocol: "WebSocket",
            reason: reason.to_owned(),
        })
    };
    let headers = &response.head.headers;
    if headers.get("sec-websocket-accept") != Some(&derive_accept_key(key.as_bytes())) {
        return Err(wrong("its Sec-WebSocket-Accept is not that of the key"));
    }
    if headers.get("sec-websocket-extensions").is_some() {
        return Err(wrong("it uses an extension that nobody offered"));
    }
    Ok(Opened {
        // What an upstream sends is asked for.
        socket: Stamped::after_opening(connection.into_wire(), &Room::new(usize::MAX)),
        head: response.head,
        resolved: dialled.resolved,
        transport_connected: dialled.transport_connected,
    })
}

/// What can be had of a refusal's body.
async fn refusal(connection: &mut Connection, response: &mut Response, dial: &Dial) -> Bytes {
    let mut body = BytesMut::new();
    while body.len() < REFUSAL {
        match connection
            .chunk(&mut response.body, dial.idle_timeout)
            .await
        {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk.bytes),
            // The status was there: a body that ends early takes nothing from it.
            Ok(None) | Err(_) => break,
        }
    }
    body.truncate(REFUSAL);
    body.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Headers;

    #[test]
    fn a_refusal_says_what_to_do() {
        let head = |status, reason: &str| ResponseHead {
            status,
            reason: reason.to_owned().into(),
            version: 1,
            headers: Headers::default(),
        };
        assert_eq!(
            explained(&head(426, "Upgrade Required"), b"only version 13\n"),
            "it answered 426 Upgrade Required: only version 13; it does not speak this version of WebSocket, or none at \
             all: choose another channel"
        );
        assert_eq!(
            explained(&head(500, "Internal Server Error"), b""),
            "it answered 500 Internal Server Error"
        );
        let long = explained(&head(401, "Unauthorized"), "ö".repeat(300).as_bytes());
        assert!(long.len() < 300 && long.contains("Authorization"), "{long}");
    }
}
