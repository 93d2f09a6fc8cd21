//! The UDP port: what becomes of those who break the rules of QUIC, of `tokenlag/1` and of HTTP/3. Others never notice, and
//! a counter tells.

#[path = "../../channel/tests/udp/raw.rs"]
mod raw;
mod stack;

use std::time::Duration;

use quinn::{Connection, ConnectionError, ReadToEndError, RecvStream, SendStream, VarInt};
use raw::{Gate, block, frame, frames};
use stack::{IDLE, Stack, create, exchange, get, run, trace};
use tokenlag_channel::Channel;
use tokenlag_channel::quic::DoorLimits;
use tokenlag_channel::tls::{ClientTls, self_signed};
use tokenlag_probes::{Encoding, Outcome, Transport};
use tokenlag_scripted::{Script, ScriptedBackend};
use tokio::net::UdpSocket;
use tokio::task::LocalSet;
use tokio::time::timeout;

/// Long enough for every step of a test on a busy machine, short enough to wait for.
const SOON: Duration = Duration::from_millis(700);

const OWN: &[u8] = b"tokenlag/1";
const H3: &[u8] = b"h3";

/// Runs a test that has tasks of its own.
fn run_local(test: impl Future<Output = ()>) {
    run(LocalSet::new().run_until(test));
}

/// A proxy with other limits.
fn limited(script: &str, adjust: impl FnOnce(&mut DoorLimits)) -> Stack {
    let backend = ScriptedBackend::start(Script::default().with(script).unwrap()).unwrap();
    let upstream = backend.url().parse().unwrap();
    Stack::in_front_of(backend, upstream, |mut options| {
        adjust(&mut options.limits);
        options
    })
}

