//! WebSocket clients that are not ours: one by a library, one frame by frame.
#![allow(dead_code, reason = "each test file uses its own part")]

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokenlag_proxy::{UpstreamApi, WsLimits};
use tokenlag_scripted::{Script, ScriptedBackend};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::stack::{IDLE, Stack, get};

pub type Socket = WebSocketStream<TcpStream>;

/// A proxy in front of a backend with this script.
pub fn start(script: &str) -> Stack {
    limited(script, |_| {})
}

/// A proxy whose WebSockets have these bounds.
pub fn limited(script: &str, adjust: impl FnOnce(&mut WsLimits)) -> Stack {
    let script = Script::default().with(script).unwrap();
    let backend = ScriptedBackend::start(script).unwrap();
    let upstream = backend.url().parse().unwrap();
    Stack::in_front_of(backend, upstream, |mut options| {
        // Nothing is asked of the backend but what the test asks.
        options.upstream_api = UpstreamApi::Responses;
        adjust(&mut options.websocket);
        options
    })
}

pub async fn connect(stack: &Stack) -> Socket {
    connect_with(stack, &[]).await
}

pub async fn connect_with(stack: &Stack, headers: &[(&'static str, &str)]) -> Socket {
    let stream = TcpStream::connect(stack.addresses.listen).await.unwrap();
    let url = format!("ws://{}/v1/responses", stack.addresses.listen);
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    client_async(request, stream).await.unwrap().0
}

pub async fn say(socket: &mut Socket, message: &Value) {
    let text = message.to_string();
    socket.send(Message::text(text)).await.unwrap();
}

/// A create in a lane, that is not to be stored.
pub fn create(lane: Option<&str>, input: &str, previous: Option<&str>) -> Value {
    let mut create = json!({"type": "response.create", "model": "m", "input": input, "max_output_tokens": 3, "store": false});
    if let Some(lane) = lane {
        create["stream_id"] = json!(lane);
    }
    if let Some(previous) = previous {
        create["previous_response_id"] = json!(previous);
    }
    create
}

/// The next message; `Err` is the server's farewell.
pub async fn next(socket: &mut Socket) -> Result<Value, Option<CloseFrame>> {
    loop {
        let message = timeout(IDLE, socket.next()).await.expect("in time");
        match message {
            Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
            Some(Ok(Message::Pong(_) | Message::Ping(_))) => {}
            Some(Ok(Message::Close(frame))) => return Err(frame),
            Some(Ok(other)) => panic!("{other:?}"),
            Some(Err(error)) => panic!("{error}"),
            None => return Err(None),
        }
    }
}

pub async fn event(socket: &mut Socket) -> Value {
    next(socket).await.expect("an event")
}

/// The next event of a type, whatever comes before it.
pub async fn event_of_type(socket: &mut Socket, kind: &str) -> Value {
    loop {
        let event = event(socket).await;
        if event["type"] == kind {
            return event;
        }
    }
}

/// Returns when the server has read all that was sent; events that come meanwhile are passed over.
pub async fn all_read(socket: &mut Socket) {
    let ping = Message::Ping(Bytes::from_static(b"all read?"));
    socket.send(ping).await.unwrap();
    loop {
        match timeout(IDLE, socket.next()).await.expect("in time") {
            Some(Ok(Message::Pong(_))) => return,
            Some(Ok(Message::Text(_))) => {}
            other => panic!("{other:?}"),
        }
    }
}

pub fn is_last(event: &Value) -> bool {
    event["type"] == "response.completed" || event["type"] == "error"
}

/// The next terminal event.
pub async fn last_event(socket: &mut Socket) -> Value {
    loop {
        let event = event(socket).await;
        if is_last(&event) {
            return event;
        }
    }
}

/// One turn in a lane where nothing else is under way: the terminal event.
pub async fn turn(socket: &mut Socket, message: &Value) -> Value {
    say(socket, message).await;
    last_event(socket).await
}

/// The id of a finished response.
pub fn id(event: &Value) -> &str {
    assert_eq!(event["type"], "response.completed", "{event}");
    event["response"]["id"].as_str().unwrap()
}

/// How many were turned away at the WebSocket door for this reason.
pub async fn refused(stack: &Stack, reason: &str) -> u64 {
    let (_, metrics) = get(stack.addresses.admin, "/metrics").await;
    let sample = format!("tokenlag_refused_total{{door=\"ws\",reason=\"{reason}\"}} ");
    let mut lines = metrics.lines();
    let value = lines.find_map(|line| line.strip_prefix(&sample));
    value.map_or(0, |value| value.parse().unwrap())
}

/// A client that writes frames itself.
pub struct Raw(pub TcpStream);

const HANDSHAKE: &str = "GET /v1/responses HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
                         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

impl Raw {
    /// Opens a WebSocket; gives the answer's head too.
    pub async fn open(stack: &Stack, fields: &str) -> (Self, String) {
        let mut stream = TcpStream::connect(stack.addresses.listen).await.unwrap();
        let request = format!("{HANDSHAKE}{fields}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        (Self(stream), String::from_utf8(head).unwrap())
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// The next frame: its first byte and its payload; `None` at the end of the stream.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let read = async {
            let first = self.0.read_u8().await.ok()?;
            let length = match self.0.read_u8().await.ok()? {
                126 => self.0.read_u16().await.ok()?.into(),
                127 => self.0.read_u64().await.ok()?,
                short => short.into(),
            };
            let mut payload = vec![0; length as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            Some((first, payload))
        };
        timeout(IDLE, read).await.expect("in time")
    }

    /// The code of the server's close frame, after which it closes the connection.
    pub async fn close_code(&mut self) -> u16 {
        loop {
            let (first, payload) = self.frame().await.expect("a close frame");
            if first == 0x88 {
                assert_eq!(self.frame().await, None);
                return u16::from_be_bytes([payload[0], payload[1]]);
            }
        }
    }
}

/// A masked frame of a client; `first` has the final bit, the reserved bits and the opcode.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [1, 2, 3, 4];
    let mut frame = vec![first];
    match payload.len() {
        short @ ..126 => frame.push(0x80 | short as u8),
        medium @ ..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((medium as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    let masked = payload.iter().enumerate();
    frame.extend(masked.map(|(place, byte)| byte ^ MASK[place % 4]));
    frame
}
