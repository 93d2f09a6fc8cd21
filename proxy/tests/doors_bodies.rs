//! What a request that is read whole may cost at the TCP port, in size, in time and in memory: who takes more is told, others do
//! not notice, and a counter tells.

mod stack;

use std::time::Duration;

use bytes::Bytes;
use stack::{CHANNELS, IDLE, Stack, create, exchange, get, run, trace};
use tokenlag_channel::quic::DoorLimits;
use tokenlag_probes::Transport;
use tokenlag_scripted::{Script, ScriptedBackend};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Long enough for every step of a test on a busy machine, short enough to wait for.
const SOON: Duration = Duration::from_millis(700);

fn limited(adjust: impl FnOnce(&mut DoorLimits)) -> Stack {
    let script = Script::default().with("ttft=0,gap=0").unwrap();
    let backend = ScriptedBackend::start(script).unwrap();
    let upstream = backend.url().parse().unwrap();
    Stack::in_front_of(backend, upstream, |mut options| {
        adjust(&mut options.limits);
        options
    })
}

/// The value of a series, as soon as it is not 0.
async fn counted(stack: &Stack, series: &str) -> u64 {
    for _ in 0..400 {
        let value = gauge(stack, series).await;
        if value > 0 {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{series} stays 0");
}

async fn gauge(stack: &Stack, series: &str) -> u64 {
    let (_, metrics) = get(stack.addresses.admin, "/metrics").await;
    let mut lines = metrics.lines();
    let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}

fn refusals(door: &str, reason: &str) -> String {
    format!("tokenlag_refused_total{{door=\"{door}\",reason=\"{reason}\"}}")
}

/// Somebody else is served.
async fn others_are_served(stack: &Stack) {
    let channel = stack.channel(Transport::Http);
    let seen = exchange(&channel, CHANNELS[1], trace(9), &create("x", 3), &[]).await;
    assert_eq!(seen.unwrap().marks.len(), 3);
}

/// A create over HTTP/1.1 of which `sent` bytes of `length` come; the answer's status.
async fn http1(stack: &Stack, length: usize, sent: usize) -> (u16, TcpStream) {
    let mut stream = TcpStream::connect(stack.addresses.listen).await.unwrap();
    let head =
        format!("POST /v1/responses HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b' '; sent]).await.unwrap();
    let mut answer = [0; 12];
    let read = stream.read_exact(&mut answer);
    timeout(IDLE, read).await.expect("in time").unwrap();
    let status = std::str::from_utf8(&answer[9..]).unwrap();
    (status.parse().unwrap(), stream)
}

/// The same over HTTP/2.
async fn http2(stack: &Stack, sent: usize, ends: bool) -> u16 {
    let stream = TcpStream::connect(stack.addresses.listen).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = http::Request::post("http://a/v1/responses")
        .body(())
        .unwrap();
    let (response, mut body) = send.send_request(request, false).unwrap();
    // It may be refused before all of it was sent.
    let _ = body.send_data(Bytes::from(vec![b' '; sent]), ends);
    let response = timeout(IDLE, response).await.expect("in time").unwrap();
    driver.abort();
    response.status().as_u16()
}

#[test]
fn a_body_has_a_longest_length() {
    let stack = limited(|limits| limits.exchange.body = 1000);
    run(async {
        assert_eq!(http1(&stack, 1001, 1001).await.0, 413);
        assert_eq!(
            counted(&stack, &refusals("http1", "body_too_large")).await,
            1
        );
        assert_eq!(http2(&stack, 1001, true).await, 413);
        assert_eq!(
            counted(&stack, &refusals("http2", "body_too_large")).await,
            1
        );
        others_are_served(&stack).await;
    });
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let stack = limited(|limits| limits.exchange.idle = SOON);
    run(async {
        assert_eq!(http1(&stack, 10, 5).await.0, 408);
        assert_eq!(counted(&stack, &refusals("http1", "slow_request")).await, 1);
        assert_eq!(http2(&stack, 5, false).await, 408);
        assert_eq!(counted(&stack, &refusals("http2", "slow_request")).await, 1);
        others_are_served(&stack).await;
    });
}

#[test]
fn bodies_have_a_room_together() {
    let stack = limited(|limits| limits.room = 1000);
    run(async {
        // One waits for the rest of its body, and holds what came.
        let mut first = TcpStream::connect(stack.addresses.listen).await.unwrap();
        let head = "POST /v1/responses HTTP/1.1\r\nhost: a\r\ncontent-length: 900\r\n\r\n";
        let most = [head.as_bytes(), &[b' '; 800]].concat();
        first.write_all(&most).await.unwrap();
        let held = "tokenlag_requests_held_bytes{door=\"tcp\"}";
        assert_eq!(counted(&stack, held).await, 800);
        assert_eq!(http1(&stack, 500, 500).await.0, 503);
        assert_eq!(counted(&stack, &refusals("http1", "no_room")).await, 1);
        assert_eq!(http2(&stack, 500, true).await, 503);
        assert_eq!(counted(&stack, &refusals("http2", "no_room")).await, 1);
        others_are_served(&stack).await;
        drop(first);
        for _ in 0..400 {
            if gauge(&stack, held).await == 0 {
                assert_ne!(http1(&stack, 500, 500).await.0, 503);
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("what was held is never given back");
    });
}

#[test]
fn pieces_of_a_byte_do_not_hold_others_up_for_good() {
    let stack = limited(|limits| limits.exchange.body = 64 * 1024);
    run(async {
        let mut stream = TcpStream::connect(stack.addresses.listen).await.unwrap();
        let head = "POST /v1/responses HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
            .write_all("1\r\n \r\n".repeat(60_000).as_bytes())
            .await
            .unwrap();
        others_are_served(&stack).await;
        stream
            .write_all(&"1\r\n \r\n".repeat(6_000).into_bytes())
            .await
            .unwrap();
        let mut answer = [0; 12];
        timeout(IDLE, stream.read_exact(&mut answer))
            .await
            .expect("in time")
            .unwrap();
        assert_eq!(&answer, b"HTTP/1.1 413");
    });
}

#[test]
fn half_a_head_over_http2_is_not_waited_for() {
    let stack = limited(|limits| limits.exchange.head = SOON);
    run(async {
        let mut stream = TcpStream::connect(stack.addresses.listen).await.unwrap();
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        // HEADERS of stream 1 with three bytes (`:method: POST`, `:scheme: http`, `:path: /`), and more to come.
        let headers = [0, 0, 3, 1, 0, 0, 0, 0, 1, 0x83, 0x86, 0x84];
        let begun = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], &headers].concat();
        stream.write_all(&begun).await.unwrap();
        let mut answer = Vec::new();
        let closed = timeout(IDLE, stream.read_to_end(&mut answer)).await;
        // Closed in one way or the other.
        drop(closed.expect("the connection is closed in time"));
        assert_eq!(counted(&stack, &refusals("http2", "slow_head")).await, 1);
        others_are_served(&stack).await;
    });
}