/// How often a door turned somebody away, once it has at least `least` times.
async fn refused(stack: &Stack, door: &str, reason: &str, least: u64) -> u64 {
    let series = format!("tokenlag_refused_total{{door=\"{door}\",reason=\"{reason}\"}} ");
    let mut metrics = String::new();
    for _ in 0..400 {
        metrics = get(stack.addresses.admin, "/metrics").await.1;
        let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
        let count = line.map_or(0, |count| count.parse().unwrap());
        if count >= least {
            return count;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let told = metrics.lines().filter(|line| line.contains("refused"));
    panic!(
        "{series} is not {least} among {:#?}",
        told.collect::<Vec<_>>()
    );
}

/// Clients that keep to the rules, on connections that they keep: one for each protocol.
struct Neighbours([(Transport, Channel); 2]);

impl Neighbours {
    async fn of(stack: &Stack) -> Self {
        let both = [Transport::Quic, Transport::Http3];
        let neighbours = Self(both.map(|transport| (transport, stack.channel(transport))));
        neighbours.are_served().await;
        neighbours
    }

    /// Fails unless they are.
    async fn are_served(&self) {
        for (transport, channel) in &self.0 {
            let way = (*transport, Encoding::Events);
            let seen = exchange(channel, way, trace(77), &create("x", 3), &[]).await;
            assert_eq!(seen.unwrap().marks.len(), 3, "{transport}");
            assert_eq!(channel.counters().connections_opened, 1, "{transport}");
        }
    }
}

async fn connect(stack: &Stack, alpn: &[u8]) -> Connection {
    let client = raw::client(stack.certificate(), alpn);
    let connecting = client.connect(stack.addresses.quic.unwrap(), "127.0.0.1");
    connecting.unwrap().await.unwrap()
}

/// Sends bytes on a stream of their own, and ends it.
async fn say(connection: &Connection, bytes: &[u8]) -> RecvStream {
    let (mut send, recv) = connection.open_bi().await.unwrap();
    // The other end may have had enough before all is written.
    let _ = send.write_all(bytes).await;
    let _ = send.finish();
    recv
}

/// What comes back on a stream, up to its end.
async fn told(mut recv: RecvStream) -> Result<String, ReadToEndError> {
    let answer = timeout(IDLE, recv.read_to_end(100_000)).await;
    let answer = answer.expect("it is answered in time")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn what_is_no_quic_is_dropped_and_counted() {
    let stack = limited("gap=0ms", |_| {});
    run(async {
        let neighbours = Neighbours::of(&stack).await;
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(stack.addresses.quic.unwrap()).await.unwrap();
        socket.send(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        socket.send(&[0xc0, 0, 0, 0, 1]).await.unwrap();
        // As many at a time as a socket can hold on any machine.
        for batch in 0..10_u8 {
            for number in (0..10).map(|number| batch * 10 + number) {
                socket.send(&[number; 100]).await.unwrap();
                socket.send(&[number | 0x80; 1300]).await.unwrap();
            }
            let sent = 2 + 20 * (u64::from(batch) + 1);
            assert_eq!(refused(&stack, "udp", "garbage", sent).await, sent);
        }
        neighbours.are_served().await;
    });
}

#[test]
fn handshakes_that_come_to_nothing_are_told_apart() {
    let stack = limited("gap=0ms", |limits| limits.handshake = SOON);
    run_local(async {
        let neighbours = Neighbours::of(&stack).await;
        let address = stack.addresses.quic.unwrap();

        let other = raw::client(stack.certificate(), b"h9");
        let error = other.connect(address, "127.0.0.1").unwrap().await;
        // TLS's alert no_application_protocol, as QUIC carries it (RFC 9001, section 4.8).
        let is_alert = |error: &ConnectionError| matches!(error, ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) == 0x100 + 120);
        assert!(is_alert(&error.unwrap_err()));
        assert_eq!(refused(&stack, "udp", "alpn", 1).await, 1);

        let stranger = self_signed(&["127.0.0.1"]).unwrap();
        let mut dial = stack.dial(Transport::Http3);
        dial.tls = Some(ClientTls::trusting(stranger.cert_pem.as_bytes()).unwrap());
        Channel::new(Transport::Http3, dial)
            .connect()
            .await
            .unwrap_err();
        assert_eq!(refused(&stack, "udp", "certificate", 1).await, 1);

        let gate = Gate::before(address).await;
        let client = raw::client(stack.certificate(), OWN);
        let _connecting = client.connect(gate.address, "127.0.0.1").unwrap();
        assert_eq!(refused(&stack, "udp", "slow_handshake", 1).await, 1);
        neighbours.are_served().await;
    });
}

#[test]
fn connections_beyond_the_bound_are_refused_and_those_within_go_on() {
    let stack = limited("gap=0ms", |limits| limits.connections = 3);
    run(async {
        let neighbours = Neighbours::of(&stack).await;
        let third = connect(&stack, OWN).await;
        let client = raw::client(stack.certificate(), OWN);
        let fourth = client.connect(stack.addresses.quic.unwrap(), "127.0.0.1");
        fourth.unwrap().await.unwrap_err();
        assert_eq!(refused(&stack, "udp", "full", 1).await, 1);
        neighbours.are_served().await;
        third.close(VarInt::from_u32(0), b"");
        // A place that is left can be taken again.
        for _ in 0..400 {
            let client = raw::client(stack.certificate(), OWN);
            let again = client.connect(stack.addresses.quic.unwrap(), "127.0.0.1");
            if again.unwrap().await.is_ok() {
                return;
            }
        }
        panic!("the place stays taken");
    });
}

/// Pages of this process that are in memory, in MiB.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4 / 1024
}

#[test]
fn ten_thousand_streams_are_not_served_at_once() {
    let stack = limited("gap=0ms", |_| {});
    run(async {
        let neighbours = Neighbours::of(&stack).await;
        let before = resident();
        for alpn in [OWN, H3] {
            let connection = connect(&stack, alpn).await;
            let mut begun: Vec<(SendStream, RecvStream)> = Vec::new();
            loop {
                tokio::select! {
                    biased;
                    stream = connection.open_bi() => {
                        let (mut send, recv) = stream.unwrap();
                        send.write_all(b"\x01").await.unwrap();
                        begun.push((send, recv));
                    }
                    // The others are served all the while.
                    () = neighbours.are_served() => break,
                }
            }
            assert_eq!(begun.len(), 256);
            for (send, _) in &mut begun {
                send.reset(VarInt::from_u32(7)).unwrap();
            }
            drop(begun);
            for _ in 0..10_000 {
                let (mut send, _recv) = connection.open_bi().await.unwrap();
                // It may be stopped before it is reset.
                let _ = send.write_all(b"\x01").await;
                let _ = send.reset(VarInt::from_u32(7));
            }
            neighbours.are_served().await;
            assert!(connection.close_reason().is_none());
        }
        let grown = resident().saturating_sub(before);
        assert!(grown < 100, "{grown} MiB more");
    });
}

#[test]
fn who_takes_nothing_is_given_up_and_the_upstream_with_him() {
    let stack = limited("gap=0ms", |limits| limits.exchange.stalled = SOON);
    run(async {
        let neighbours = Neighbours::of(&stack).await;
        for (door, alpn) in [("quic", OWN), ("http3", H3)] {
            let trace = trace(u128::from(door.len() as u64));
            let traceparent = trace.traceparent();
            let body = create("x", 200_000);
            let request = match alpn {
                OWN => own_post(&traceparent, body.as_bytes()),
                _ => h3_post(&traceparent, body.as_bytes()),
            };
            let connection = connect(&stack, alpn).await;
            let recv = say(&connection, &request).await;
            assert_eq!(refused(&stack, door, "stalled", 1).await, 1);
            let record = stack.record(trace).await;
            assert_eq!(record.outcome, Outcome::Cancelled, "{door}");
            neighbours.are_served().await;
            assert!(matches!(
                told(recv).await,
                Err(ReadToEndError::Read(_) | ReadToEndError::TooLong)
            ));
        }
    });
}

/// A create of the Responses API.
fn own_post(traceparent: &str, body: &[u8]) -> Vec<u8> {
    use tokenlag_channel::quic::frame::{Frame, ReplyForm};
    let mut out = Vec::new();
    Frame::Request {
        form: ReplyForm::Events,
        method: "POST".to_owned(),
        target: "/v1/responses".to_owned(),
        fields: vec![("traceparent".to_owned(), traceparent.to_owned().into())],
    }
    .write(&mut out);
    Frame::Data(body.to_vec().into()).write(&mut out);
    out
}

fn h3_post(traceparent: &str, body: &[u8]) -> Vec<u8> {
    let head = block(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "test"),
        (":path", "/v1/responses"),
        ("traceparent", traceparent),
    ]);
    [frame(0x01, &head), frame(0x00, body)].concat()
}

