//! Effects that people argue about: each has a plan that is read. Nagle's algorithm, the switch that is none of a link's and none
//! of TLS's, is refused where the ends differ in it, and stands in the report. (That it comes to the sockets of both ends is tested
//! beside them, in `channel/src/accept.rs`.)

mod support;

use std::fs;
use std::path::Path;

use support::{Backend, Proxy, assert_code, assert_tells, compared, rows_of, run, small, stdout};

/// Each plan, and its comparisons.
const PLANS: [(&str, u32); 9] = [
    ("nagle", 2),
    ("idle-restart", 4),
    ("congestion", 4),
    ("cubic", 4),
    ("initial-window", 4),
    ("resumption", 4),
    ("zero-rtt", 4),
    ("head-of-line", 2),
    ("head-of-line-slow", 2),
];

#[test]
fn each_effect_has_a_plan_and_a_paragraph() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/effects.md")).unwrap();
    let folder = root.join("plans/effects");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), PLANS.len());
    for (name, count) in PLANS {
        let plan = folder.join(format!("{name}.toml"));
        let plan = plan.to_str().unwrap();
        let beyond = run(&["compare", "--plan", plan, "--case", "100"]);
        assert_code(&beyond, 2);
        assert_tells(&beyond, &format!("has {count} comparisons"));
        // All values are read, and each case's flags put together, before this is found.
        let refused = run(&[
            "compare",
            "--plan",
            plan,
            "--proxy-quic",
            "http://127.0.0.1:9",
        ]);
        assert_code(&refused, 2);
        assert_tells(&refused, "--proxy <ADDR>");
        assert!(
            page.contains(&format!("plans/effects/{name}.toml")),
            "{name}"
        );
    }
}

#[test]
fn nagle_is_a_condition_of_a_run_and_of_a_sweep() {
    let backend = Backend::start();
    let flags = [
        "--url",
        &backend.url,
        "--channels",
        "http,pair-ws",
        "--no-direct",
    ];
    for (more, expected) in [(None, false), (Some(["--nagle", "on"]), true)] {
        let more = more.iter().flatten().copied();
        let args: Vec<&str> = flags.into_iter().chain(more).collect();
        let (report, record) = compared(&args);
        assert_eq!(report["conditions"]["nagle"], expected);
        assert_eq!(record["plan"]["nagle"], expected);
        assert_eq!(rows_of(&report).len(), 4);
    }
    // Where nothing goes over TCP there is nothing to say.
    let quic = ["--url", &backend.url, "--channels", "quic", "--no-direct"];
    let (report, _) = compared(&quic);
    assert!(report["conditions"]["nagle"].is_null());

    let folder = tempfile::tempdir().unwrap();
    let plan = folder.path().join("plan.toml");
    let text = "channels = [\"http\"]\nno-direct = true\n[sweep]\nnagle = [\"off\", \"on\"]\n";
    fs::write(&plan, text).unwrap();
    let out = folder.path().join("out");
    let (plan, out) = (plan.to_str().unwrap(), out.to_str().unwrap());
    let args = small(&["--url", &backend.url, "--plan", plan, "--out", out]);
    let output = run(&args);
    assert_code(&output, 0);
    let text = stdout(&output);
    for told in ["Nagle off", "Nagle on", "case 2 of 2: nagle on"] {
        assert!(text.contains(told), "{told}: {text}");
    }
}

#[test]
fn a_running_proxy_must_have_it_at_its_door_as_well() {
    let backend = Backend::start();
    let proxy = Proxy::start_with(&backend.url, &["--nagle", "on"]);
    let there = [
        "--proxy",
        &proxy.listen,
        "--proxy-admin",
        &proxy.admin,
        "--channels",
        "http",
    ];
    let refused = run(&small(&there));
    assert_code(&refused, 2);
    assert_tells(&refused, "has Nagle's algorithm on, the load generator off");
    let (report, _) = compared(&[there.as_slice(), &["--nagle", "on"]].concat());
    assert_eq!(report["conditions"]["nagle"], true);
}
