//! How a server ends that is asked to: what is under way may finish, unless the user is less patient.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::{seconds_since, signal, tokenlag, wait_until};
use tokenlag_probes::{Clock, MonoClock};

/// Asks for a reply that goes on for minutes, and waits until it has begun.
fn long_reply(address: &str) -> TcpStream {
    let body = r#"{"prompt": "fn", "max_tokens": 100000, "ignore_eos": true, "stream": true}"#;
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "POST /v1/completions HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut begun = [0; 512];
    let count = stream.read(&mut begun).unwrap();
    let begun = String::from_utf8_lossy(&begun[..count]);
    assert!(begun.starts_with("HTTP/1.1 200"), "{begun}");
    stream
}

#[test]
fn a_second_ctrl_c_ends_a_backend_that_waits_for_a_long_reply() {
    let mut backend = tokenlag(&["backend", "--listen", "127.0.0.1:0", "--report-ready"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = backend.id() as i32;
    let mut ready = String::new();
    let mut stdout = BufReader::new(backend.stdout.take().unwrap());
    stdout.read_line(&mut ready).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
    let _reply = long_reply(ready["listen"].as_str().unwrap());

    signal(pid, Signal::SIGINT);
    let mut said = String::new();
    let mut stderr = BufReader::new(backend.stderr.take().unwrap());
    stderr.read_line(&mut said).unwrap();
    assert!(said.contains("Ctrl-C again ends at once"), "{said}");

    // What comes at once is of the same making, and asks for nothing more.
    signal(pid, Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(backend.try_wait().unwrap(), None, "it waits for the reply");

    let pressed = MonoClock.now();
    signal(pid, Signal::SIGINT);
    wait_until("the backend ended", Duration::from_secs(2), || {
        backend.try_wait().unwrap().is_some()
    });
    assert!(seconds_since(pressed) < 1.0);
    assert_eq!(backend.wait().unwrap().code(), Some(1));
}
