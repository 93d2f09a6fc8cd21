//! curl over HTTP/1.1 and HTTP/2, in clear and inside TLS, all on the proxy's one port.

use std::process::{Command, Output};

use serde_json::Value;

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
        connections: 1,
    });
}

#[test]
fn http2_by_prior_knowledge() {
    check(&Case {
        scheme: "http",
        flags: &["--http2-prior-knowledge"],
        version: "2",
        channel: "http2",
        // curl 7.88 cannot use such a connection twice, whoever the server is.
        connections: 2,
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
        connections: 1,
    });
}

#[test]
fn http1_inside_tls() {
    check(&Case {
        scheme: "https",
        flags: &["--http1.1", "--tlsv1.3"],
        version: "1.1",
        channel: "http",
        connections: 1,
    });
}

#[test]
fn http2_inside_tls_by_alpn() {
    check(&Case {
        scheme: "https",
        flags: &["--http2", "--tlsv1.3"],
        version: "2",
        channel: "http2",
        connections: 1,
    });
}

#[test]
fn no_alpn_is_http1() {
    check(&Case {
        scheme: "https",
        flags: &["--no-alpn"],
        version: "1.1",
        channel: "http",
        connections: 1,
    });
}

#[test]
fn a_curl_that_does_not_trust_the_certificate_says_so() {
    let backend = Backend::start();
    let proxy = Proxy::start(&backend.url());
    let output = curl(&["--fail", &format!("{}/v1/models", proxy.url("https"))]);
    // Of curl's manual: the peer's certificate cannot be authenticated with known CA certificates.
    assert_eq!(output.status.code(), Some(60), "{}", said(&output));
    // Others do not notice.
    let output = curl(&["--fail", &format!("{}/v1/models", proxy.url("http"))]);
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
        &certificate,
        &format!("{}/v1/models", proxy.url("https")),
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
    /// For both requests.
    connections: u64,
}

const STREAMED: &str = r#"{"model": "tokenlag-tiny", "input": "fn main() {", "max_output_tokens": 8,
    "ignore_eos": true, "stream": true}"#;
const WHOLE: &str = r#"{"model": "tokenlag-tiny", "input": "fn main() {", "max_output_tokens": 8,
    "ignore_eos": true}"#;

/// One streamed response and one that is whole.
#[track_caller]
fn check(case: &Case) {
    let backend = Backend::start();
    let proxy = Proxy::start(&backend.url());
    let url = format!("{}/v1/responses", proxy.url(case.scheme));
    let certificate = proxy.certificate();
    let args = |body: &'static str| {
        let wanted = ["--no-buffer", "--cacert", &certificate, "--json", body];
        [case.flags, &wanted, &["--write-out", TOLD, &url]].concat()
    };
    let (streamed, whole) = (args(STREAMED), args(WHOLE));
    let outputs = if case.connections == 1 {
        // What follows `--next` is another request of the same run.
        vec![curl(&[&streamed[..], &["--next"], &whole].concat())]
    } else {
        vec![curl(&streamed), curl(&whole)]
    };
    let mut body = String::new();
    let mut told: Vec<Value> = Vec::new();
    for output in &outputs {
        assert!(output.status.success(), "{}", said(output));
        body += &stdout(output);
        let values = serde_json::Deserializer::from_slice(&output.stderr).into_iter();
        told.extend(values.map(|value| value.expect("curl tells in JSON")));
    }

    assert_eq!(told.len(), 2, "{told:#?}");
    for told in &told {
        assert_eq!(told["response_code"], 200, "{told:#}");
        assert_eq!(told["http_version"], case.version, "{told:#}");
        // RFC 7838: an alternative is announced where the origin is authenticated.
        let (_, port) = proxy.listen().rsplit_once(':').expect("host and port");
        let alternative = told["headers"]["alt-svc"][0].as_str();
        let expected = (case.scheme == "https").then(|| format!("h3=\":{port}\""));
        let named = alternative.map(|value| value.split(';').next().unwrap_or_default());
        assert_eq!(named, expected.as_deref(), "{told:#}");
    }
    let connections = told.iter().map(|told| told["connections"].as_u64());
    let connections: u64 = connections.map(|count| count.expect("a number")).sum();
    assert_eq!(connections, case.connections, "{told:#?}");

    assert_is_answer(&body);
    let records = proxy.records(2);
    assert_eq!(channels(&records), [case.channel; 2]);
    assert_complete(&records);
    assert_eq!(records[0]["out_token"].as_array().map(Vec::len), Some(8));
}

/// A value for each request, on standard error.
const TOLD: &str = "%{stderr}{\"http_version\":\"%{http_version}\",\"response_code\":%{response_code},\
    \"connections\":%{num_connects},\"headers\":%{header_json}}\\n";

/// Fails unless a stream of events came, and then a whole response of the same length.
#[track_caller]
fn assert_is_answer(body: &str) {
    let (events, whole) = body.rsplit_once("\n\n").expect(body);
    let events: Vec<Value> = events
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).expect("an event is JSON"))
        .collect();
    let whole: Value = serde_json::from_str(whole).expect("a response is JSON");
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number, "{event:#}");
    }
    let (Some(first), Some(last)) = (events.first(), events.last()) else {
        panic!("no events: {body}");
    };
    assert_eq!(first["type"], "response.created");
    assert_eq!(last["type"], "response.incomplete");
    for response in [&last["response"], &whole] {
        assert_eq!(response["usage"]["output_tokens"], 8, "{response:#}");
    }
}

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
