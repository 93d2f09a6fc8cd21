//! What clients and records see when something breaks.

mod stack;

use std::pin::Pin;
use std::time::Duration;

use stack::{CHANNELS, Stack, create, exchange, get, run, trace};
use tokenlag_channel::Channel;
use tokenlag_channel::tls::ClientTls;
use tokenlag_probes::{FailureKind, HopExchange, Outcome, Transport};
use tokenlag_proxy::{Proxy, ProxyError, ProxyOptions};
use tokenlag_scripted::{Script, ScriptedBackend};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[test]
fn a_dead_upstream_is_said_on_every_channel() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let backend = ScriptedBackend::start(Script::default()).unwrap();
    let url = format!("http://{unused}").parse().unwrap();
    let stack = Stack::in_front_of(backend, url, |options| options);
    for (number, way) in CHANNELS.into_iter().enumerate() {
        run(async {
            let channel = stack.channel(way.0);
            let trace = trace(number as u128);
            let seen = exchange(&channel, way, trace, &create("x", 3), &[])
                .await
                .unwrap();
            let told = if seen.body.is_empty() {
                &seen.terminal
            } else {
                &seen.body
            };
            let told = String::from_utf8_lossy(told);
            assert!(told.contains("upstream_unreachable"), "{}: {told}", way.0);
            assert!(told.contains(&unused.to_string()), "{}: {told}", way.0);
            if way.0 != Transport::Ws {
                assert_eq!(seen.status, 502, "{}", way.0);
            }
            let hop = stack.record(trace).await;
            assert_eq!(
                hop.outcome,
                Outcome::Failed(FailureKind::Connect),
                "{}",
                way.0
            );
        });
    }
}

#[test]
fn a_reply_that_breaks_off_never_looks_whole() {
    for script in ["gap=1ms,close=5", "gap=1ms,reset=5"] {
        let stack = Stack::start(script);
        for (number, way) in CHANNELS.into_iter().enumerate() {
            run(async {
                let channel = stack.channel(way.0);
                let trace = trace(number as u128);
                let seen = exchange(&channel, way, trace, &create("x", 20), &[]).await;
                let label = format!("{} {}, script '{script}'", way.0, way.1);
                match seen {
                    Err(error) => assert_eq!(error.kind(), FailureKind::ConnectionLost, "{label}"),
                    // A WebSocket lives on: it is told by an event.
                    Ok(seen) => {
                        assert_eq!(way.0, Transport::Ws, "{label}");
                        let outcome = Some(Outcome::Failed(FailureKind::ServerError));
                        assert_eq!(seen.outcome, outcome, "{label}");
                    }
                }
                let hop = stack.record(trace).await;
                let lost = Outcome::Failed(FailureKind::ConnectionLost);
                assert_eq!(hop.outcome, lost, "{label}");
                assert_eq!(hop.up_token.len(), 4, "{label}");
            });
        }
    }
}

#[test]
fn a_silent_upstream_is_given_up() {
    let backend = ScriptedBackend::start(Script::default().with("ttft=60s").unwrap()).unwrap();
    let url = backend.url().parse().unwrap();
    let stack = Stack::in_front_of(backend, url, |mut options| {
        options.patience.idle = Duration::from_millis(100);
        options
    });
    run(async {
        let way = CHANNELS[1];
        let channel = stack.channel(way.0);
        let trace = trace(1);
        let seen = exchange(&channel, way, trace, &create("x", 20), &[]).await;
        assert_eq!(seen.unwrap_err().kind(), FailureKind::ConnectionLost);
        let hop = stack.record(trace).await;
        assert_eq!(hop.outcome, Outcome::Failed(FailureKind::Timeout));
    });
}

#[test]
fn a_client_that_leaves_takes_its_upstream_exchange_along() {
    let stack = Stack::start("ttft=20ms,gap=20ms,tokens=500");
    run(async {
        let body = create("x", 500);
        let trace = trace(3);
        let request = format!(
            "POST /v1/responses HTTP/1.1\r\nhost: a\r\ntraceparent: {}\r\ncontent-length: {}\r\n\r\n{body}",
            trace.traceparent(),
            body.len()
        );
        let mut stream = TcpStream::connect(stack.addresses.listen).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut some = [0; 200];
        stream.read_exact(&mut some).await.unwrap();
        drop(stream);
        let hop: HopExchange = stack.record(trace).await;
        assert_eq!(hop.outcome, Outcome::Cancelled);
        assert!(hop.up_token.len() < 100, "{}", hop.up_token.len());
    });
}

#[test]
fn a_slow_reader_slows_the_upstream_and_loses_nothing() {
    // About 20 MB: more than the sockets and the QUIC windows between hold.
    let stack = Stack::start("ttft=1ms,gap=0ms,tokens=100000,events_per_write=50");
    let ways = [1, 2, 3, 5, 6].map(|index| CHANNELS[index]);
    for (number, way) in ways.into_iter().enumerate() {
        run(async {
            let channel = stack.channel(way.0);
            let trace = trace(number as u128);
            let request = stack::request(way, trace, &create("x", 100_000), &[]).unwrap();
            let mut reply = channel.open(&request).await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
            let target = format!("/exchanges?trace={trace}");
            let (status, _) = get(stack.addresses.admin, &target).await;
            assert_eq!(status, 404, "{} {}: it cannot have ended yet", way.0, way.1);
            let seen = stack::read(&mut reply).await.unwrap();
            reply.finish().await.unwrap();
            assert_eq!(seen.marks.len(), 100_000, "{} {}", way.0, way.1);
            let hop = stack.record(trace).await;
            assert_eq!(hop.outcome, Outcome::Complete, "{} {}", way.0, way.1);
            assert_eq!(hop.out_token.len(), 100_000, "{} {}", way.0, way.1);
        });
    }
}

