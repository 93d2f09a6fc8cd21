//! A conversation of 128k tokens, with the real model: resent and gone on from, over every kind of channel, wherever it is kept.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;
use support::{Backend, Proxy, assert_code, assert_tells, counter, json, rows_of, run, small};

/// A session that begins with nearly all of it, and one more turn.
const LONG: &str = "compare --blocks 1 --turns 2 --isl 124000 --later-isl 4000 --osl 8 --no-direct --num-warmups 0 --ui none --allow-untrusted";

fn figure(row: &Value, name: &str, statistic: &str) -> f64 {
    row["metrics"][name][statistic]
        .as_f64()
        .unwrap_or_else(|| panic!("{name}: {row}"))
}

#[track_caller]
fn check(more: &[&str], names: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let mut args: Vec<&str> = LONG.split(' ').chain(more.iter().copied()).collect();
    args.extend(["--out", out.to_str().unwrap()]);
    assert_code(&run(&args), 0);
    let report = json(&out.join("report.json"));
    let rows = rows_of(&report);
    let found: Vec<&str> = rows.iter().map(|(name, _)| &**name).collect();
    assert_eq!(found, names);
    for (name, row) in &rows {
        assert_eq!(row["completed"], 2, "{name}");
        let input = counter(row, "input_tokens_per_exchange").unwrap();
        assert!((120_000.0..132_000.0).contains(&input), "{name}: {input}");
        // The model's time is a leg of its own, and no part of what the wire added.
        let legs: f64 = [
            "setup",
            "request_transfer",
            "proxy_request",
            "model_ttft",
            "proxy_token",
            "delivery",
        ]
        .map(|leg| figure(row, leg, "mean"))
        .iter()
        .sum();
        let whole = figure(row, "ttft_dispatched", "mean");
        // Each histogram keeps three digits.
        let equal = |sum: f64| (sum - whole).abs() < 2e-3 * whole;
        assert!(equal(legs), "{name}: {legs} {whole}");
        let wire = figure(row, "first_token_overhead", "mean");
        let model = figure(row, "model_ttft", "mean");
        assert!(equal(wire + model), "{name}: {wire} {model} {whole}");
    }
    // The first turn brings the history on either row; the second one brings it again, or not.
    let sent = |wanted: &str| {
        let (_, row) = rows.iter().find(|(name, _)| name == wanted).unwrap();
        counter(row, "channel_bytes_sent_per_token").unwrap() * 16.0
    };
    for channel in ["http", "ws"] {
        let full = sent(&format!("{channel}/full"));
        let incremental = sent(&format!("{channel}/incremental"));
        assert!(full > 600_000.0, "{channel}: {full}");
        assert!(
            incremental < 0.6 * full,
            "{channel}: {incremental} of {full}"
        );
    }
}

#[test]
fn a_history_of_128k_tokens_is_kept_by_the_proxy() {
    check(
        &["--channels", "http,ws,quic"],
        &[
            "http/full",
            "http/incremental",
            "ws/full",
            "ws/incremental",
            "quic/full",
            "quic/incremental",
        ],
    );
}

#[test]
fn a_history_of_128k_tokens_is_kept_by_the_backend() {
    check(
        &["--channels", "http,ws,pair-ws", "--state-at", "upstream"],
        &[
            "http/full",
            "http/incremental",
            "ws/full",
            "ws/incremental",
            "pair-ws/full",
            "pair-ws/incremental",
        ],
    );
}

/// What a proxy's `/metrics` say of the exchanges that it served.
fn exchanges_of(proxy: &Proxy) -> Vec<String> {
    let address = proxy.admin.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let lines = answer.lines();
    let told = lines.filter(|line| line.starts_with("tokenlag_exchanges_total{"));
    told.map(str::to_owned).collect()
}

#[test]
fn an_upstream_that_speaks_websocket_keeps_no_rows_state_apart_from_the_others() {
    let backend = Backend::start();
    let speaks = Proxy::start(&backend.url);
    let rows = ["--channels", "http,ws", "--state", "incremental"];

    // A proxy that was started for the run asks it as it asks for every other channel.
    assert_code(
        &run(&small(&[&rows[..], &["--url", &speaks.listen]].concat())),
        0,
    );
    let asked = exchanges_of(&speaks);
    assert!(!asked.is_empty());
    let http = |line: &String| line.contains("channel=\"http\"");
    assert!(asked.iter().all(http), "{asked:#?}");

    // One that was there before is refused.
    let joins = Proxy::start_with(&speaks.listen, &["--upstream-api", "websocket"]);
    let given = ["--proxy", &joins.listen, "--proxy-admin", &joins.admin];
    let refused = run(&small(
        &[&rows[..], &given, &["--url", &speaks.listen]].concat(),
    ));
    assert_code(&refused, 2);
    assert_tells(&refused, "joins WebSockets");
}