#[test]
fn who_sends_too_slowly_is_not_waited_for() {
    let stack = limited("gap=0ms", |limits| {
        limits.exchange.head = SOON;
        limits.exchange.idle = SOON;
        limits.exchange.whole = SOON * 2;
    });
    run(async {
        let neighbours = Neighbours::of(&stack).await;
        let whole = [own_post("-", b"{}"), h3_post("-", b"{}")];
        for (alpn, door, whole) in [(OWN, "quic", &whole[0]), (H3, "http3", &whole[1])] {
            let connection = connect(&stack, alpn).await;
            // A head that is never whole, and a body of which nothing comes.
            for (number, pause_at) in [(1, 3), (2, whole.len() - 1)] {
                let (mut send, recv) = connection.open_bi().await.unwrap();
                send.write_all(&whole[..pause_at]).await.unwrap();
                let answer = told(recv).await;
                assert_eq!(refused(&stack, door, "slow_request", number).await, number);
                match (alpn, number) {
                    // h3 gives a stream to nobody before its head is whole: it can only be reset.
                    (H3, 1) => assert_eq!(reset_code(answer), Some(0x107)),
                    _ => assert!(answer.unwrap().contains("was not there within"), "{door}"),
                }
            }
            // A byte at a time, each in time.
            let (mut send, recv) = connection.open_bi().await.unwrap();
            let mut request = whole.clone();
            request.extend_from_slice(&match alpn {
                OWN => b"\x02\x7f".to_vec(),
                _ => b"\x00\x7f".to_vec(),
            });
            send.write_all(&request).await.unwrap();
            let dribble = async {
                while send.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(SOON / 10).await;
                }
                std::future::pending().await
            };
            let answer = tokio::select! {
                answer = told(recv) => answer,
                () = dribble => unreachable!(),
            };
            assert!(answer.unwrap().contains("was not there within"), "{door}");
            assert_eq!(refused(&stack, door, "slow_request", 3).await, 3);
            neighbours.are_served().await;
        }
    });
}

#[test]
fn requests_have_so_much_memory_together_and_no_more() {
    let stack = limited("gap=0ms", |limits| limits.room = 50_000);
    run(async {
        let neighbours = Neighbours::of(&stack).await;
        let body = vec![b'x'; 60_000];
        for (alpn, door, request) in [
            (OWN, "quic", own_post("-", &body)),
            (H3, "http3", h3_post("-", &body)),
        ] {
            let connection = connect(&stack, alpn).await;
            let answer = told(say(&connection, &request).await).await.unwrap();
            assert!(answer.contains("too many requests"), "{door}: {answer}");
            assert_eq!(refused(&stack, door, "no_room", 1).await, 1);
            // What it had is given back.
            neighbours.are_served().await;
        }
    });
}

