//! What a sweep finds: a folder for each combination, one report of all, and a link that varies.

use std::fs;

use serde_json::Value;

use crate::support::{assert_code, assert_tells, json, not_checked, run, stderr, stdout};
use crate::{PLAN, planned};

#[test]
fn every_combination_has_a_folder_and_all_have_one_report() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, out) = planned(folder.path(), PLAN);
    let place = out.to_str().unwrap();
    let output = run(&[
        "compare", "--plan", &plan, "--out", place, "--output", "json",
    ]);
    assert_code(&output, 0);
    let printed: Value =
        serde_json::from_slice(&output.stdout).expect("standard output is the index alone");
    let index = json(&out.join("sweep.json"));
    assert_eq!(printed, index);
    assert_eq!(index["schema"], "tokenlag.sweep/1");
    assert!(index["ended_at"].is_string(), "{index}");
    let cases = index["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for (case, (osl, tls)) in cases
        .iter()
        .zip([(3, "off"), (3, "on"), (6, "off"), (6, "on")])
    {
        assert_eq!(case["exit"], 0, "{case}");
        let values = serde_json::json!({"osl": osl.to_string(), "tls": tls});
        assert_eq!(case["values"], values);
        let run = out.join(case["folder"].as_str().unwrap());
        let report = json(&run.join("report.json"));
        assert_eq!(report["conditions"]["tls"], tls == "on", "{case}");
        assert_eq!(report["plan"]["workload"]["output"], osl);
        // It can be run again alone.
        let words = report["command_line"].to_string();
        assert!(
            words.contains("--case=") && !words.contains("die-with-parent"),
            "{words}"
        );
        check_floor(&report, &case["found"]);
    }

    let shown = run(&["report", "show", place]);
    assert_code(&shown, 0);
    let shown = stdout(&shown);
    assert!(shown.contains("The sweep's 4 comparisons"), "{shown}");
    assert!(shown.contains("3/off") && shown.contains("6/on"), "{shown}");

    let legs = run(&["report", "show", "--legs", place]);
    assert_code(&legs, 2);
    assert_tells(&legs, "01-osl-3-tls-off");
    let baseline = run(&["report", "show", "--baseline", "http/full", place]);
    assert_code(&baseline, 2);
    assert_tells(&baseline, "--baseline is of one comparison");

    let again = run(&["compare", "--plan", &plan, "--out", place]);
    assert_code(&again, 2);
    assert_tells(&again, "already holds a run");

    let newer = index.to_string().replace("sweep/1", "sweep/2");
    fs::write(out.join("sweep.json"), newer).unwrap();
    let unknown = run(&["report", "show", place]);
    assert_code(&unknown, 1);
    assert_tells(&unknown, "its schema is 'tokenlag.sweep/2'");
}

/// What physics leaves was measured once, stands beside the overheads, and is what the net figures are less by.
#[track_caller]
fn check_floor(report: &Value, found: &Value) {
    let floor = &report["floor"];
    assert_eq!(floor["source"], "connect", "{floor}");
    let round_trip = floor["round_trip_ns"].as_i64().unwrap();
    assert!(round_trip > 0);
    assert_eq!(&found["floor"], floor);
    let rows = report["channels"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for (row, short) in rows.iter().zip(found["channels"].as_array().unwrap()) {
        let whole = row["metrics"]["roundtrip_overhead"]["p50"]
            .as_i64()
            .unwrap();
        let net = row["net_of_floor"]["roundtrip_overhead"]["p50"].as_i64();
        assert_eq!(net, Some(whole - round_trip));
        assert_eq!(short["p50_ns"]["roundtrip_overhead"], whole);
        assert_eq!(short["net_p50_ns"]["roundtrip_overhead"].as_i64(), net);
        assert_eq!(
            row["net_of_floor"]["setup"]["p50"],
            row["metrics"]["setup"]["p50"]
        );
    }
}

#[test]
fn links_may_vary() {
    let folder = tempfile::tempdir().unwrap();
    let links = "link = [\"rtt=2ms\", \"rtt=5ms\"]\nosl = [3]\n";
    let text = PLAN.replace("tls = [false, true]\nosl = [3, 6]\n", links);
    let (plan, out) = planned(folder.path(), &text);
    let output = run(&["compare", "--plan", &plan, "--out", out.to_str().unwrap()]);
    let index = json(&out.join("sweep.json"));
    let cases = index["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 2);
    if stderr(&output).contains("needs CAP_SYS_ADMIN and CAP_NET_ADMIN") {
        assert_code(&output, 1);
        assert!(cases.iter().all(|case| case["exit"] == 1), "{index}");
        not_checked("this process may make no links");
        return;
    }
    assert_code(&output, 0);
    for (case, (link, round_trip)) in cases
        .iter()
        .zip([("rtt=2ms", 2_000_000), ("rtt=5ms", 5_000_000)])
    {
        assert_eq!(case["values"]["link"], link);
        let found = &case["found"];
        assert_eq!(found["floor"]["source"], "link", "{case}");
        assert_eq!(found["floor"]["round_trip_ns"], round_trip);
        // It was the link that was measured, and not only its settings that were noted.
        for row in found["channels"].as_array().unwrap() {
            let overhead = row["p50_ns"]["roundtrip_overhead"].as_i64().unwrap();
            assert!(overhead >= round_trip, "{row}");
        }
    }
    let text = stdout(&output);
    assert!(
        text.contains("rtt=2ms/3") && text.contains("rtt=5ms/3"),
        "{text}"
    );
    assert!(text.contains("(floor)"), "{text}");
    assert!(
        text.contains("per-token overhead beyond the floor"),
        "{text}"
    );
}
