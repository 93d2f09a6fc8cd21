//! The instrument's doors: every channel plays every script, and the emissions fit what the client read.

mod asking;

use std::time::Duration;

use asking::{Seen, ask, ask_held};
use tokenlag_channel::tls::ClientTls;
use tokenlag_channel::{Channel, Dial};
use tokenlag_dialect::Dialect;
use tokenlag_probes::{Encoding, FailureKind, Outcome, Stamp, TraceId, Transport};
use tokenlag_scripted::{Pace, Script, ScriptedBackend};
use tokio::task::LocalSet;

const PATIENCE: Duration = Duration::from_secs(20);

const CHANNELS: [(Transport, Encoding); 7] = [
    (Transport::HttpCold, Encoding::Events),
    (Transport::Http, Encoding::Events),
    (Transport::Http2, Encoding::Events),
    (Transport::Http3, Encoding::Events),
    (Transport::Ws, Encoding::Events),
    (Transport::Quic, Encoding::Events),
    (Transport::Quic, Encoding::Compact),
];

fn start(script: &str) -> ScriptedBackend {
    let address = ([127, 0, 0, 1], 0).into();
    let script: Script = script.parse().unwrap();
    let mut backend = ScriptedBackend::start_with(address, script, Pace::RealTime).unwrap();
    backend.open_doors().unwrap();
    backend
}