fn reset_code(answer: Result<String, ReadToEndError>) -> Option<u64> {
    match answer {
        Err(ReadToEndError::Read(quinn::ReadError::Reset(code))) => Some(code.into_inner()),
        _ => None,
    }
}

#[test]
fn what_breaks_the_frames_of_tokenlag_is_answered_on_its_stream() {
    let stack = limited("gap=0ms", |limits| limits.exchange.body = 100_000);
    run(async {
        let neighbours = Neighbours::of(&stack).await;
        let connection = connect(&stack, OWN).await;
        let long = "x".repeat(70_000);
        let long = frames(&format!("/{long}"), &[]);
        let mut body = frames("/", &[]);
        body.extend_from_slice(&[0x02, 0x80, 0x01, 0x86, 0xa1]);
        body.resize(body.len() + 100_001, b'x');
        let mut announced = frames("/", &[]);
        announced.extend_from_slice(&[0x02, 0xc0, 0, 0, 0x01, 0, 0, 0, 0]);
        let broken: [(&str, Vec<u8>, &str); 13] = [
            ("nothing", vec![], "malformed"),
            ("an unknown type", vec![0x7f, 0], "malformed"),
            ("a reply's frame", vec![0x08, 0], "malformed"),
            ("a body first", vec![0x02, 1, b'x'], "malformed"),
            (
                "two heads",
                [frames("/", &[]), frames("/", &[])].concat(),
                "malformed",
            ),
            ("half a head", frames("/", &[])[..5].to_vec(), "malformed"),
            (
                "a payload that ends too early",
                vec![0x01, 2, 0, 9],
                "malformed",
            ),
            (
                "a method with a space",
                frames_of("GET /", "/", "a", b"b"),
                "malformed",
            ),
            (
                "a target with a line end",
                frames_of("GET", "/\r\nx: y", "a", b"b"),
                "malformed",
            ),
            (
                "a field's value with a line end",
                frames_of("GET", "/", "a", b"b\r\nc: d"),
                "malformed",
            ),
            ("a head that is too long", long, "head_too_large"),
            ("a body that is too long", body, "body_too_large"),
            ("a frame of 4 GiB", announced, "malformed"),
        ];
        let mut counts = std::collections::BTreeMap::new();
        for (what, bytes, reason) in broken {
            let answer = told(say(&connection, &bytes).await).await.expect(what);
            assert!(answer.contains("invalid_request_error"), "{what}: {answer}");
            let count = counts.entry(reason).or_insert(0);
            *count += 1;
            assert_eq!(
                refused(&stack, "quic", reason, *count).await,
                *count,
                "{what}"
            );
        }
        // The connection goes on, and so do the others.
        let answer = told(say(&connection, &frames("/health", &[])).await).await;
        assert!(!answer.unwrap().contains("invalid_request_error"));
        neighbours.are_served().await;
    });
}

fn frames_of(method: &str, target: &str, name: &str, value: &'static [u8]) -> Vec<u8> {
    use tokenlag_channel::quic::frame::{Frame, ReplyForm};
    let mut out = Vec::new();
    Frame::Request {
        form: ReplyForm::Bytes,
        method: method.to_owned(),
        target: target.to_owned(),
        fields: vec![(name.to_owned(), value.into())],
    }
    .write(&mut out);
    out
}

const HEAD: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "test"),
    (":path", "/health"),
];

/// A head with one more field.
fn with(name: &str, value: &str) -> Vec<u8> {
    let mut fields = HEAD.to_vec();
    fields.push((name, value));
    frame(0x01, &block(&fields))
}

