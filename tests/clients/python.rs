//! Python packages: `openai` over HTTP and the WebSocket, niquests over HTTP/3.

use std::process::Command;

use serde_json::Value;

use crate::client::{run, said};
use crate::install::{self, source};
use crate::stage::{Backend, Proxy, assert_complete, channels};
use crate::support::stdout;

#[test]
fn openai_package_is_content_with_the_backend() {
    let backend = Backend::start();
    check(HTTP, &backend.url(), &[]);
}

/// The same checks: what passes is not altered, and the proxy keeps what `previous_response_id` names.
#[test]
fn openai_package_is_content_with_the_proxy() {
    let backend = Backend::start();
    let proxy = Proxy::start(&backend.url());
    let count = check(HTTP, &proxy.url("http"), &["--proxy"]);
    assert_eq!(channels(&proxy.records(count)), vec!["http"; count]);
}

#[test]
fn openai_package_is_content_with_the_websocket() {
    let backend = Backend::start();
    let proxy = Proxy::start(&backend.url());
    let count = check(WEBSOCKET, &proxy.url("http"), &[]);
    let records = proxy.records(count);
    assert_eq!(channels(&records), vec!["ws"; count]);
    let failed: Vec<&Value> = records
        .iter()
        .filter(|record| record["outcome"] != "complete")
        .collect();
    // The one that named a response that is not there.
    assert_eq!(failed.len(), 1, "{failed:#?}");
}

#[test]
fn openai_package_is_content_inside_tls() {
    let backend = Backend::start();
    let proxy = Proxy::start(&backend.url());
    let trust = proxy.certificate();
    let count = check(HTTP, &proxy.url("https"), &["--proxy", "--trust", &trust]);
    assert_eq!(channels(&proxy.records(count)), vec!["http"; count]);
}

/// Without session tickets. The package's WebSocket client reads in one thread and writes in another, inside one session of
/// OpenSSL, where Python 3.11 does not keep them apart: about once in a hundred connections a ticket is read while the upgrade
/// is written, and the upgrade is never sent. It does so with every server that sends tickets.
#[test]
fn openai_package_is_content_with_the_websocket_inside_tls() {
    let backend = Backend::start();
    let proxy = Proxy::with(&backend.url(), &["--no-resumption"]);
    let trust = proxy.certificate();
    let count = check(WEBSOCKET, &proxy.url("https"), &["--trust", &trust]);
    assert_eq!(channels(&proxy.records(count)), vec!["ws"; count]);
}

#[test]
fn openai_package_is_content_with_a_pair_over_websocket() {
    // Whatever creates no response goes over HTTP beside the WebSocket.
    check_pair("ws", &["ws", "http"]);
}

#[test]
fn openai_package_is_content_with_a_pair_over_quic() {
    check_pair("quic", &["quic"]);
}

#[test]
fn openai_package_is_content_with_a_pair_over_http2() {
    check_pair("http2", &["http2"]);
}

#[test]
fn openai_package_is_content_with_a_pair_over_http3() {
    check_pair("http3", &["http3"]);
}

/// An application that knows nothing of the channel between two sidecars.
#[track_caller]
fn check_pair(leg: &str, expected: &[&str]) {
    let backend = Backend::start();
    let far = Proxy::start(&backend.url());
    let trust = far.certificate();
    let flags = ["--upstream-channel", leg, "--upstream-trust", &trust];
    let near = Proxy::with(&far.url("https"), &flags);
    let count = check(HTTP, &near.url("http"), &["--proxy"]);

    assert_eq!(channels(&near.records(count)), vec!["http"; count]);
    let records = far.records(count);
    for channel in channels(&records) {
        assert!(expected.contains(&channel), "{records:#?}");
    }
    assert!(channels(&records).contains(&leg), "{records:#?}");
}

/// An HTTP/3 that is not ours finds the way by itself.
#[test]
fn niquests_follows_alt_svc_to_http3() {
    let backend = Backend::start();
    let proxy = Proxy::start(&backend.url());
    let trust = proxy.certificate();
    let script = "python/over_http3.py";
    let went = last_line(script, &proxy.url("https"), &["--trust", &trust]);
    let went: Vec<&str> = went.split(' ').collect();
    assert_eq!(went, ["http2", "http3", "http3", "http3"]);
    let records = proxy.records(went.len());
    assert_eq!(channels(&records), went);
    assert_complete(&records);
}

/// The `openai` package's checks over HTTP.
const HTTP: &str = "python/over_http.py";
/// Those over the WebSocket.
pub const WEBSOCKET: &str = "python/over_websocket.py";

/// Runs a script to its good end against a server; gives how many exchanges it says there were.
#[track_caller]
pub fn check(script: &str, url: &str, args: &[&str]) -> usize {
    let line = last_line(script, url, args);
    line.parse()
        .unwrap_or_else(|_| panic!("{script} ended with no count: {line:?}"))
}

/// Runs a script to its good end; gives the last line that it printed.
#[track_caller]
fn last_line(script: &str, url: &str, args: &[&str]) -> String {
    let mut python = Command::new(install::python());
    python
        .arg(source(script))
        .arg(format!("{url}/v1"))
        .args(args);
    let output = run(&mut python, "the virtual environment is broken");
    assert!(output.status.success(), "{}", said(&output));
    stdout(&output)
        .lines()
        .last()
        .unwrap_or_default()
        .to_owned()
}