fn channel(backend: &mut ScriptedBackend, transport: Transport) -> Channel {
    let doors = backend.open_doors().unwrap();
    let trust = ClientTls::trusting(doors.certificate().as_bytes()).unwrap();
    let (port, tls) = match transport.is_encrypted_always() {
        true => (doors.udp().port(), Some(trust)),
        false => (doors.tcp().port(), None),
    };
    let dial = Dial {
        host: "127.0.0.1".to_owned(),
        port,
        path: Dialect::Responses.path().to_owned(),
        headers: Vec::new(),
        connect_timeout: PATIENCE,
        idle_timeout: PATIENCE,
        tls,
        stamping: tokenlag_channel::Stamping::default(),
        nagle: false,
    };
    Channel::new(transport, dial)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Plays `script` on every channel, and shows what was read beside what was written.
fn on_every_channel(script: &str, check: impl Fn(&str, &Seen, &[Stamp], Stamp)) {
    let mut backend = start(script);
    let runtime = runtime();
    for (number, row) in CHANNELS.into_iter().enumerate() {
        let name = format!("{} {:?}", row.0, row.1);
        let trace = TraceId::from_bits(number as u128 + 1);
        let channel = channel(&mut backend, row.0);
        let seen = LocalSet::new().block_on(&runtime, ask(&channel, row, trace));
        let request = backend.requests().pop().expect("it was asked");
        assert_eq!(
            request.trace,
            Some(trace),
            "{name}: {request:?} {:?}",
            seen.error
        );
        let emitted = loop {
            // A reply that is cut off may be noted after the client has seen the cut.
            if let Some(emitted) = backend.emissions(trace) {
                break emitted;
            }
            std::thread::yield_now();
        };
        check(&name, &seen, &emitted, request.at);
    }
}

/// Everything that was written was read, and after it was written.
#[track_caller]
fn check_whole(name: &str, seen: &Seen, emitted: &[Stamp], tokens: usize) {
    assert!(seen.error.is_none(), "{name}: {:?}", seen.error);
    assert_eq!(seen.outcome, Some(Outcome::Complete), "{name}");
    assert_eq!(
        (seen.marks.len(), emitted.len()),
        (tokens, tokens),
        "{name}"
    );
    for (mark, emitted) in seen.marks.iter().zip(emitted) {
        assert!(mark.at >= *emitted, "{name}");
    }
}

fn millis(from: Stamp, to: Stamp) -> i64 {
    to.since(from) / 1_000_000
}

#[test]
fn constant_gaps() {
    on_every_channel("ttft=10ms,gap=2ms,tokens=20", |name, seen, emitted, at| {
        check_whole(name, seen, emitted, 20);
        for (k, stamp) in emitted.iter().enumerate() {
            assert!(millis(at, *stamp) >= 10 + 2 * k as i64, "{name}: {k}");
        }
    });
}

#[test]
fn bursts() {
    on_every_channel(
        "ttft=5ms,gap=5ms,burst=4,tokens=8",
        |name, seen, emitted, at| {
            check_whole(name, seen, emitted, 8);
            assert!(millis(at, emitted[0]) >= 5, "{name}");
            assert!(millis(at, emitted[4]) >= 25, "{name}");
            assert!(emitted.is_sorted(), "{name}");
        },
    );
}

#[test]
fn several_tokens_in_an_event() {
    on_every_channel("tokens=9,tokens_per_event=3", |name, seen, emitted, _| {
        check_whole(name, seen, emitted, 3);
    });
}

#[test]
fn several_events_in_a_chunk() {
    on_every_channel("tokens=9,events_per_write=3", |name, seen, emitted, _| {
        check_whole(name, seen, emitted, 9);
        assert_eq!(emitted[0], emitted[2], "{name}");
        assert_ne!(emitted[2], emitted[3], "{name}");
    });
}

#[test]
fn an_event_in_many_writes() {
    let script = "ttft=5ms,gap=30ms,tokens=2,writes_per_event=4,piece_pause=4ms";
    on_every_channel(script, |name, seen, emitted, at| {
        check_whole(name, seen, emitted, 2);
        // The stamp is that of the piece that makes it whole.
        assert!(millis(at, emitted[0]) >= 17, "{name}");
        assert!(millis(at, emitted[1]) >= 47, "{name}");
    });
}

#[test]
fn what_stands_before_the_first_token() {
    let script = "ttft=60ms,head=1ms,pings=3,tokens=2,early=head";
    on_every_channel(script, |name, seen, emitted, _| {
        check_whole(name, seen, emitted, 2);
        let head = seen.head.unwrap();
        assert!(
            head < emitted[0],
            "{name}: the head came with the first token"
        );
        // A WebSocket pings by control frames, and frames of events have no comments.
        let pings = seen.early.windows(7).filter(|it| *it == b": ping\n");
        assert_eq!(pings.count(), if seen.is_sse { 3 } else { 0 }, "{name}");
    });
}

#[test]
fn slow_headers() {
    on_every_channel("head=40ms,ttft=40ms,tokens=2", |name, seen, emitted, at| {
        check_whole(name, seen, emitted, 2);
        assert!(millis(at, seen.head.unwrap()) >= 40, "{name}");
    });
}

#[test]
fn stalls() {
    on_every_channel(
        "ttft=2ms,tokens=4,stall=3:60ms",
        |name, seen, emitted, _| {
            check_whole(name, seen, emitted, 4);
            assert!(millis(emitted[1], emitted[2]) >= 30, "{name}");
        },
    );
}

#[test]
fn replies_that_are_cut_off_at_a_token_are_never_taken_for_whole() {
    for ending in ["reset=4", "close=4", "truncate=4"] {
        let script = format!("ttft=2ms,gap=20ms,tokens=9,{ending}");
        on_every_channel(&script, |name, seen, emitted, _| {
            assert_eq!(emitted.len(), 3, "{name} {ending}");
            assert_eq!(seen.outcome, None, "{name} {ending}");
            assert!(seen.marks.len() <= 3, "{name} {ending}");
            let is_clean = ending.starts_with("truncate") && !name.starts_with("ws");
            assert_eq!(seen.error.is_none(), is_clean, "{name} {ending}");
        });
    }
}

#[test]
fn a_long_reply_is_bounded_by_its_reader() {
    const WRITES: u64 = 1_000;
    const TOKENS: usize = 100_000;
    let mut backend = start("ttft=1ms,gap=0,tokens=100000,events_per_write=100");
    let runtime = runtime();
    for (number, row) in CHANNELS.into_iter().enumerate() {
        let name = format!("{} {:?}", row.0, row.1);
        let trace = TraceId::from_bits(number as u128 + 1);
        let channel = channel(&mut backend, row.0);
        let mut held_at = None;
        // Nobody reads until nothing more is written.
        let hold = || {
            let mut written = backend.take_lateness().emissions;
            loop {
                std::thread::sleep(Duration::from_millis(200));
                match backend.take_lateness().emissions {
                    0 => break,
                    more => written += more,
                }
            }
            held_at = Some((written, backend.emissions(trace).is_some()));
        };
        let seen = ask_held(&channel, row, trace, hold);
        let seen = LocalSet::new().block_on(&runtime, seen);
        let (written, is_over) = held_at.expect("something was read");
        // All of a compact reply fits into what lies between the two ends.
        if row.1 == Encoding::Events {
            assert!(written < WRITES && !is_over, "{name}: {written} writes");
        }
        let rest = backend.take_lateness().emissions;
        assert_eq!(written + rest, WRITES, "{name}");
        let emitted = backend.emissions(trace).expect("the reply was streamed");
        check_whole(&name, &seen, &emitted, TOKENS);
    }
}

#[test]
fn an_error_is_told_in_the_channels_form() {
    let mut backend = start("status=503");
    let runtime = runtime();
    for row in CHANNELS {
        let channel = channel(&mut backend, row.0);
        let seen = LocalSet::new().block_on(&runtime, ask(&channel, row, TraceId::from_bits(9)));
        // A WebSocket has no status of a reply: an event tells it.
        let (status, outcome) = match row.0 {
            Transport::Ws => (200, Some(Outcome::Failed(FailureKind::ServerError))),
            _ => (503, None),
        };
        assert_eq!((seen.status, seen.outcome), (status, outcome), "{}", row.0);
        assert!(seen.error.is_none(), "{}: {:?}", row.0, seen.error);
        assert!(seen.marks.is_empty(), "{}", row.0);
        let told = String::from_utf8_lossy(&seen.early);
        assert!(told.contains("error"), "{}: {told}", row.0);
    }
}

#[test]
fn lateness_counts_what_leaves_by_the_doors() {
    let mut backend = start("ttft=2ms,gap=1ms,tokens=10");
    let runtime = runtime();
    for (number, row) in CHANNELS.into_iter().enumerate() {
        let trace = TraceId::from_bits(number as u128 + 1);
        let channel = channel(&mut backend, row.0);
        assert_eq!(backend.take_lateness().emissions, 0);
        let seen = LocalSet::new().block_on(&runtime, ask(&channel, row, trace));
        assert_eq!(seen.marks.len(), 10, "{}: {:?}", row.0, seen.error);
        let late = backend.take_lateness();
        assert_eq!(late.emissions, 10, "{}", row.0);
        // No door lets a token out before it is due.
        assert!(late.mean >= 0.0, "{}: {late}", row.0);
    }
}