#[test]
fn requests_that_http3_forbids_cost_their_stream() {
    let stack = limited("gap=0ms", |limits| limits.exchange.body = 100_000);
    run(async {
        let neighbours = Neighbours::of(&stack).await;
        let connection = connect(&stack, H3).await;
        let good = frame(0x01, &block(&HEAD));
        let without = |index: usize| {
            let mut fields = HEAD.to_vec();
            fields.remove(index);
            frame(0x01, &block(&fields))
        };
        let long = "x".repeat(70_000);
        let large = [good.clone(), frame(0x00, &vec![b'x'; 100_001])].concat();
        let short = [with("content-length", "3"), frame(0x00, b"ab")].concat();
        // What is answered, and what is reset with which code (RFC 9114, section 8.1).
        let broken: [(&str, Vec<u8>, Option<u64>, &str); 10] = [
            ("no method", without(0), Some(0x10e), "malformed"),
            ("no path", without(3), Some(0x10e), "malformed"),
            (
                "a name in capitals",
                with("X-Name", "y"),
                Some(0x10e),
                "malformed",
            ),
            (
                "a value with a line end",
                with("x-name", "y\r\nz: 1"),
                Some(0x10e),
                "malformed",
            ),
            (
                "a pseudo field that is unknown",
                with(":other", "x"),
                Some(0x10e),
                "malformed",
            ),
            (
                "a coding of HTTP/1.1",
                with("transfer-encoding", "chunked"),
                None,
                "malformed",
            ),
            (
                "a body that is shorter than it says",
                short,
                None,
                "malformed",
            ),
            ("a body that is too long", large, None, "body_too_large"),
            (
                "a head that is too long",
                with("x-name", &long),
                None,
                "head_too_large",
            ),
            (
                "a head that is announced far too long",
                vec![0x01, 0x80, 0x10, 0, 0],
                Some(0x107),
                "head_too_large",
            ),
        ];
        let mut counts = std::collections::BTreeMap::new();
        for (what, bytes, code, reason) in broken {
            let answer = told(say(&connection, &bytes).await).await;
            match code {
                None => assert!(!answer.expect(what).is_empty(), "{what}"),
                Some(_) => assert_eq!(reset_code(answer), code, "{what}"),
            }
            let count = counts.entry(reason).or_insert(0);
            *count += 1;
            assert_eq!(
                refused(&stack, "http3", reason, *count).await,
                *count,
                "{what}"
            );
        }
        let answer = told(say(&connection, &good).await).await;
        assert!(!answer.unwrap().contains("invalid_request_error"));
        neighbours.are_served().await;
    });
}

#[test]
fn what_breaks_http3_costs_its_connection() {
    let stack = limited("gap=0ms", |_| {});
    run(async {
        let neighbours = Neighbours::of(&stack).await;
        let good = frame(0x01, &block(&HEAD));
        let on_a_request: [(&str, Vec<u8>, u64); 8] = [
            ("a body first", frame(0x00, b"x"), 0x105),
            ("settings", frame(0x04, b""), 0x105),
            ("a frame of HTTP/2", frame(0x02, b"12345"), 0x105),
            ("a push", frame(0x05, b"\x00\x00\x00"), 0x105),
            ("fields that do not decode", frame(0x01, &[0xff; 20]), 0x200),
            ("half a head", good[..10].to_vec(), 0x106),
            (
                "half a body",
                [good.clone(), frame(0x00, b"abc")[..6].to_vec()].concat(),
                0x106,
            ),
            (
                "a head after the trailers",
                [good.clone(), good.clone(), good.clone()].concat(),
                0x105,
            ),
        ];
        let settings = [&[0x00][..], &frame(0x04, b"")].concat();
        let on_a_control_stream: [(&str, Vec<u8>, u64); 4] = [
            (
                "no settings",
                [&[0x00][..], &frame(0x07, b"\x00")].concat(),
                0x10a,
            ),
            (
                "settings twice",
                [settings.clone(), frame(0x04, b"")].concat(),
                0x105,
            ),
            (
                "a frame that is too long",
                [&settings[..], &[0x21, 0x80, 0x10, 0, 0]].concat(),
                0x107,
            ),
            ("an end", settings, 0x104),
        ];
        let mut count = 0;
        for (what, bytes, code) in on_a_request {
            let connection = connect(&stack, H3).await;
            let _recv = say(&connection, &bytes).await;
            assert_eq!(close_code(&connection).await, Some(code), "{what}");
            count += 1;
            assert_eq!(
                refused(&stack, "http3", "protocol", count).await,
                count,
                "{what}"
            );
        }
        for (what, bytes, code) in on_a_control_stream {
            let connection = connect(&stack, H3).await;
            let mut send = connection.open_uni().await.unwrap();
            send.write_all(&bytes).await.unwrap();
            send.finish().unwrap();
            assert_eq!(close_code(&connection).await, Some(code), "{what}");
            count += 1;
            assert_eq!(
                refused(&stack, "http3", "protocol", count).await,
                count,
                "{what}"
            );
        }
        neighbours.are_served().await;
    });
}

/// The code with which the other end closes the connection.
async fn close_code(connection: &Connection) -> Option<u64> {
    match timeout(IDLE, connection.closed()).await.ok()? {
        ConnectionError::ApplicationClosed(close) => Some(close.error_code.into_inner()),
        _ => None,
    }
}
