//! An origin that does next to nothing: it reads HTTP/1.1 requests and answers each with the same bytes.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};

use crate::cores;

/// A reply that is one body of JSON.
pub const WHOLE: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":0,"model":"scripted","choices":[{"index":0,"message":{"role":"assistant","content":" one"},"finish_reason":"stop"}],"usage":{"prompt_tokens":8,"completion_tokens":1,"total_tokens":9}}"#;

/// A reply that is a stream of events, all of them in one write.
pub const STREAM: &str = concat!(
    r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":0,"model":"scripted","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#,
    "\n\n",
    r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":0,"model":"scripted","choices":[{"index":0,"delta":{"content":" one"},"finish_reason":null}]}"#,
    "\n\n",
    r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":0,"model":"scripted","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
    "\n\ndata: [DONE]\n\n",
);

/// A running origin. Dropping it ends its thread.
pub struct Origin {
    address: SocketAddr,
    seen: Arc<Seen>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    requests: AtomicU64,
    /// The body of the last connection's first request.
    body: Mutex<Vec<u8>>,
}

impl Origin {
    /// Answers with `body` of that type, on a thread of its own on `core`.
    pub fn start(content_type: &str, body: &str, core: usize) -> Result<Self, String> {
        let failed = |error: io::Error| format!("the origin does not start: {error}");
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let reply = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let reply: Arc<[u8]> = reply.into_bytes().into();
        let seen = Arc::new(Seen::default());
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let shared = Arc::clone(&seen);
        let thread = std::thread::Builder::new()
            .name("origin".to_owned())
            .spawn(move || {
                if let Err(message) = cores::bind(core) {
                    eprintln!("{message}");
                }
                LocalSet::new().block_on(&runtime, async {
                    tokio::select! {
                        _ = stopped => {}
                        () = accept(listener, &reply, &shared) => {}
                    }
                });
            })
            .map_err(failed)?;
        Ok(Self {
            address,
            seen,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests that it answered so far.
    pub fn requests(&self) -> u64 {
        self.seen.requests.load(Ordering::Relaxed)
    }

    /// The body of a request that began a connection, the last there was.
    pub fn body(&self) -> Vec<u8> {
        self.seen.body().clone()
    }
}

impl Seen {
    fn body(&self) -> MutexGuard<'_, Vec<u8>> {
        // Nothing is left half done under it.
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        // A thread that is gone has stopped.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn accept(listener: std::net::TcpListener, reply: &Arc<[u8]>, seen: &Arc<Seen>) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    while let Ok((stream, _)) = listener.accept().await {
        let (reply, seen) = (Arc::clone(reply), Arc::clone(seen));
        spawn_local(async move {
            // A client that hangs up is done.
            let _ = serve(stream, &reply, &seen).await;
        });
    }
}

async fn serve(mut stream: TcpStream, reply: &[u8], seen: &Seen) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 16 << 10];
    let (mut filled, mut is_first) = (0, true);
    loop {
        while let Some((head, length)) = whole(&buffer[..filled]) {
            if std::mem::take(&mut is_first) {
                *seen.body() = buffer[head..length].to_vec();
            }
            seen.requests.fetch_add(1, Ordering::Relaxed);
            stream.write_all(reply).await?;
            buffer.copy_within(length..filled, 0);
            filled -= length;
        }
        match stream.read(&mut buffer[filled..]).await? {
            // The end, or a request for which there is no room.
            0 => return Ok(()),
            count => filled += count,
        }
    }
}

/// Lengths of the head of a message of HTTP/1.1 whose body has a stated length, and of all of it; `None` until it is whole.
pub fn whole(bytes: &[u8]) -> Option<(usize, usize)> {
    let head = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let body = std::str::from_utf8(&bytes[..head])
        .ok()?
        .lines()
        .find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length.then(|| value.trim().parse::<usize>().ok())?
        });
    let length = head + body.unwrap_or(0);
    (bytes.len() >= length).then_some((head, length))
}
