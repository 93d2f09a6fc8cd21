//! A client of a few lines, with nothing of the project's channels in it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tokenlag_dialect::{Decoder, Dialect, Framing};
use tokenlag_probes::{Clock, MonoClock, Stamp, TokenMark, TraceId};
use tokenlag_scripted::{SCRIPT_HEADER, ScriptedBackend};

/// What came back: head, body without its chunked framing, and how the connection ended.
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// The chunked body had its last chunk, or all of its length came.
    pub whole: bool,
    pub error: Option<io::Error>,
    /// The bytes of each HTTP chunk with the stamp of the read that completed it.
    pub chunks: Vec<(Stamp, Vec<u8>)>,
}

impl Reply {
    /// The deltas, as the project's decoder reads them.
    pub fn decoded(&self, dialect: Dialect) -> (Decoder, Vec<TokenMark>) {
        let mut decoder = Decoder::new(dialect, Framing::Sse);
        let mut marks = Vec::new();
        for (at, (stamp, bytes)) in self.chunks.iter().enumerate() {
            decoder
                .feed(*stamp, at as u32, bytes, &mut marks)
                .expect("no event is too large");
        }
        (decoder, marks)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection that sends one request after another.
pub struct Client {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub fn connect(backend: &ScriptedBackend) -> Self {
        let socket = TcpStream::connect(backend.address()).expect("the backend listens");
        socket.set_nodelay(true).expect("a fresh socket");
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a fresh socket");
        Self {
            socket,
            buffer: Vec::new(),
        }
    }

    /// Sends a request and reads its reply.
    pub fn send(&mut self, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        self.ask(method, path, headers, body);
        self.receive()
    }

    fn ask(&mut self, method: &str, path: &str, headers: &str, body: &str) {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        );
        self.socket
            .write_all(request.as_bytes())
            .expect("the backend reads");
    }

    /// Posts a streamed request with a script, and reads its reply.
    pub fn stream(&mut self, dialect: Dialect, trace: TraceId, script: &str) -> Reply {
        self.begin_stream(dialect, trace, script);
        self.receive()
    }

    /// The same without its reply, which [`Self::receive`] reads.
    pub fn begin_stream(&mut self, dialect: Dialect, trace: TraceId, script: &str) {
        let headers = format!(
            "traceparent: {}\r\n{SCRIPT_HEADER}: {script}\r\n",
            trace.traceparent()
        );
        let body = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"input":"say hi"}"#;
        self.ask("POST", dialect.path(), &headers, body);
    }

    /// Reads the reply to what was asked last.
    pub fn receive(&mut self) -> Reply {
        let mut reply = Reply {
            status: 0,
            head: String::new(),
            body: Vec::new(),
            whole: false,
            error: None,
            chunks: Vec::new(),
        };
        let mut at = MonoClock.now();
        loop {
            if reply.head.is_empty()
                && let Some(end) = find(&self.buffer, b"\r\n\r\n")
            {
                reply.head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                reply.status = reply.head[9..12].parse().expect("a status line");
                self.buffer.drain(..end + 4);
            }
            if !reply.head.is_empty() && self.body(&mut reply, at) {
                reply.whole = true;
                return reply;
            }
            let mut piece = [0; 4096];
            match self.socket.read(&mut piece) {
                Ok(0) => return reply,
                Ok(count) => self.buffer.extend_from_slice(&piece[..count]),
                Err(error) => {
                    reply.error = Some(error);
                    return reply;
                }
            }
            at = MonoClock.now();
        }
    }

    /// Takes what there is of the body; true once it is whole.
    fn body(&mut self, reply: &mut Reply, at: Stamp) -> bool {
        let length = reply.head.lines().find_map(|line| {
            let value = line.strip_prefix("content-length: ")?;
            value.parse::<usize>().ok()
        });
        if let Some(length) = length {
            reply.body = self.buffer.clone();
            return self.buffer.len() >= length && {
                self.buffer.drain(..length);
                true
            };
        }
        while let Some(end) = find(&self.buffer, b"\r\n") {
            let size = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
            let size = usize::from_str_radix(&size, 16).expect("a chunk's size");
            let rest = &self.buffer[end + 2..];
            if rest.len() < size + 2 {
                return false;
            }
            let bytes = rest[..size].to_vec();
            self.buffer.drain(..end + 2 + size + 2);
            if size == 0 {
                return true;
            }
            reply.body.extend_from_slice(&bytes);
            reply.chunks.push((at, bytes));
        }
        false
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
