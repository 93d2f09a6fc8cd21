//! The TCP port: everything that it speaks, and what becomes of those who break the rules. Others never notice, and a
//! counter tells.

mod stack;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use stack::{CHANNELS, IDLE, Stack, create, exchange, get, raw, run, trace};
use tokenlag_channel::quic::DoorLimits;
use tokenlag_channel::tls::{self, ClientTls};
use tokenlag_channel::{Channel, Dial};
use tokenlag_probes::{Encoding, Outcome, Transport};
use tokenlag_scripted::{Script, ScriptedBackend};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto, version};

/// Long enough for every step of a test on a busy machine, short enough to wait for.
const SOON: Duration = Duration::from_millis(700);

/// A proxy with other limits.
fn limited(script: &str, adjust: impl FnOnce(&mut DoorLimits)) -> Stack {
    let backend = ScriptedBackend::start(Script::default().with(script).unwrap()).unwrap();
    let upstream = backend.url().parse().unwrap();
    Stack::in_front_of(backend, upstream, |mut options| {
        adjust(&mut options.limits);
        options
    })
}

/// How often a door turned somebody away, once it has at least once.
async fn refused(stack: &Stack, door: &str, reason: &str) -> u64 {
    let series = format!("tokenlag_refused_total{{door=\"{door}\",reason=\"{reason}\"}} ");
    let mut metrics = String::new();
    for _ in 0..400 {
        metrics = get(stack.addresses.admin, "/metrics").await.1;
        let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
        if let Some(count) = line {
            return count.parse().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let told = metrics.lines().filter(|line| line.contains("refused"));
    panic!("{series} is not among {:#?}", told.collect::<Vec<_>>());
}

/// A client that keeps to the rules, on a connection that it keeps: fails unless it is served.
struct Neighbour(Channel);

impl Neighbour {
    fn of(stack: &Stack) -> Self {
        Self(stack.channel(Transport::Http))
    }

    async fn is_served(&self) {
        let seen = exchange(&self.0, CHANNELS[1], trace(77), &create("x", 3), &[]).await;
        assert_eq!(seen.unwrap().marks.len(), 3);
        assert_eq!(self.0.counters().connections_opened, 1);
    }
}

fn over_tls(stack: &Stack, transport: Transport) -> Dial {
    let mut dial = stack.dial(transport);
    dial.tls = stack.dial(Transport::Quic).tls;
    dial
}

/// Writes, and reads to the end of the stream, whether or not the other end takes everything.
async fn told(address: std::net::SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut read, mut write) = stream.split();
    let mut answer = Vec::new();
    let send = async {
        let _ = write.write_all(bytes).await;
        std::future::pending::<()>().await;
    };
    let receive = async {
        let _ = tokio::time::timeout(IDLE, read.read_to_end(&mut answer))
            .await
            .expect("the connection is closed in time");
    };
    tokio::select! {
        () = send => {}
        () = receive => {}
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn one_port_speaks_everything_in_clear_and_inside_tls() {
    let stack = Stack::start("gap=0ms");
    for encrypted in [false, true] {
        for transport in [Transport::Http, Transport::Http2, Transport::Ws] {
            run(async {
                let dial = match encrypted {
                    true => over_tls(&stack, transport),
                    false => stack.dial(transport),
                };
                let channel = Channel::new(transport, dial);
                let trace = trace(transport as u128);
                let way = (transport, Encoding::Events);
                let seen = exchange(&channel, way, trace, &create("x", 5), &[]).await;
                let label = format!("{transport}, encrypted: {encrypted}");
                assert_eq!(seen.unwrap().marks.len(), 5, "{label}");
                let hop = stack.record(trace).await;
                assert_eq!(hop.channel, transport.to_string(), "{label}");
                assert_eq!(hop.outcome, Outcome::Complete, "{label}");
                let counters = channel.counters();
                let inside = counters.channel_bytes_received < counters.bytes_received;
                assert_eq!(inside, encrypted, "{label}");
                channel.close().await;
            });
        }
    }
}

#[test]
fn http3_is_announced_to_those_who_came_over_tls() {
    let stack = Stack::start("gap=0ms");
    let port = stack.addresses.quic.unwrap().port();
    for transport in [Transport::Http, Transport::Http2] {
        for encrypted in [false, true] {
            run(async {
                let dial = match encrypted {
                    true => over_tls(&stack, transport),
                    false => stack.dial(transport),
                };
                let channel = Channel::new(transport, dial);
                let way = (transport, Encoding::Events);
                let request = stack::request(way, trace(1), &create("x", 1), &[]).unwrap();
                let reply = channel.open(&request).await.unwrap();
                let fields = reply.fields();
                let told = fields.iter().find(|(name, _)| name == "alt-svc");
                let told = told.map(|(_, value)| String::from_utf8_lossy(value).into_owned());
                let expected = encrypted.then(|| format!("h3=\":{port}\"; ma=3600"));
                assert_eq!(told, expected, "{transport}");
                reply.finish().await.unwrap();
            });
        }
    }
}

#[test]
fn sessions_are_resumed_where_that_is_on() {
    for (on, resumed) in [(true, 1), (false, 0)] {
        let backend = ScriptedBackend::start(Script::default()).unwrap();
        let upstream = backend.url().parse().unwrap();
        let stack = Stack::in_front_of(backend, upstream, |mut options| {
            options.resumption = on;
            // Whichever thread takes the second connection.
            options.threads = 4;
            options
        });
        run(async {
            let mut dial = over_tls(&stack, Transport::HttpCold);
            dial.tls = dial.tls.map(ClientTls::with_resumption);
            let channel = Channel::new(Transport::HttpCold, dial);
            for _ in 0..2 {
                let body = create("x", 1);
                exchange(&channel, CHANNELS[0], trace(1), &body, &[])
                    .await
                    .unwrap();
            }
            assert_eq!(channel.counters().handshakes_resumed, resumed);
        });
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let stack = Stack::start("gap=0ms");
    let neighbour = Neighbour::of(&stack);
    let post = |rest: &str| format!("POST /v1/responses HTTP/1.1\r\nhost: a\r\n{rest}");
    let cases = [
        (
            post("content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
            400,
            "ambiguous_length",
        ),
        (
            post("content-length: 1\r\ncontent-length: 2\r\n\r\nab"),
            400,
            "ambiguous_length",
        ),
        (
            post("content-length: 1\r\ncontent-length: 1\r\n\r\na"),
            400,
            "ambiguous_length",
        ),
        (
            post("content-length: 1, 1\r\n\r\na"),
            400,
            "ambiguous_length",
        ),
        (post("content-length: -1\r\n\r\n"), 400, "ambiguous_length"),
        // Taken off on the way, as Connection asks, it would leave a body that the upstream takes for another request.
        (
            post("connection: content-length\r\ncontent-length: 1\r\n\r\na"),
            400,
            "ambiguous_length",
        ),
        (
            post("transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
            501,
            "unknown_coding",
        ),
        (
            post("x: a\r\n content-length: 3\r\n\r\nabc"),
            400,
            "malformed",
        ),
        (post("content-length : 3\r\n\r\nabc"), 400, "malformed"),
        (post("x: a\ncontent-length: 3\r\n\r\nabc"), 400, "malformed"),
        (post("x: a\rcontent-length: 3\r\n\r\nabc"), 400, "malformed"),
        (post("x: a\0\r\n\r\n"), 400, "malformed"),
        (post("host: b\r\n\r\n"), 400, "malformed"),
        (
            post("transfer-encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n"),
            400,
            "malformed_body",
        ),
        (
            post("transfer-encoding: chunked\r\n\r\n-1\r\n"),
            400,
            "malformed_body",
        ),
        (
            post("transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n"),
            400,
            "malformed_body",
        ),
        (
            post("transfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n"),
            400,
            "malformed_body",
        ),
        (
            post("transfer-encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n"),
            400,
            "malformed_body",
        ),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400, "malformed"),
        (
            "GET / HTTP/9.9\r\nhost: a\r\n\r\n".to_owned(),
            400,
            "malformed",
        ),
        (
            "\x01\x02\x03 garbage \x7f\r\n\r\n".to_owned(),
            400,
            "malformed",
        ),
        (
            "PRI * HTTP/2.0\r\n\r\nno\r\n\r\n".to_owned(),
            400,
            "malformed",
        ),
    ];
    run(async {
        for (request, status, reason) in &cases {
            let answer = raw(stack.addresses.listen, request.as_bytes()).await;
            let expected = format!("HTTP/1.1 {status} ");
            assert!(answer.starts_with(&expected), "{request:?}: {answer}");
            assert_eq!(
                answer.matches("\r\n\r\n").count(),
                1,
                "{request:?}: {answer}"
            );
            refused(&stack, "http1", reason).await;
            neighbour.is_served().await;
        }
        let counted = refused(&stack, "http1", "ambiguous_length").await;
        assert_eq!(counted, 6);
        let asked = stack.backend.requests();
        assert_eq!(
            asked.len(),
            cases.len(),
            "nobody but the neighbour reached the backend"
        );
    });
}

#[test]
fn a_head_without_end_is_refused_before_it_fills_memory() {
    let stack = Stack::start("gap=0ms");
    run(async {
        let mut head = b"GET / HTTP/1.1\r\nhost: a\r\n".to_vec();
        head.extend(b"x: ".iter().chain(&[b'y'; 4 << 20]));
        let answer = told(stack.addresses.listen, &head).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        let many = "a: b\r\n".repeat(1000);
        let head = format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n");
        let answer = told(stack.addresses.listen, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        assert_eq!(refused(&stack, "http1", "head_too_large").await, 2);
    });
}

#[test]
fn who_says_too_little_is_not_waited_for() {
    let stack = limited("gap=0ms", |limits| {
        limits.handshake = SOON;
        limits.exchange.head = SOON;
        limits.exchange.idle = SOON;
    });
    let neighbour = Neighbour::of(&stack);
    // A ClientHello that never ends, and the opening of HTTP/2.
    let hello = [&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 50]].concat();
    let half_a_preface = &b"PRI * HTTP/2.0\r\n\r\n"[..];
    run(async {
        for (bytes, answer, door, reason) in [
            (&b""[..], "", "tcp", "silent"),
            (half_a_preface, "", "tcp", "silent"),
            (&hello, "", "tls", "slow_handshake"),
            (b"POST / HT", "HTTP/1.1 408 ", "http1", "slow_request"),
            (
                b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nsome",
                "HTTP/1.1 408 ",
                "http1",
                "slow_request",
            ),
        ] {
            neighbour.is_served().await;
            let said = raw(stack.addresses.listen, bytes).await;
            assert!(said.starts_with(answer), "{said}");
            assert_eq!(said.is_empty(), answer.is_empty(), "{said}");
            refused(&stack, door, reason).await;
            neighbour.is_served().await;
        }
        assert_eq!(refused(&stack, "tcp", "silent").await, 2);
    });
}

#[test]
fn a_byte_at_a_time_does_not_stretch_a_heads_time() {
    let stack = limited("gap=0ms", |limits| limits.exchange.head = SOON);
    run(async {
        let mut stream = TcpStream::connect(stack.addresses.listen).await.unwrap();
        let head = "POST / HTTP/1.1\r\nhost: a\r\n".to_owned() + &"x: y\r\n".repeat(100);
        let (mut read, mut write) = stream.split();
        let dribble = async {
            for byte in head.bytes() {
                if write.write_all(&[byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(SOON / 50).await;
            }
            panic!("the head's time is over before the head is");
        };
        let mut answer = vec![0; 12];
        tokio::select! {
            () = dribble => {}
            read = read.read_exact(&mut answer) => drop(read.unwrap()),
        }
        assert_eq!(answer, b"HTTP/1.1 408");
        assert_eq!(refused(&stack, "http1", "slow_request").await, 1);
    });
}

#[test]
fn who_takes_nothing_is_given_up_and_the_upstream_with_him() {
    let stack = limited("ttft=0ms,gap=0ms,events_per_write=50", |limits| {
        limits.exchange.stalled = SOON;
    });
    let neighbour = Neighbour::of(&stack);
    run(async {
        for transport in [Transport::Http, Transport::Http2] {
            for encrypted in [false, true] {
                let dial = match encrypted {
                    true => over_tls(&stack, transport),
                    false => stack.dial(transport),
                };
                let label = format!("{transport}, encrypted: {encrypted}");
                let channel = Channel::new(transport, dial);
                let trace = trace(transport as u128);
                let way = (transport, Encoding::Events);
                let body = create("x", 100_000);
                let request = stack::request(way, trace, &body, &[]).unwrap();
                let mut reply = channel.open(&request).await.unwrap();
                let hop = stack.record(trace).await;
                assert_eq!(hop.outcome, Outcome::Cancelled, "{label}");
                let broken = loop {
                    match reply.next().await {
                        Ok(Some(_)) => {}
                        Ok(None) => break false,
                        Err(_) => break true,
                    }
                };
                assert!(broken, "{label}: what was cut off must look so");
                neighbour.is_served().await;
            }
        }
        assert_eq!(refused(&stack, "http1", "stalled").await, 2);
        assert_eq!(refused(&stack, "http2", "stalled").await, 2);
    });
}

#[test]
fn tls_is_refused_with_its_own_alerts() {
    let stack = Stack::start("gap=0ms");
    let neighbour = Neighbour::of(&stack);
    run(async {
        let (_, pem) = get(stack.addresses.admin, "/certificate").await;
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"spdy/3".to_vec()];
        let stream = TcpStream::connect(stack.addresses.listen).await.unwrap();
        let name = "127.0.0.1".try_into().unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let refusal = connector.connect(name, stream).await.unwrap_err();
        assert!(
            refusal.to_string().contains("NoApplicationProtocol"),
            "{refusal}"
        );
        assert_eq!(refused(&stack, "tls", "alpn").await, 1);
        neighbour.is_served().await;

        let other = tls::self_signed(&["127.0.0.1"]).unwrap();
        let mut dial = over_tls(&stack, Transport::Http2);
        dial.tls = Some(ClientTls::trusting(other.cert_pem.as_bytes()).unwrap());
        let channel = Channel::new(Transport::Http2, dial);
        let refusal = channel.connect().await.unwrap_err().to_string();
        assert!(refusal.contains("/certificate"), "{refusal}");
        assert_eq!(refused(&stack, "tls", "alert").await, 1);
        neighbour.is_served().await;

        let garbage = [&[22, 3, 1, 0, 20][..], &[0xff; 20]].concat();
        raw(stack.addresses.listen, &garbage).await;
        assert_eq!(refused(&stack, "tls", "malformed").await, 1);
        neighbour.is_served().await;
    });
}

#[test]
fn connections_beyond_the_bound_are_closed_and_those_within_go_on() {
    let stack = limited("", |limits| limits.connections = 2);
    run(async {
        let neighbour = Neighbour::of(&stack);
        neighbour.is_served().await;
        let second = TcpStream::connect(stack.addresses.listen).await.unwrap();
        let answer = raw(stack.addresses.listen, b"").await;
        assert_eq!(answer, "");
        assert_eq!(refused(&stack, "tcp", "full").await, 1);
        neighbour.is_served().await;
        drop(second);
        // Its place is free once the proxy has seen it go.
        for _ in 0..200 {
            let mut third = TcpStream::connect(stack.addresses.listen).await.unwrap();
            let request = b"GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
            let mut answer = String::new();
            let asked = async {
                third.write_all(request).await?;
                third.read_to_string(&mut answer).await?;
                io::Result::Ok(())
            };
            if asked.await.is_ok() && !answer.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the place is never free again");
    });
}

/// A client of the library's own, on a connection that is driven beside the test.
async fn http2(stack: &Stack) -> (h2::client::SendRequest<Bytes>, tokio::task::JoinHandle<()>) {
    let stream = TcpStream::connect(stack.addresses.listen).await.unwrap();
    let (send, connection) = h2::client::Builder::new()
        .initial_max_send_streams(20_000)
        .handshake(stream)
        .await
        .unwrap();
    let driver = tokio::spawn(async {
        let _ = connection.await;
    });
    (send, driver)
}

fn http2_get(path: &str) -> http::Request<()> {
    let uri = format!("http://test{path}");
    http::Request::get(uri).body(()).unwrap()
}

#[test]
fn ten_thousand_streams_are_not_served_at_once() {
    let stack = Stack::start("ttft=300ms,gap=0ms");
    let neighbour = Neighbour::of(&stack);
    run(async {
        let (send, driver) = http2(&stack).await;
        let mut asked = Vec::new();
        let body = create("x", 1);
        for _ in 0..10_000 {
            let request = http::Request::post("http://test/v1/responses")
                .body(())
                .unwrap();
            let (response, mut sending) = send.clone().send_request(request, false).unwrap();
            sending.send_data(body.clone().into(), true).unwrap();
            asked.push(response);
        }
        let (mut served, mut turned_away) = (0, 0);
        for response in asked {
            match response.await {
                Ok(response) => {
                    assert_eq!(response.status(), 200);
                    served += 1;
                }
                Err(error) => {
                    // Who never stops asking loses the connection in the end.
                    let refused = error.reason() == Some(Reason::REFUSED_STREAM);
                    assert!(refused || error.is_go_away() || error.is_io(), "{error}");
                    turned_away += 1;
                }
            }
        }
        assert_eq!(served + turned_away, 10_000);
        assert!(served <= 256, "{served} were served");
        neighbour.is_served().await;
        drop(send);
        driver.await.unwrap();
        let refusals = refused(&stack, "http2", "too_many_streams").await;
        assert!((256..10_000).contains(&refusals), "{refusals}");
        assert_eq!(refused(&stack, "http2", "enhance_your_calm").await, 1);
        assert!(stack.backend.requests().len() <= 256 + 2);
    });
}

#[test]
fn requests_that_http2_forbids_cost_their_stream_or_their_connection() {
    let stack = Stack::start("gap=0ms");
    let neighbour = Neighbour::of(&stack);
    run(async {
        let (mut send, _driver) = http2(&stack).await;
        let tunnel = http::Request::connect("test:80").body(()).unwrap();
        let (response, _sending) = send.send_request(tunnel, false).unwrap();
        assert_eq!(response.await.unwrap().status(), 501);
        assert_eq!(refused(&stack, "http2", "connect").await, 1);

        let mut large = http2_get("/");
        let value = "y".repeat(70_000).parse().unwrap();
        large.headers_mut().insert("x", value);
        let (response, _) = send.send_request(large, true).unwrap();
        assert_eq!(response.await.unwrap().status(), 431);

        let mut short = http2_get("/");
        let length = http::HeaderValue::from_static("9");
        short.headers_mut().insert("content-length", length);
        let (response, mut sending) = send.send_request(short, false).unwrap();
        sending
            .send_data(Bytes::from_static(b"four"), true)
            .unwrap();
        let error = response.await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::PROTOCOL_ERROR), "{error}");

        // The connection lives on.
        let (response, _) = send.send_request(http2_get("/health"), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
        neighbour.is_served().await;

        let mut broken = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        broken.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        // DATA on a stream that nobody opened.
        broken.extend([0, 0, 1, 0, 0, 0, 0, 0, 5, 7]);
        raw(stack.addresses.listen, &broken).await;
        refused(&stack, "http2", "protocol_error").await;
        neighbour.is_served().await;
    });
}

#[test]
fn an_idle_http2_client_is_told_goodbye_at_the_end() {
    let mut stack = Stack::start("gap=0ms");
    run(async {
        let (mut send, driver) = http2(&stack).await;
        let (response, _) = send.send_request(http2_get("/health"), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
        let drained = stack.begin_shutdown();
        driver.await.unwrap();
        drained.join().unwrap();
    });
}
