//! A token's way through the proxy: from the upstream's socket to the client's, and what the proxy reads and books of it.
//! The client and the upstream are the least that can be: what they do is in the count.

use std::io;
use std::time::Duration;

use tokenlag_channel::http::body::{LAST_CHUNK, push_chunk};
use tokenlag_channel::ws::{Received, Text, WebSocket};
use tokenlag_channel::{BaseUrl, ws};
use tokenlag_dialect::{Dialect, write_event};
use tokenlag_probes::StateAt;
use tokenlag_proxy::{Proxy, ProxyOptions, UpstreamApi};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use super::Rounds;
use super::ends::{dial, listen, runtime};
use crate::events;

/// With which every request to the upstream ends.
const BODY: &str = r#"{"model":"m","input":"a question","stream":true}"#;

const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// How a client of a WebSocket asks.
const CREATE: &str = r#"{"type":"response.create","model":"m","input":"a question"}"#;

/// Nobody is waited for in earnest.
const PATIENCE: Duration = Duration::from_secs(600);

/// Where the proxy listens, and the upstream that it dials.
struct Way {
    proxy: u16,
    upstream: TcpListener,
}

/// Starts a proxy on this thread.
async fn proxy() -> Way {
    let (upstream, port) = listen().await;
    let loopback = ([127, 0, 0, 1], 0).into();
    let mut options = ProxyOptions::new(loopback, BaseUrl::of("127.0.0.1", port));
    options.admin = loopback;
    options.quic = None;
    // Nothing is to be found out, and nothing to be kept.
    options.upstream_api = UpstreamApi::Responses;
    options.state_at = StateAt::Upstream;
    let proxy = Proxy::bind(options).expect("loopback listens");
    let port = proxy.addresses().listen.port();
    spawn_local(async move { proxy.run_here().await.expect("the proxy serves") });
    Way {
        proxy: port,
        upstream,
    }
}

/// One event of a delta, in a chunk.
fn chunk() -> Vec<u8> {
    let mut chunk = Vec::new();
    push_chunk(&mut chunk, &events::wire(Dialect::Responses));
    chunk
}

/// The stream's terminal event and its end, in chunks.
fn ending() -> Vec<u8> {
    let (mut event, mut chunk) = (Vec::new(), Vec::new());
    let data = br#"{"type":"response.completed","sequence_number":44,"response":{"id":"resp_1","object":"response","status":"completed","output":[],"usage":{"input_tokens":8,"output_tokens":1,"total_tokens":9}}}"#;
    write_event(&mut event, Some("response.completed"), data);
    push_chunk(&mut chunk, &event);
    chunk.extend_from_slice(LAST_CHUNK);
    chunk
}

/// Writes what the socket has room for at any time.
async fn write(to: &TcpStream, bytes: &[u8]) {
    let mut left = bytes;
    while !left.is_empty() {
        to.writable().await.expect("the other end is there");
        if let Ok(count) = to.try_write(left) {
            left = &left[count..];
        }
    }
}

/// Reads what is there, or will be.
async fn read_once(from: &TcpStream, room: &mut [u8]) -> usize {
    loop {
        from.readable().await.expect("the other end is there");
        match from.try_read(room) {
            Ok(0) => panic!("the other end goes on"),
            Ok(count) => return count,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
}

/// Reads so many bytes.
async fn read(from: &TcpStream, wanted: usize) {
    let mut room = [0; 4096];
    let mut bytes = 0;
    while bytes < wanted {
        bytes += read_once(from, &mut room).await;
    }
    assert_eq!(bytes, wanted);
}

/// Reads until what came ends so.
async fn read_to(from: &TcpStream, end: &[u8]) {
    let mut room = [0; 4096];
    let mut bytes = 0;
    while !room[..bytes].ends_with(end) {
        bytes += read_once(from, &mut room[bytes..]).await;
    }
}

/// A client of a proxy, connected and over HTTP/1.1, and the upstream's connection once it was asked.
async fn asked_over_http() -> (TcpStream, TcpStream) {
    let way = proxy().await;
    let client = TcpStream::connect(("127.0.0.1", way.proxy))
        .await
        .expect("the proxy listens");
    write(&client, &request()).await;
    let (upstream, _) = way.upstream.accept().await.expect("the proxy dials");
    read_to(&upstream, BODY.as_bytes()).await;
    (client, upstream)
}

fn request() -> Vec<u8> {
    let length = BODY.len();
    let head = "POST /v1/responses HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json";
    format!("{head}\r\ncontent-length: {length}\r\n\r\n{BODY}").into_bytes()
}

pub(super) fn http_to_http() -> Rounds {
    let (runtime, local) = runtime();
    let (client, upstream) = local.block_on(&runtime, async {
        let (client, upstream) = asked_over_http().await;
        write(&upstream, HEAD).await;
        read_to(&client, b"\r\n\r\n").await;
        (client, upstream)
    });
    let chunk = chunk();
    Box::new(move |rounds| {
        local.block_on(&runtime, async {
            for _ in 0..rounds {
                write(&upstream, &chunk).await;
                read(&client, chunk.len()).await;
            }
        });
    })
}

pub(super) fn http_to_ws() -> Rounds {
    let (runtime, local) = runtime();
    let (client, upstream) = local.block_on(&runtime, asked_over_ws());
    let chunk = chunk();
    Box::new(move |rounds| {
        local.block_on(&runtime, async {
            for _ in 0..rounds {
                write(&upstream, &chunk).await;
                let received = client.receive().await;
                assert!(matches!(received, Ok(Received::Text { .. })));
            }
        });
    })
}

async fn asked_over_ws() -> (WebSocket, TcpStream) {
    let way = proxy().await;
    let opened = ws::dial(&dial(way.proxy), "/v1/responses", [], PATIENCE).await;
    let (client, _) = opened.expect("the proxy opens WebSockets");
    let create = Text::from_static(CREATE);
    client.send([create]).await.expect("the proxy is there");
    let (upstream, _) = way.upstream.accept().await.expect("the proxy dials");
    read_to(&upstream, b"}").await;
    write(&upstream, HEAD).await;
    (client, upstream)
}

/// A request and its reply of one token, over connections that are kept.
pub(super) fn exchange() -> Rounds {
    let (runtime, local) = runtime();
    let reply = [HEAD, &chunk(), &ending()].concat();
    let (client, upstream) = local.block_on(&runtime, async {
        let (client, upstream) = asked_over_http().await;
        write(&upstream, &reply).await;
        read_to(&client, LAST_CHUNK).await;
        (client, upstream)
    });
    let request = request();
    Box::new(move |rounds| {
        local.block_on(&runtime, async {
            for _ in 0..rounds {
                write(&client, &request).await;
                read_to(&upstream, BODY.as_bytes()).await;
                write(&upstream, &reply).await;
                read_to(&client, LAST_CHUNK).await;
            }
        });
    })
}
