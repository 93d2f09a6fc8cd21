//! `compare` over every channel: encrypted, with state at either place, shared, and in pairs.

mod support;

use serde_json::Value;
use support::{Backend, Proxy, assert_code, assert_tells, compared, counter, rows_of, run, small};

fn names<'a>(rows: &'a [(String, &Value)]) -> Vec<&'a str> {
    rows.iter().map(|(name, _)| &**name).collect()
}

#[test]
fn the_factorial_over_tls_says_where_its_savings_come_from() {
    let channels = "http-cold,http,http2,http3,ws,quic";
    let (report, record) = compared(&[
        "--channels",
        channels,
        "--state",
        "full,incremental",
        "--tls",
    ]);
    let rows = rows_of(&report);
    assert_eq!(rows.len(), 13);
    for (name, row) in &rows {
        assert_eq!(row["completed"], 4, "{row}");
        let connections = counter(row, "connections_opened");
        let encrypted = name != "direct/full";
        let made = counter(row, "handshakes_made");
        assert_eq!(made, connections.filter(|_| encrypted), "{name}");
        let resumed = counter(row, "handshakes_resumed");
        assert_eq!(
            resumed,
            encrypted.then_some(0.0),
            "{name}: every handshake is a full one"
        );
        for way in ["sent", "received"] {
            let wire = counter(row, &format!("wire_bytes_{way}_per_token"));
            let channel = counter(row, &format!("channel_bytes_{way}_per_token"));
            match encrypted {
                true => assert!(wire > channel, "{name}: {wire:?} {channel:?}"),
                false => assert_eq!(wire, channel, "{name}"),
            }
        }
    }
    let conditions = &report["conditions"];
    assert_eq!(conditions["tls"], true);
    assert_eq!(conditions["certificate"], "self-signed");
    assert_eq!(conditions["resumption"], false);
    assert_eq!(conditions["zero_rtt"], false);
    assert_eq!(conditions["state_at"], "proxy");
    assert_eq!(conditions["multiplex"], false);
    assert!(
        conditions["tcp_congestion_control"].is_string(),
        "{conditions}"
    );
    assert!(
        conditions["quic_congestion_control"].is_string(),
        "{conditions}"
    );
    assert_eq!(&record["conditions"], conditions);
    assert_eq!(record["plan"]["tls"], true);
    let savings = report["savings"].as_array().expect("savings are told");
    assert!(!savings.is_empty());
}

#[test]
fn certificates_that_are_given_are_shown_and_trusted() {
    let backend = Backend::start();
    // A backend that speaks TLS: another proxy before the same model.
    let upstream = Proxy::start(&backend.url);
    let url = format!("https://{}", upstream.listen);
    let files = ["--cert", &upstream.trust, "--key", &upstream.key];
    let there = ["--url", &url, "--upstream-trust", &upstream.trust];
    let channels = ["--channels", "http2,quic", "--state", "full", "--tls"];
    let (report, _) = compared(&[&channels[..], &files, &there].concat());
    for (name, row) in rows_of(&report) {
        assert_eq!(row["completed"], 4, "{name}");
        assert_eq!(
            counter(row, "handshakes_made"),
            Some(2.0),
            "{name}: the control's too"
        );
    }
    assert_eq!(report["conditions"]["certificate"], "given");

    let mut args = small(&[&channels[..], &files, &["--url", &url]].concat());
    args.extend(["--model", "any"]);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    args.extend(["--out", out.to_str().unwrap()]);
    let refused = run(&args);
    assert_code(&refused, 1);
    assert_tells(&refused, "trust the certificate that this server shows");
    assert!(!out.exists(), "nothing was measured, so nothing is left");
}

#[test]
fn sessions_resume_and_requests_go_out_with_the_handshake() {
    let channels = ["--channels", "http2,http3,ws,quic", "--state", "full"];
    let resumed = ["--tls", "--resumption", "on", "--no-direct"];
    let (report, _) = compared(&[&channels[..], &resumed].concat());
    for (name, row) in rows_of(&report) {
        assert!(
            counter(row, "handshakes_resumed") > Some(0.0),
            "{name}: {row}"
        );
        assert_eq!(counter(row, "early_data_accepted"), Some(0.0), "{name}");
    }
    assert_eq!(report["conditions"]["resumption"], true);

    let early = [&channels[..], &resumed, &["--zero-rtt"]].concat();
    let (report, _) = compared(&early);
    for (name, row) in rows_of(&report) {
        let sends = name.starts_with("http3") || name.starts_with("quic");
        let accepted = counter(row, "early_data_accepted");
        assert_eq!(accepted > Some(0.0), sends, "{name}: {row}");
    }
    assert_eq!(report["conditions"]["zero_rtt"], true);
}

#[test]
fn conversations_are_kept_by_the_backend_where_it_is_asked_to() {
    let (report, record) = compared(&[
        "--channels",
        "direct,http-cold,http2,ws,quic",
        "--state",
        "full,incremental",
        "--state-at",
        "upstream",
    ]);
    let rows = rows_of(&report);
    assert_eq!(names(&rows)[..2], ["direct/full", "direct/incremental"]);
    assert_eq!(rows.len(), 10);
    for (full, incremental) in rows.iter().step_by(2).zip(rows.iter().skip(1).step_by(2)) {
        assert_eq!(full.1["completed"], 4, "{}", full.0);
        assert_eq!(incremental.1["completed"], 4, "{}", incremental.0);
        let sent = |row| counter(row, "channel_bytes_sent_per_token");
        assert!(
            sent(incremental.1) < sent(full.1),
            "{}: what the other end keeps is not sent again",
            incremental.0
        );
        let read = |row| counter(row, "input_tokens_per_exchange");
        assert_eq!(read(incremental.1), read(full.1), "{}", incremental.0);
    }
    assert_eq!(record["conditions"]["state_at"], "upstream");
}

