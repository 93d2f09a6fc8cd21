//! What clients and records see when something breaks.

mod stack;

use std::time::Duration;

use stack::{CHANNELS, Stack, create, exchange, get, run, trace};
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
            let mut channel = stack.channel(way.0);
            let trace = trace(number as u128);
            let seen = exchange(&mut channel, way, trace, &create("x", 3), &[])
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
                let mut channel = stack.channel(way.0);
                let trace = trace(number as u128);
                let seen = exchange(&mut channel, way, trace, &create("x", 20), &[]).await;
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
        let mut channel = stack.channel(way.0);
        let trace = trace(1);
        let seen = exchange(&mut channel, way, trace, &create("x", 20), &[]).await;
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
    for (number, way) in [CHANNELS[1], CHANNELS[2], CHANNELS[3]]
        .into_iter()
        .enumerate()
    {
        run(async {
            let mut channel = stack.channel(way.0);
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