/// What an upstream does with a connection.
type Deed = fn(TcpStream) -> Pin<Box<dyn Future<Output = ()>>>;

/// Runs a test against an upstream that takes one connection after the other, each with its deed.
async fn upstream_that(deeds: Vec<Deed>, test: impl AsyncFnOnce(&Stack)) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let backend = ScriptedBackend::start(Script::default()).unwrap();
    let stack = Stack::in_front_of(backend, url.parse().unwrap(), |options| options);
    let serve = async {
        for deed in deeds {
            let (stream, _) = listener.accept().await.unwrap();
            deed(stream).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = serve => {}
        () = test(&stack) => {}
    }
}

async fn read_head(stream: &mut TcpStream) {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await.unwrap() == 0 {
            return;
        }
        seen.push(byte[0]);
    }
}

async fn answer(stream: &mut TcpStream, body: &str) {
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
}

#[test]
fn an_early_answer_does_not_poison_the_pool() {
    run(upstream_that(
        vec![
            |mut stream| {
                Box::pin(async move {
                    read_head(&mut stream).await;
                    let refusal = "HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n";
                    stream.write_all(refusal.as_bytes()).await.unwrap();
                    // It keeps the connection and would take what comes next for the rest of the body.
                    std::mem::forget(stream);
                })
            },
            |mut stream| {
                Box::pin(async move {
                    read_head(&mut stream).await;
                    answer(&mut stream, "second").await;
                })
            },
        ],
        async |stack| {
            let mut client = TcpStream::connect(stack.addresses.listen).await.unwrap();
            let head = "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nsome";
            client.write_all(head.as_bytes()).await.unwrap();
            let mut got = String::new();
            client.read_to_string(&mut got).await.unwrap();
            assert!(got.starts_with("HTTP/1.1 413 "), "{got}");
            let (status, body) = get(stack.addresses.listen, "/y").await;
            assert_eq!((status, body.as_str()), (200, "second"));
        },
    ));
}

#[test]
fn a_request_is_repeated_only_where_an_idle_connection_was_closed() {
    run(upstream_that(
        vec![
            |mut stream| {
                Box::pin(async move {
                    read_head(&mut stream).await;
                    answer(&mut stream, "first").await;
                    // The next request on this connection is met by a close, as if it had just been given up as idle.
                    read_head(&mut stream).await;
                })
            },
            |mut stream| {
                Box::pin(async move {
                    read_head(&mut stream).await;
                    answer(&mut stream, "second").await;
                    // The next one is worked on for a while, and then the server dies of it.
                    read_head(&mut stream).await;
                    tokio::time::sleep(Duration::from_millis(400)).await;
                })
            },
            |mut stream| {
                Box::pin(async move {
                    read_head(&mut stream).await;
                    answer(&mut stream, "asked again").await;
                })
            },
        ],
        async |stack| {
            let proxy = stack.addresses.listen;
            assert_eq!(get(proxy, "/1").await.1, "first");
            assert_eq!(get(proxy, "/2").await.1, "second");
            let (status, body) = get(proxy, "/3").await;
            assert_eq!(status, 502, "{body}");
            assert!(body.contains("upstream_lost"), "{body}");
        },
    ));
}

#[test]
fn a_shutdown_lets_every_channel_finish_its_reply() {
    for way in CHANNELS {
        let mut stack = Stack::start("ttft=50ms,gap=10ms");
        run(async {
            let channel = stack.channel(way.0);
            let request = stack::request(way, trace(8), &create("x", 20), &[]).unwrap();
            let mut reply = channel.open(&request).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            let drained = stack.begin_shutdown();
            let seen = stack::read(&mut reply).await.unwrap();
            assert_eq!(seen.outcome, Some(Outcome::Complete), "{} {}", way.0, way.1);
            assert_eq!(seen.marks.len(), 20, "{} {}", way.0, way.1);
            reply.finish().await.unwrap();
            channel.close().await;
            drained.join().unwrap();
        });
    }
}

#[test]
fn a_certificate_that_is_not_trusted_is_told_with_the_remedy() {
    let stack = Stack::start("");
    let other = tokenlag_channel::tls::self_signed(&["127.0.0.1"]).unwrap();
    let mut dial = stack.dial(Transport::Quic);
    dial.tls = Some(ClientTls::trusting(other.cert_pem.as_bytes()).unwrap());
    run(async {
        let channel = Channel::new(Transport::Quic, dial.clone());
        let error = channel.connect().await.unwrap_err().to_string();
        assert!(error.contains("/certificate"), "{error}");
        dial.tls = None;
        let channel = Channel::new(Transport::Quic, dial);
        let error = channel.connect().await.unwrap_err().to_string();
        assert!(error.contains("give its PEM file"), "{error}");
    });
}

#[test]
fn addresses_that_cannot_be_had_are_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut options = ProxyOptions::new(address, "http://127.0.0.1:1".parse().unwrap());
    options.admin = ([127, 0, 0, 1], 0).into();
    let error = Proxy::bind(options.clone()).unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(matches!(error, ProxyError::Bind { .. }));

    options.listen = ([127, 0, 0, 1], 0).into();
    options.admin = ([0, 0, 0, 0], 0).into();
    let error = Proxy::bind(options).unwrap_err();
    assert!(matches!(error, ProxyError::PublicAdmin(_)), "{error}");
}
