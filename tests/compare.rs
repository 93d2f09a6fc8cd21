//! `compare` end to end: the embedded model, a proxy, every channel; and what it leaves on disk and in the system.

mod support;

use std::fs;
use std::process::Stdio;

use serde_json::Value;
use support::{
    Backend, Proxy, assert_code, children_of_rig, json, rows_of, run, small, stderr, stdout,
    tokenlag,
};

/// The rows of a comparison for which nothing is said.
const ROWS: [&str; 12] = [
    "direct/full",
    "http-cold/full",
    "http/full",
    "http/incremental",
    "http2/full",
    "http2/incremental",
    "http3/full",
    "http3/incremental",
    "ws/full",
    "ws/incremental",
    "quic/full",
    "quic/incremental",
];

#[test]
fn every_row_is_measured_joined_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let mut args = small(&["--output", "json", "--out"]);
    args.push(out.to_str().unwrap());
    let child = tokenlag(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    assert_code(&output, 0);
    assert_eq!(children_of_rig(pid), [], "no child is left");

    let printed: Value =
        serde_json::from_slice(&output.stdout).expect("standard output is the report alone");
    let report = json(&out.join("report.json"));
    assert_eq!(printed, report);
    assert_eq!(report["schema"], "tokenlag.report/1");
    assert_eq!(report["command"], "compare");
    let rows = rows_of(&report);
    let names: Vec<&str> = rows.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ROWS);
    for (_, row) in rows {
        let direct = row["channel"] == "direct";
        assert_eq!(row["completed"], 4, "{row}");
        assert_eq!(row["unjoined"]["no_hop_record"], 0, "{row}");
        assert_eq!(row["metrics"]["ttft"]["count"], 4, "{row}");
        assert!(
            row["counters"]["client_cpu_ns_per_token"].as_f64().unwrap() > 0.0,
            "{row}"
        );
        assert_eq!(
            row["counters"]["proxy_cpu_ns_per_token"].is_null(),
            direct,
            "{row}"
        );
        // http-cold connects for each exchange, everybody else once a session.
        let connections = if row["channel"] == "http-cold" {
            4.0
        } else {
            2.0
        };
        assert_eq!(row["counters"]["connections_opened"], connections, "{row}");
    }
    let lines = fs::read_to_string(out.join("exchanges.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), ROWS.len() * 2 * 2);
    let record = json(&out.join("run.json"));
    assert_eq!(record["cells"].as_array().unwrap().len(), ROWS.len() * 2);
}

#[test]
fn rows_ask_for_the_same_and_get_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let mut args = small(&["--random-seed", "7", "--out"]);
    args.push(out.to_str().unwrap());
    assert_code(&run(&args), 0);
    let mut usages: std::collections::BTreeMap<String, Vec<String>> = Default::default();
    for line in fs::read_to_string(out.join("exchanges.jsonl"))
        .unwrap()
        .lines()
    {
        let line: Value = serde_json::from_str(line).unwrap();
        let place = format!("{}.{}.{}", line["block"], line["session"], line["turn"]);
        let usage = format!(
            "{} in, {} out",
            line["usage"]["input"], line["usage"]["output"]
        );
        usages.entry(place).or_default().push(usage);
    }
    assert_eq!(usages.len(), 4);
    for (place, usages) in usages {
        assert_eq!(usages.len(), ROWS.len(), "{place}");
        assert!(
            usages.iter().all(|usage| *usage == usages[0]),
            "{place}: {usages:?}"
        );
        assert!(usages[0].ends_with("6 out"), "{place}: {usages:?}");
    }
}

#[test]
fn tables_on_standard_output_and_the_folder_on_standard_error() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let out = out.to_str().unwrap();
    let mut args = small(&["--channels", "http,ws", "--out", out]);
    args.retain(|&word| word != "--allow-untrusted");
    let output = run(&args);
    // Two blocks are too few to be trusted.
    assert_code(&output, 3);
    for part in ["http/full", "ws/incremental", "few_blocks"] {
        assert!(
            stdout(&output).contains(part),
            "'{part}' is not in: {}",
            stdout(&output)
        );
    }
    assert_eq!(stderr(&output), format!("the run is in {out}\n"));

    let again = run(&["report", "show", out]);
    assert_code(&again, 0);
    assert_eq!(
        stdout(&again),
        stdout(&output),
        "the report can be made again from the folder"
    );
    let rebased = ["report", "show", out, "--baseline", "ws/full"];
    let rebased = run(&rebased);
    assert_code(&rebased, 0);
    let change = "Change of p50 against";
    assert_eq!(stdout(&rebased).matches(change).count(), 1);
    assert!(stdout(&rebased).contains(&format!("{change} ws/full")));
    let absent = run(&["report", "show", out, "--baseline", "quic/full"]);
    assert_code(&absent, 2);
    assert!(stderr(&absent).contains("has no such row; it has"));

    for (format, part) in [
        ("csv", "channel,state"),
        ("json", "tokenlag.report/1"),
        ("hgrm", "#[ws-full.ttft]"),
    ] {
        let exported = run(&["report", "export", out, "--format", format]);
        assert_code(&exported, 0);
        assert!(stdout(&exported).contains(part), "{format}");
    }

    let occupied = run(&small(&["--out", out]));
    assert_code(&occupied, 2);
    assert!(stderr(&occupied).contains("already holds a run"));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let out = out.to_str().unwrap();
    assert_code(&run(&small(&["--channels", "http", "--out", out])), 0);
    let mut child = tokenlag(&["report", "show", out])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_code(&child.wait_with_output().unwrap(), 0);
}

