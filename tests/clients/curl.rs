//! curl over HTTP/1.1 and HTTP/2, in clear and inside TLS, all on the proxy's one port.

use std::fs;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::client::{run, said};
use crate::stage::{Backend, Proxy, assert_complete, channels};
use crate::support::{stderr, stdout};

#[test]
fn http1_in_clear() {
    check(&Case {
        scheme: "http",
        flags: &["--http1.1"],
        version: "1.1",
        channel: "http",
    });
}

#[test]
fn http2_by_prior_knowledge() {
    check(&Case {
        scheme: "http",
        flags: &["--http2-prior-knowledge"],
        version: "2",
        channel: "http2",
    });
}

/// RFC 9113, section 3.1: the upgrade from HTTP/1.1 is obsolete, and an offer of it is not taken.
#[test]
fn an_upgrade_to_http2_is_declined() {
    check(&Case {
        scheme: "http",
        flags: &["--http2"],
        version: "1.1",
        channel: "http",
    });
}

#[test]
fn http1_inside_tls() {
    check(&Case {
        scheme: "https",
        flags: &["--http1.1", "--tlsv1.3"],
        version: "1.1",
        channel: "http",
    });
}

#[test]
fn http2_inside_tls_by_alpn() {
    check(&Case {
        scheme: "https",
        flags: &["--http2", "--tlsv1.3"],
        version: "2",
        channel: "http2",
    });
}

#[test]
fn no_alpn_is_http1() {
    check(&Case {
        scheme: "https",
        flags: &["--no-alpn"],
        version: "1.1",
        channel: "http",
    });
}

#[test]
fn a_curl_that_does_not_trust_the_certificate_says_so() {
    let backend = Backend::start();
    let proxy = Proxy::start(&backend.url());
    let output = curl(&["--fail", &format!("https://{}/v1/models", proxy.listen())]);
    // Of curl's manual: the peer's certificate cannot be authenticated with known CA certificates.
    assert_eq!(output.status.code(), Some(60), "{}", said(&output));
    // Others do not notice.
    let output = curl(&["--fail", &format!("http://{}/v1/models", proxy.listen())]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn an_older_tls_is_refused() {
    let backend = Backend::start();
    let proxy = Proxy::start(&backend.url());
    let certificate = proxy.certificate();
    let output = curl(&[
        "--tls-max",
        "1.2",
        "--cacert",
        certificate.to_str().expect("text"),
        &format!("https://{}/v1/models", proxy.listen()),
    ]);
    assert_eq!(output.status.code(), Some(35), "{}", said(&output));
    assert!(
        stderr(&output).contains("protocol version"),
        "{}",
        said(&output)
    );
}

struct Case {
    scheme: &'static str,
    flags: &'static [&'static str],
    /// As curl names it.
    version: &'static str,
    channel: &'static str,
}

/// One streamed response and one that is whole, on one connection.
#[track_caller]
fn check(case: &Case) {
    let backend = Backend::start();
    let proxy = Proxy::start(&backend.url());
    let url = format!("{}://{}/v1/responses", case.scheme, proxy.listen());
    let certificate = proxy.certificate();
    let ask = |stream: bool| {
        let input = "fn main() {";
        json!({"model": "tokenlag-tiny", "input": input, "max_output_tokens": 8, "ignore_eos": true, "stream": stream})
            .to_string()
    };
    let folder = tempfile::tempdir().expect("there is room for files");
    let heads = ["first", "second"].map(|name| folder.path().join(name));
    let bodies = [ask(true), ask(false)];
    let mut args = Vec::new();
    for (body, head) in bodies.iter().zip(&heads) {
        args.extend(["--no-buffer", "--write-out", TOLD]);
        args.extend(["--dump-header", head.to_str().expect("text")]);
        args.extend(["--cacert", certificate.to_str().expect("text")]);
        args.extend(case.flags);
        // What follows is of another request.
        args.extend(["--json", body, &url, "--next"]);
    }
    args.pop();
    let output = curl(&args);
    assert!(output.status.success(), "{}", said(&output));

    let told: Vec<Value> = stderr(&output)
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    assert_eq!(told.len(), 2, "{}", said(&output));
    for told in &told {
        assert_eq!(told["response_code"], 200, "{}", said(&output));
        assert_eq!(told["http_version"], case.version, "{}", said(&output));
    }
    let connections: u64 = told
        .iter()
        .filter_map(|told| told["num_connects"].as_u64())
        .sum();
    assert_eq!(connections, 1, "{}", said(&output));

    // RFC 7838: an alternative is announced where the origin is authenticated.
    let (_, port) = proxy.listen().rsplit_once(':').expect("host and port");
    let alternative = format!("alt-svc: h3=\":{port}\"");
    for head in heads {
        let head = fs::read_to_string(head).expect("curl wrote the head");
        let announced = head.to_ascii_lowercase().contains(&alternative);
        assert_eq!(announced, case.scheme == "https", "{head}");
    }

    assert_is_answer(&output);
    let records = proxy.records(2);
    assert_eq!(channels(&records), [case.channel; 2]);
    assert_complete(&records);
    assert_eq!(records[0]["out_token"].as_array().map(Vec::len), Some(8));
}

/// Fails unless a stream of events came, and then the same response at once.
#[track_caller]
fn assert_is_answer(output: &Output) {
    let body = stdout(output);
    let (events, whole) = body
        .rsplit_once("\n\n")
        .unwrap_or_else(|| panic!("no events: {}", said(output)));
    let events: Vec<Value> = events
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).expect("an event is JSON"))
        .collect();
    let whole: Value = serde_json::from_str(whole).expect("a response is JSON");
    let numbers: Vec<_> = events
        .iter()
        .filter_map(|event| event["sequence_number"].as_u64())
        .collect();
    assert!(
        numbers.iter().copied().eq(0..events.len() as u64),
        "{numbers:?}"
    );
    let first = events.first().map(|event| &event["type"]);
    assert_eq!(first, Some(&json!("response.created")));
    let last = events.last().expect("there are events");
    assert_eq!(last["type"], "response.incomplete");
    for response in [&last["response"], &whole] {
        assert_eq!(response["usage"]["output_tokens"], 8, "{response:#}");
    }
}

/// A line for each request, on standard error.
const TOLD: &str = "%{stderr}\\n{\"http_version\":\"%{http_version}\",\"response_code\":%{response_code},\
    \"num_connects\":%{num_connects}}\\n";

/// Runs curl without the user's own configuration.
#[track_caller]
fn curl(args: &[&str]) -> Output {
    let mut command = Command::new("curl");
    command
        .args(["--disable", "--silent", "--show-error", "--max-time", "120"])
        .args(args);
    let output = run(&mut command, "install curl, as .ci/run does");
    // Of curl's manual: a feature or option was not found built-in.
    assert_ne!(
        output.status.code(),
        Some(4),
        "this curl has no HTTP/2; install one that has it: {}",
        said(&output)
    );
    output
}
