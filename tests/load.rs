//! `load` against the real model: every API, both loops.

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use support::{Backend, Proxy, assert_code, json, run, stderr, stdout, tokenlag, wait_until};

/// Runs a small load and gives its report and its manifest.
#[track_caller]
fn check_load(url: &str, out: &Path, more: &[&str]) -> (Value, Value) {
    let mut args = vec![
        "load", "--url", url, "--isl", "40", "--osl", "6", "--ui", "none",
    ];
    args.extend(["--out", out.to_str().unwrap()]);
    args.extend(more);
    let output = run(&args);
    assert!(
        matches!(output.status.code(), Some(0 | 3)),
        "{}\n{}",
        stdout(&output),
        stderr(&output)
    );
    assert!(stdout(&output).contains("ttft"), "{}", stdout(&output));
    (json(&out.join("report.json")), json(&out.join("run.json")))
}

#[test]
fn every_api_is_driven() {
    let backend = Backend::start();
    let folder = tempfile::tempdir().unwrap();
    for (api, turns) in [
        ("chat", "1"),
        ("chat", "3"),
        ("completions", "2"),
        ("responses", "2"),
    ] {
        let out = folder.path().join(format!("{api}-{turns}"));
        let more = [
            "--api",
            api,
            "--turns",
            turns,
            "--num-prompts",
            "6",
            "--concurrency",
            "2",
        ];
        let (report, record) = check_load(&backend.url, &out, &more);
        let row = &report["channels"][0];
        assert_eq!(row["completed"], 6, "{api}: {row}");
        assert_eq!(row["per_delta"], false, "{api}: {row}");
        assert_eq!(
            row["counters"]["output_tokens_per_exchange"], 6.0,
            "{api}: {row}"
        );
        // Sessions go on with the connections that others left.
        assert_eq!(row["counters"]["connections_opened"], 2.0, "{api}: {row}");
        assert_eq!(record["plan"]["model"], "tokenlag-tiny", "{api}");
    }
}

#[test]
fn later_turns_carry_the_conversation() {
    let backend = Backend::start();
    let folder = tempfile::tempdir().unwrap();
    for api in ["chat", "completions", "responses"] {
        let out = folder.path().join(api);
        check_load(
            &backend.url,
            &out,
            &["--api", api, "--turns", "3", "--num-prompts", "3"],
        );
        let lines = fs::read_to_string(out.join("exchanges.jsonl")).unwrap();
        let inputs: Vec<u64> = lines
            .lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["usage"]["input"]
                    .as_u64()
                    .unwrap()
            })
            .collect();
        // Each turn brings at least the six tokens of the reply before.
        assert!(
            inputs.windows(2).all(|pair| pair[1] >= pair[0] + 6),
            "{api}: {inputs:?}"
        );
    }
}

#[test]
fn every_channel_of_a_proxy_is_loaded_at_one_address() {
    let backend = Backend::start();
    let proxy = Proxy::start(&backend.url);
    let folder = tempfile::tempdir().unwrap();
    let encrypted = format!("https://{}", proxy.listen);
    let clear = format!("http://{}", proxy.listen);
    for (channel, url, state) in [
        ("http-cold", &encrypted, "full"),
        ("http", &encrypted, "incremental"),
        ("http2", &clear, "incremental"),
        ("http2", &encrypted, "incremental"),
        ("ws", &encrypted, "full"),
        ("http3", &clear, "incremental"),
        ("quic", &encrypted, "incremental"),
    ] {
        let scheme = url.split(':').next().unwrap();
        let out = folder.path().join(format!("{channel}-{scheme}"));
        let mut more = vec!["--api", "responses", "--turns", "2", "--num-prompts", "4"];
        more.extend(["--channel", channel, "--state", state]);
        let is_encrypted = url == &encrypted || channel == "http3";
        if is_encrypted {
            more.extend(["--trust", &proxy.trust, "--resumption", "on"]);
        }
        let (report, record) = check_load(url, &out, &more);
        let row = &report["channels"][0];
        assert_eq!(
            (&row["channel"], &row["state"]),
            (&channel.into(), &state.into())
        );
        assert_eq!(row["completed"], 4, "{channel}: {row}");
        assert_eq!(
            row["counters"]["handshakes_made"].is_null(),
            !is_encrypted,
            "{row}"
        );
        let conditions = &record["conditions"];
        assert_eq!(conditions["tls"], url == &encrypted);
        assert!(
            conditions["multiplex"].is_null(),
            "sessions go on with each other's"
        );
    }
}

