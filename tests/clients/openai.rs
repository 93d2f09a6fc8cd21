//! The `openai` Python package: against the backend itself, and through the proxy over HTTP and the WebSocket.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::client::{run, said};
use crate::install::{self, source};
use crate::stage::{Backend, Proxy, channels};
use crate::support::stdout;

#[test]
fn openai_package_is_content_with_the_backend() {
    let backend = Backend::start();
    check(
        "openai/over_http.py",
        &format!("{}/v1", backend.url()),
        None,
    );
}

/// The same checks: what passes is not altered, and the proxy keeps what `previous_response_id` names.
#[test]
fn openai_package_is_content_with_the_proxy() {
    let backend = Backend::start();
    let proxy = Proxy::start(&backend.url());
    let count = check(
        "openai/over_http.py",
        &format!("http://{}/v1", proxy.listen()),
        None,
    );
    let records = proxy.records(count);
    assert!(
        channels(&records).iter().all(|channel| *channel == "http"),
        "{records:#?}"
    );
}

#[test]
fn openai_package_is_content_with_the_websocket() {
    let backend = Backend::start();
    let proxy = Proxy::start(&backend.url());
    let count = check(
        "openai/over_websocket.py",
        &format!("http://{}/v1", proxy.listen()),
        None,
    );
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
    let url = format!("https://{}/v1", proxy.listen());
    let count = check("openai/over_http.py", &url, Some(&proxy.certificate()))
        + check("openai/over_websocket.py", &url, Some(&proxy.certificate()));
    let records = proxy.records(count);
    assert!(channels(&records).contains(&"ws"), "{records:#?}");
}

/// Runs a script to its good end; gives how many exchanges it says there were.
#[track_caller]
pub fn check(script: &str, url: &str, certificate: Option<&Path>) -> usize {
    let mut python = Command::new(install::openai());
    python.arg(source(script)).arg(url).args(certificate);
    let output = run(&mut python, "the virtual environment is broken");
    assert!(output.status.success(), "{}", said(&output));
    let count = stdout(&output)
        .lines()
        .last()
        .and_then(|line| line.parse().ok());
    count.unwrap_or_else(|| panic!("no count: {}", said(&output)))
}