#[test]
fn a_plan_file_is_read_and_flags_override_it() {
    let folder = tempfile::tempdir().unwrap();
    let plan = folder.path().join("plan.toml");
    let text = "channels = [\"http\", \"ws\"]\nstate = \"full\"\nturns = 1\nosl = 4\nisl = 40\nblocks = 9\n\
                no-direct = true\nallow-untrusted = true\nkeep-tokens = true\nui = \"none\"\n";
    fs::write(&plan, text).unwrap();
    let out = folder.path().join("run");
    let output = tokenlag(&["compare", "--blocks", "2", "--plan"])
        .args([plan.as_os_str(), "--out".as_ref(), out.as_os_str()])
        .env("TOKENLAG_OSL", "5")
        .output()
        .unwrap();
    assert_code(&output, 0);
    let record = json(&out.join("run.json"));
    let plan = &record["plan"];
    assert_eq!(plan["rows"], serde_json::json!(["http/full", "ws/full"]));
    assert_eq!(plan["blocks"], 2, "flags override the file");
    assert_eq!(
        plan["workload"]["output"], 5,
        "the environment overrides the file"
    );
    assert_eq!(plan["workload"]["turns"], 1);
    let lines = fs::read_to_string(out.join("exchanges.jsonl")).unwrap();
    assert!(
        lines.lines().all(|line| line.contains("\"tokens\":[{")),
        "--keep-tokens keeps them"
    );
}

#[test]
fn thresholds_that_are_crossed_exit_99() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let args = [
        "--channels",
        "http",
        "--fail-if",
        "http/full.ttft.p50 > 1ns",
        "--out",
        out.to_str().unwrap(),
    ];
    let output = run(&small(&args));
    assert_code(&output, 99);
    assert!(
        stderr(&output).contains("threshold crossed: 'http/full.ttft.p50 > 1ns': http/full is at")
    );
}

#[test]
fn a_backend_that_is_already_there_is_used_and_secrets_are_not_kept() {
    let backend = Backend::start();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let mut args = small(&["--channels", "http", "--api-key", "sk-secret", "--url"]);
    args.extend([backend.url.as_str(), "--out", out.to_str().unwrap()]);
    args.extend(["--header", "X-Key: sk-other"]);
    assert_code(&run(&args), 0);
    for entry in fs::read_dir(&out).unwrap().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        assert!(
            !text.contains("sk-secret") && !text.contains("sk-other"),
            "{}",
            entry.path().display()
        );
    }
    let record = json(&out.join("run.json"));
    assert_eq!(
        record["plan"]["headers"],
        serde_json::json!(["authorization", "X-Key"])
    );
}

#[test]
fn a_proxy_that_is_already_there_is_used() {
    let backend = Backend::start();
    let proxy = Proxy::start(&backend.url);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let mut args = small(&["--channels", "http,http3,ws,quic,pair-ws", "--url"]);
    args.extend([backend.url.as_str(), "--out", out.to_str().unwrap()]);
    args.extend(["--proxy", &proxy.listen, "--proxy-admin", &proxy.admin]);
    args.extend(["--trust", &proxy.trust]);
    assert_code(&run(&args), 0);
    let report = json(&out.join("report.json"));
    let rows = rows_of(&report);
    assert_eq!(rows.len(), 11);
    for (name, row) in rows {
        assert_eq!(row["completed"], 4, "{row}");
        // What a proxy spends that was not started here is not known, and its half of a pair's is no whole.
        assert!(
            row["counters"]["proxy_cpu_ns_per_token"].is_null(),
            "{name}"
        );
    }
    assert_eq!(report["conditions"]["certificate"], "given");
    assert_eq!(report["conditions"]["state_at"], "proxy");

    args.retain(|&word| word != "--out" && word != out.to_str().unwrap());
    args.extend(["--state-at", "upstream"]);
    let elsewhere = run(&args);
    assert_code(&elsewhere, 2);
    assert!(
        stderr(&elsewhere).contains("keeps conversations at the proxy"),
        "{}",
        stderr(&elsewhere)
    );
}

#[test]
fn the_control_asks_the_backend_behind_a_proxy_that_is_already_there() {
    let backend = Backend::start();
    let proxy = Proxy::start(&backend.url);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let given = ["--proxy", &proxy.listen, "--proxy-admin", &proxy.admin];
    let mut args = small(&["--channels", "http", "--out"]);
    args.push(out.to_str().unwrap());
    args.extend(given);
    assert_code(&run(&args), 0);
    assert_eq!(json(&out.join("run.json"))["plan"]["url"], backend.url);
    let report = json(&out.join("report.json"));
    assert_eq!(report["channels"][0]["channel"], "direct");
    assert_eq!(report["channels"][0]["completed"], 4);
    assert!(!report["verdict"].to_string().contains("other_upstream"));

    let another = Backend::start();
    let out = folder.path().join("another");
    let mut args = small(&["--channels", "http", "--out"]);
    args.push(out.to_str().unwrap());
    args.extend(given);
    args.extend(["--url", &another.url]);
    assert_code(&run(&args), 0);
    let verdict = json(&out.join("report.json"))["verdict"].to_string();
    assert!(verdict.contains("other_upstream"), "{verdict}");

    drop(backend);
    let out = folder.path().join("refused");
    let mut args = small(&["--channels", "http", "--out", out.to_str().unwrap()]);
    args.extend(given);
    let refused = run(&args);
    assert_code(&refused, 2);
    assert!(
        stderr(&refused).contains("cannot be reached from here"),
        "{}",
        stderr(&refused)
    );
    assert!(!out.exists(), "nothing was measured, so nothing is left");
}
