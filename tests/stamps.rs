//! Who stamps what a proxy reads of its upstream: one that is stopped while a token comes sees by the kernel's stamps when it came,
//! by its own when it could read again.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::{Proxy, compared, signal, wait_until};
use tokenlag_probes::{Clock, HopExchange, MonoClock, Stamp, TraceId};
use tokenlag_scripted::ScriptedBackend;

/// Long enough for the proxy to be stopped before the first token, and all within one write.
const SCRIPT: &str = "ttft=400ms,gap=0,tokens=3,events_per_write=3";
/// How long the proxy stays stopped once all was written.
const HELD_UP: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks on a connection of its own; status and body of the answer.
fn ask(address: &str, what: &str, fields: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let length = body.len();
    let request = format!(
        "{what} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{fields}content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok());
    (status.expect("a status"), body.to_owned())
}

/// The proxy's record of an exchange that it was stopped in the middle of, when its upstream wrote, and when it went on.
fn stopped(
    backend: &ScriptedBackend,
    upstream: &str,
    flags: &[&str],
) -> (HopExchange, Stamp, Stamp) {
    let flags = [&["--upstream-api", "responses"], flags].concat();
    let proxy = Proxy::start_with(upstream, &flags);
    let trace = TraceId::from_bits(u128::from(MonoClock.now().as_nanos()));
    let released = thread::scope(|scope| {
        let listen = proxy.listen.as_str();
        let asking = scope.spawn(move || {
            let fields = format!("traceparent: {}\r\n", trace.traceparent());
            let body = r#"{"model":"m","input":"hi","stream":true}"#;
            ask(listen, "POST /v1/responses", &fields, body)
        });
        wait_until("the request is there", PATIENCE, || {
            backend.requests().iter().any(|it| it.trace == Some(trace))
        });
        signal(proxy.pid(), Signal::SIGSTOP);
        wait_until("all is written", PATIENCE, || {
            backend.emissions(trace).is_some()
        });
        thread::sleep(HELD_UP);
        let released = MonoClock.now();
        signal(proxy.pid(), Signal::SIGCONT);
        let (status, body) = asking.join().expect("it is answered");
        assert_eq!(status, 200, "{body}");
        released
    });
    let path = format!("GET /exchanges?trace={trace}");
    let mut found = None;
    wait_until("the exchange is booked", PATIENCE, || {
        let (status, body) = ask(&proxy.admin, &path, "", "");
        found = (status == 200).then_some(body);
        found.is_some()
    });
    let record = serde_json::from_str(&found.expect("it was booked")).expect("a record");
    let emitted = backend.emissions(trace).expect("it was streamed")[0];
    (record, emitted, released)
}

/// Over QUIC a stamp may be that of a later datagram: there it is an upper bound.
#[test]
fn tokens_of_the_upstream_have_the_kernels_stamps_over_tcp() {
    let mut backend = ScriptedBackend::start(SCRIPT.parse().expect("a script")).expect("it starts");
    let http = backend.url();
    let doors = backend.open_doors().expect("they open");
    let folder = tempfile::tempdir().expect("there is room for files");
    let trust = folder.path().join("trust.pem");
    fs::write(&trust, doors.certificate()).expect("it is written");
    let trust = trust.to_str().expect("text");
    let (clear, tls) = (
        format!("http://{}", doors.tcp()),
        format!("https://{}", doors.tcp()),
    );
    for (upstream, channel) in [
        (&http, "http"),
        (&clear, "http2"),
        (&clear, "ws"),
        (&tls, "http"),
        (&tls, "ws"),
    ] {
        let mut flags = vec!["--upstream-channel", channel];
        if upstream.starts_with("https") {
            flags.extend(["--upstream-trust", trust]);
        }
        for stamp in ["kernel", "user"] {
            let flags = [&flags[..], &["--stamp", stamp]].concat();
            let (record, emitted, released) = stopped(&backend, upstream, &flags);
            let name =
                format!("{upstream} {channel} {stamp}: {record:?}, {emitted:?}, {released:?}");
            assert_eq!(record.up_token.len(), 3, "{name}");
            for came in record.up_token {
                assert!(came >= emitted, "{name}");
                assert_eq!(came < released, stamp == "kernel", "{name}");
            }
            // Nobody had read any of it before.
            assert!(record.out_token.iter().all(|at| *at >= released), "{name}");
        }
    }
}

#[test]
fn tokens_that_share_an_upstream_read_are_told_of_their_row() {
    let script = "ttft=20ms,gap=5ms,events_per_write=3";
    let backend = ScriptedBackend::start(script.parse().expect("a script")).expect("it starts");
    let flags = [
        "--channels",
        "http",
        "--state",
        "full",
        "--model",
        "m",
        "--url",
    ];
    let (report, _) = compared(&[&flags[..], &[&backend.url()]].concat());
    for row in report["channels"].as_array().expect("rows") {
        // Of six tokens, two in each write have another behind them.
        let least = match row["channel"].as_str() {
            Some("direct") => None,
            _ => row["completed"].as_f64().map(|completed| 4.0 * completed),
        };
        let found = row["counters"]["up_coalesced_deltas"].as_f64();
        assert_eq!(found.is_some(), least.is_some(), "{row}");
        assert!(found >= least, "{row}");
    }
}