#[test]
fn an_open_loop_is_anchored_at_its_schedule() {
    let backend = Backend::start();
    let folder = tempfile::tempdir().unwrap();
    for (pattern, number) in [("constant", "8"), ("poisson", "8"), ("gamma", "8")] {
        let out = folder.path().join(pattern);
        let more = [
            "--request-rate",
            "40",
            "--arrival-pattern",
            pattern,
            "--num-prompts",
            number,
        ];
        let (report, _) = check_load(&backend.url, &out, &more);
        assert_eq!(report["open_loop"], true);
        assert_eq!(report["channels"][0]["completed"], 8, "{pattern}: {report}");
        assert_eq!(
            report["calibration"]["dispatch_lag"]["count"], 8,
            "{pattern}: {report}"
        );
    }
    let out = folder.path().join("duration");
    let more = [
        "--request-rate",
        "20",
        "--arrival-pattern",
        "constant",
        "--duration",
        "1s",
    ];
    let (report, _) = check_load(&backend.url, &out, &more);
    assert_eq!(report["channels"][0]["completed"], 20, "{report}");
}

#[test]
fn a_report_says_who_stamped_and_how_long_it_lay_there_where_the_kernel_did() {
    let backend = Backend::start();
    let folder = tempfile::tempdir().unwrap();
    let of = |stamp: &str| {
        let out = folder.path().join(stamp);
        let more = ["--num-prompts", "6", "--stamp", stamp];
        let (report, record) = check_load(&backend.url, &out, &more);
        assert_eq!(report["conditions"]["stamp"], stamp, "{report}");
        assert_eq!(record["conditions"]["stamp"], stamp, "{record}");
        let shown = run(&["report", "show", out.to_str().unwrap()]);
        (report, stdout(&shown))
    };
    let (kernel, shown) = of("kernel");
    assert!(
        shown.contains("stamped by the kernel at receipt"),
        "{shown}"
    );
    let row = &kernel["channels"][0];
    let wakeup = &row["metrics"]["wakeup"];
    let stamped = wakeup["count"].as_u64().expect("reads were stamped") as f64;
    assert_eq!(row["counters"]["kernel_stamps"], stamped, "{row}");
    let missing = row["counters"]["kernel_stamps_missing"].as_f64();
    // Each reply is read at least once, whoever stamps it.
    assert!(missing.is_some_and(|it| stamped + it >= 6.0), "{row}");
    assert!(wakeup["min"].as_i64() >= Some(0), "{wakeup}");
    assert!(wakeup["max"].as_i64() > Some(0), "{wakeup}");

    let (user, shown) = of("user");
    assert!(shown.contains("stamped as reads return"), "{shown}");
    let row = &user["channels"][0];
    assert_eq!(row["metrics"]["ttft"]["count"], 6, "{row}");
    assert_eq!(row["metrics"].get("wakeup"), None, "{row}");
    assert_eq!(row["counters"].get("kernel_stamps"), None, "{row}");
}

#[test]
fn a_load_that_is_killed_reads_back_to_its_last_checkpoint() {
    let backend = Backend::start();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let mut child = tokenlag(&["load", "--url", &backend.url, "--ui", "none"])
        .args(["--isl", "40", "--osl", "6", "--duration", "5m", "--out"])
        .arg(&out)
        .spawn()
        .unwrap();
    let completed = || {
        let record = fs::read(out.join("run.json")).unwrap_or_default();
        let record: Value = serde_json::from_slice(&record).unwrap_or_default();
        record["cells"][0]["tallies"]["completed"].as_u64()
    };
    let mut first = None;
    // Two checkpoints: the second replaces what the first one knew.
    wait_until("there are two checkpoints", Duration::from_secs(30), || {
        first = first.or_else(completed);
        completed() > first
    });
    child.kill().unwrap();
    child.wait().unwrap();

    let completed = completed().unwrap();
    let lines = fs::read_to_string(out.join("exchanges.jsonl")).unwrap();
    assert!(lines.lines().count() as u64 >= completed);
    let shown = run(&["report", "show", out.to_str().unwrap(), "--output", "json"]);
    assert_code(&shown, 0);
    let report: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let row = &report["channels"][0];
    assert_eq!(row["completed"], completed);
    assert_eq!(row["metrics"]["ttft"]["count"], completed, "{row}");
}
