//! Upgrades that the proxy does not understand itself.

mod stack;

use std::time::Duration;

use stack::{Stack, get, raw, run};
use tokenlag_proxy::ProxyOptions;
use tokenlag_scripted::{Script, ScriptedBackend};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ASK: &str = "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: odd/1\r\n\r\n";

/// A proxy in front of an upstream that reads one request and does as `act` says; gives all that the upstream read, too.
async fn through<F: Future<Output = TcpStream> + Send>(
    client: &[u8],
    act: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> (String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("http://{}", listener.local_addr().unwrap());
    let unused = ScriptedBackend::start(Script::default()).unwrap();
    let stack = Stack::in_front_of(unused, upstream.parse().unwrap(), |options| options);
    let serve = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            read.push(stream.read_u8().await.unwrap());
        }
        let mut stream = act(stream).await;
        // Whatever else comes before the proxy lets go.
        let _ = stream.read_to_end(&mut read).await;
        String::from_utf8(read).unwrap()
    });
    let answer = raw(stack.addresses.listen, client).await;
    (answer, serve.await.unwrap())
}

#[test]
fn bytes_flow_both_ways_after_the_upgrade() {
    run(async {
        let client = format!("{ASK}hello");
        let (answer, read) = through(client.as_bytes(), |mut stream| async move {
            let head =
                "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: odd/1\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut hello = [0; 5];
            stream.read_exact(&mut hello).await.unwrap();
            stream.write_all(&hello).await.unwrap();
            stream.shutdown().await.unwrap();
            // The client closes once it has seen the end.
            stream
        })
        .await;
        assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
        assert!(read.contains("upgrade: odd/1"), "{read}");
    });
}

#[test]
fn a_refused_upgrade_opens_no_way_for_further_requests() {
    for (body, seen) in [
        ("content-length: 2\r\n\r\nno", "\r\n\r\nno"),
        (
            "transfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
            "\r\n\r\n2\r\nno\r\n0\r\n\r\n",
        ),
    ] {
        run(async {
            let client = format!("{ASK}GET /secret HTTP/1.1\r\nhost: a\r\n\r\n");
            let (answer, read) = through(client.as_bytes(), move |mut stream| async move {
                let answer = format!("HTTP/1.1 403 Forbidden\r\nx-why: because\r\n{body}");
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream
            })
            .await;
            assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
            assert!(answer.contains("x-why: because\r\n"), "{answer}");
            assert!(answer.contains("connection: close\r\n"), "{answer}");
            assert!(answer.ends_with(seen), "{answer}");
            assert!(!read.contains("/secret"), "{read}");
        });
    }
}

/// The value of a series.
async fn value(stack: &Stack, series: &str) -> u64 {
    let (_, metrics) = get(stack.addresses.admin, "/metrics").await;
    let mut lines = metrics.lines();
    let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}

/// Returns when so many tunnels ended so.
async fn ended(stack: &Stack, end: &str, times: u64) {
    let series = format!("tokenlag_tunnels_total{{end=\"{end}\"}}");
    for _ in 0..1000 {
        if value(stack, &series).await == times {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{series} is {}", value(stack, &series).await);
}

const OPEN: &str = "tokenlag_tunnels_open";

/// A proxy in front of an upstream that does nothing by itself.
async fn before(adjust: impl FnOnce(&mut ProxyOptions)) -> (Stack, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("http://{}", listener.local_addr().unwrap());
    let unused = ScriptedBackend::start(Script::default()).unwrap();
    let stack = Stack::in_front_of(unused, upstream.parse().unwrap(), |mut options| {
        adjust(&mut options);
        options
    });
    (stack, listener)
}

#[test]
fn a_client_that_leaves_before_the_upstream_answers_takes_its_question_along() {
    run(async {
        let (stack, listener) = before(|_| {}).await;
        let mut client = TcpStream::connect(stack.addresses.listen).await.unwrap();
        client.write_all(ASK.as_bytes()).await.unwrap();
        let (mut upstream, _) = listener.accept().await.unwrap();
        assert_eq!(value(&stack, OPEN).await, 1);
        drop(client);
        // The question, and the end.
        upstream.read_to_end(&mut Vec::new()).await.unwrap();
        ended(&stack, "cancelled", 1).await;
        assert_eq!(value(&stack, OPEN).await, 0);
    });
}

#[test]
fn who_asks_when_the_drain_begins_is_told_so() {
    run(async {
        let (mut stack, listener) = before(|_| {}).await;
        let mut client = TcpStream::connect(stack.addresses.listen).await.unwrap();
        client.write_all(ASK.as_bytes()).await.unwrap();
        let (_upstream, _) = listener.accept().await.unwrap();
        let drained = stack.begin_shutdown();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("server_shutting_down"), "{answer}");
        drained.join().unwrap();
    });
}

#[test]
fn an_end_that_takes_nothing_is_given_up() {
    run(async {
        let (stack, listener) =
            before(|options| options.websocket.stalled = Duration::from_millis(300)).await;
        let mut client = TcpStream::connect(stack.addresses.listen).await.unwrap();
        client.write_all(ASK.as_bytes()).await.unwrap();
        let (mut upstream, _) = listener.accept().await.unwrap();
        let head =
            "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: odd/1\r\n\r\n";
        upstream.write_all(head.as_bytes()).await.unwrap();
        // The client reads nothing of it.
        let flood = [b'x'; 64 * 1024];
        while upstream.write_all(&flood).await.is_ok() {}
        ended(&stack, "stalled", 1).await;
        let stalled = "tokenlag_refused_total{door=\"http1\",reason=\"stalled\"}";
        assert_eq!(value(&stack, stalled).await, 1);
        assert_eq!(value(&stack, OPEN).await, 0);
    });
}