#[test]
fn sessions_share_a_connection_where_they_are_told_to() {
    let (report, _) = compared(&[
        "--channels",
        "http2,ws,quic",
        "--state",
        "full",
        "--no-direct",
        "--multiplex",
        "--concurrency",
        "3",
    ]);
    for (name, row) in rows_of(&report) {
        assert_eq!(row["completed"], 2 * 3 * 2, "{name}");
        // Two blocks.
        let connections = counter(row, "connections_opened");
        assert_eq!(connections, Some(2.0), "{name}");
    }
    assert_eq!(report["conditions"]["multiplex"], true);
}

#[test]
fn pairs_carry_plain_http_over_any_channel() {
    let channels = "http-cold,pair-http,pair-http2,pair-http3,pair-ws,pair-quic";
    let in_clear = ["--encoding", "events,compact"];
    let over_tls = ["--tls", "--state", "full"];
    for (more, tls, count) in [(&in_clear[..], false, 15), (&over_tls, true, 7)] {
        let args = [&["--channels", channels], more].concat();
        let (report, _) = compared(&args);
        let rows = rows_of(&report);
        assert_eq!(rows.len(), count);
        for (name, row) in &rows {
            assert_eq!(row["completed"], 4, "{row}");
            if name == "direct/full" {
                continue;
            }
            // The application beside the first proxy connects for each exchange, in clear.
            assert_eq!(counter(row, "connections_opened"), Some(4.0), "{name}");
            let in_clear = name.starts_with("pair-") || !tls;
            assert_eq!(
                row["counters"]["handshakes_made"].is_null(),
                in_clear,
                "{name}"
            );
            assert!(counter(row, "proxy_cpu_ns_per_token") > Some(0.0), "{name}");
        }
        assert_eq!(
            names(&rows).contains(&"pair-quic/incremental/compact"),
            !tls
        );
        check_legs(&rows, tls);
    }
}

/// A count of what went between a pair's sidecars.
fn between(row: &Value, name: &str) -> Option<f64> {
    row["leg"][name].as_f64()
}

/// What went between the sidecars stands beside what went to the first of them, and is not mixed with it.
fn check_legs(rows: &[(String, &Value)], tls: bool) {
    for (name, row) in rows {
        let Some(leg) = name.strip_prefix("pair-") else {
            assert!(row["leg"].is_null(), "{name}: {row}");
            continue;
        };
        let encrypted = tls || leg.starts_with("http3") || leg.starts_with("quic");
        for way in ["sent", "received"] {
            let wire = between(row, &format!("wire_bytes_{way}_per_token"));
            let channel = between(row, &format!("channel_bytes_{way}_per_token"));
            assert!(channel > Some(0.0), "{name}: {row}");
            match encrypted {
                true => assert!(wire > channel, "{name}: {wire:?} {channel:?}"),
                false => assert_eq!(wire, channel, "{name}"),
            }
        }
        // It is warm from before the measurement, where the application connects for each exchange.
        let opened = between(row, "connections_opened");
        assert!(opened < counter(row, "connections_opened"), "{name}: {row}");
        assert_eq!(
            row["leg"]["handshakes_made"].is_null(),
            !encrypted,
            "{name}"
        );
    }
    let row = |wanted: &str| {
        let mut found = rows.iter().filter(|(name, _)| name == wanted);
        found.next().map(|(_, row)| *row)
    };
    for transport in ["http", "http2", "http3", "ws", "quic"] {
        let full = row(&format!("pair-{transport}/full")).expect("every channel ran");
        if let Some(incremental) = row(&format!("pair-{transport}/incremental")) {
            let sent = |row| between(row, "channel_bytes_sent_per_token");
            assert!(sent(incremental) < sent(full), "{transport}: {incremental}");
        }
        let Some(compact) = row(&format!("pair-{transport}/full/compact")) else {
            continue;
        };
        for bytes in ["wire_bytes", "channel_bytes"] {
            let received = |row| between(row, &format!("{bytes}_received_per_token"));
            // An event spends more than a hundred bytes around its token, a frame sixteen at most.
            let less = received(full).zip(received(compact)).map(|(a, b)| a - b);
            assert!(less > Some(80.0), "{bytes}: {less:?}");
        }
        // The application is sent the same events either way.
        let received = |row| counter(row, "channel_bytes_received_per_token");
        let share = received(compact).zip(received(full)).map(|(a, b)| a / b);
        assert!(
            share.is_some_and(|share| (0.9..1.1).contains(&share)),
            "{share:?}"
        );
    }
}

#[test]
fn a_channels_encodings_are_compared_where_no_usual_baseline_runs() {
    let quic = ["--channels", "quic", "--state", "full"];
    let (report, record) = compared(&[&quic[..], &["--encoding", "events,compact"]].concat());
    assert_eq!(
        record["plan"]["baselines"],
        serde_json::json!(["quic/full"])
    );
    let rows = rows_of(&report);
    let (_, compact) = rows
        .iter()
        .find(|(name, _)| name == "quic/full/compact")
        .unwrap();
    let against: Vec<&Value> = compact["versus"]
        .as_array()
        .unwrap()
        .iter()
        .map(|versus| &versus["baseline"])
        .collect();
    assert!(
        against.contains(&&serde_json::json!("quic/full")),
        "{against:?}"
    );
}
