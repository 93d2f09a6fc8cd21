//! A raw HTTP/1.1 client: one request a connection, and the reply's bytes by the read that brought them.

use std::net::SocketAddr;

use serde_json::Value;
use tokenlag_dialect::{Decoder, Dialect, Framing};
use tokenlag_probes::{Outcome, Stamp, TokenMark, Usage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) struct Client(SocketAddr);

/// A reply read to its end.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// A reply whose head was read.
pub(crate) struct Stream {
    socket: TcpStream,
    pub(crate) status: u16,
    pub(crate) head: String,
    body: Dechunk,
}

/// A streamed reply as the dialect's decoder reads it.
pub(crate) struct Streamed {
    pub(crate) events: Vec<(String, Vec<u8>)>,
    /// A mark's chunk is the read that brought it.
    pub(crate) marks: Vec<TokenMark>,
    pub(crate) usage: Option<Usage>,
    pub(crate) outcome: Option<Outcome>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self(address)
    }

    /// Connects and sends bytes.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> std::io::Result<TcpStream> {
        let mut socket = TcpStream::connect(self.0).await?;
        socket.set_nodelay(true)?;
        socket.write_all(bytes).await?;
        Ok(socket)
    }

    /// Sends a request; the reply is read by others.
    pub(crate) async fn send(&self, method: &str, path: &str, body: &str) -> TcpStream {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        self.raw(request.as_bytes()).await.unwrap()
    }

    /// Posts a body, and waits for the reply's head.
    pub(crate) async fn open(&self, path: &str, body: &Value) -> Stream {
        Stream::of(self.send("POST", path, &body.to_string()).await).await
    }

    pub(crate) async fn request(&self, method: &str, path: &str, body: &str) -> Reply {
        Stream::of(self.send(method, path, body).await)
            .await
            .rest()
            .await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.request("GET", path, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.request("POST", path, &body.to_string()).await
    }

    /// Posts a body that must be answered well, and reads the stream.
    pub(crate) async fn stream(&self, path: &str, body: &Value) -> Streamed {
        self.open(path, body).await.decode(path).await
    }
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    /// The JSON of a reply of status 200.
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }
}

impl Stream {
    /// Reads the head of the reply.
    pub(crate) async fn of(mut socket: TcpStream) -> Self {
        let mut bytes = Vec::new();
        let end = loop {
            let read = socket.read_buf(&mut bytes).await.unwrap();
            assert!(
                read > 0,
                "the reply ended within its head: {}",
                String::from_utf8_lossy(&bytes)
            );
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = String::from_utf8(bytes[..end].to_vec())
            .unwrap()
            .to_lowercase();
        let mut body = Dechunk {
            chunked: head.contains("transfer-encoding: chunked"),
            pending: bytes[end..].to_vec(),
        };
        if !body.chunked {
            // Until the connection closes: every request asks for that.
            socket.read_to_end(&mut body.pending).await.unwrap();
        }
        Self {
            socket,
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            body,
        }
    }

    /// The body's bytes of one read; `None` at the end. The first are those that came with the head.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let bytes = self.body.take();
            if !bytes.is_empty() {
                return Some(bytes);
            }
            if self.socket.read_buf(&mut self.body.pending).await.unwrap() == 0 {
                return None;
            }
        }
    }

    pub(crate) async fn rest(mut self) -> Reply {
        let mut body = Vec::new();
        while let Some(bytes) = self.next().await {
            body.extend(bytes);
        }
        Reply {
            status: self.status,
            head: self.head,
            body,
        }
    }

    pub(crate) async fn decode(mut self, path: &str) -> Streamed {
        assert_eq!(self.status, 200, "{}", self.head);
        assert!(
            self.head.contains("content-type: text/event-stream"),
            "{}",
            self.head
        );
        let mut decoder = Decoder::new(Dialect::of_path(path).unwrap(), Framing::Sse);
        let (mut marks, mut events, mut read) = (Vec::new(), Vec::new(), 0);
        while let Some(bytes) = self.next().await {
            decoder
                .feed_events(
                    Stamp::from_nanos(0),
                    read,
                    &bytes,
                    &mut marks,
                    &mut |event, _| {
                        let name = String::from_utf8(event.name.to_vec()).unwrap();
                        events.push((name, event.data.to_vec()));
                    },
                )
                .unwrap();
            read += 1;
        }
        assert_eq!(decoder.unreadable(), 0);
        Streamed {
            events,
            marks,
            usage: decoder.usage(),
            outcome: decoder.outcome(),
        }
    }
}

impl Streamed {
    /// The JSON of every event; `[DONE]` is null.
    pub(crate) fn json(&self) -> Vec<Value> {
        let parse =
            |(_, data): &(String, Vec<u8>)| serde_json::from_slice(data).unwrap_or(Value::Null);
        self.events.iter().map(parse).collect()
    }

    /// All strings at a place of the events, joined.
    pub(crate) fn text(&self, pointer: &str) -> String {
        let events = self.json();
        events
            .iter()
            .filter_map(|event| event.pointer(pointer)?.as_str())
            .collect()
    }
}

/// Takes the chunked coding off.
struct Dechunk {
    chunked: bool,
    pending: Vec<u8>,
}

impl Dechunk {
    fn take(&mut self) -> Vec<u8> {
        if !self.chunked {
            return std::mem::take(&mut self.pending);
        }
        let mut out = Vec::new();
        while let Some(line) = self.pending.windows(2).position(|window| window == b"\r\n") {
            let size = std::str::from_utf8(&self.pending[..line]).unwrap();
            let size = usize::from_str_radix(size, 16).unwrap();
            let end = line + 2 + size;
            if self.pending.len() < end + 2 {
                break;
            }
            out.extend_from_slice(&self.pending[line + 2..end]);
            self.pending.drain(..end + 2);
        }
        out
    }
}
