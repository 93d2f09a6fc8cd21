//! Runs over a link: `compare`, `load` and `profile` go over it, say so, and say what it did.

use serde_json::Value;

use crate::support::{Backend, assert_code, compared, json, rows_of, run, stdout};
use crate::{host, may_link};

/// Fails unless the link's own account of a run has so many packets, and says what they cost.
#[track_caller]
fn assert_carried(did: &Value, fewest: u64) {
    let count = |way: &str, what: &str| did[way][what].as_u64().expect("a count");
    for way in ["up", "down"] {
        assert!(count(way, "packets") >= fewest / 2, "{did}");
        assert!(count(way, "bytes") > 40 * count(way, "packets"), "{did}");
        assert_eq!(
            (count(way, "lost"), count(way, "overflow")),
            (0, 0),
            "{did}"
        );
    }
    let [p50, p99] =
        ["release_error_p50_ns", "release_error_p99_ns"].map(|name| did[name].as_u64());
    assert!(p50.is_some() && p50 <= p99, "{did}");
    let [span, cpu, work] =
        ["span_ns", "relay_cpu_ns", "relay_work_ns"].map(|name| did[name].as_u64());
    assert!(work > Some(0) && work <= cpu && cpu < span, "{did}");
    let busiest = did["relay_busiest_share"].as_f64().expect("a share");
    assert!(busiest > 0.0 && busiest <= 1.0, "{did}");
}

#[test]
fn a_comparison_goes_over_the_link_and_says_so() {
    if !may_link() {
        return;
    }
    let before = host();
    let more = "--link up-delay=6ms,down-delay=4ms,rate=200mbit,cc=reno --channels http,quic,pair-ws --state full --baseline http/full";
    let (report, record) = compared(&more.split(' ').collect::<Vec<_>>());
    assert_eq!(host(), before);
    for (row, figures) in rows_of(&report) {
        if row.starts_with("direct") {
            // It goes over the same link, and through what carries it on to the backend.
            let least = figures["metrics"]["ttft"]["min"].as_f64().unwrap();
            assert!(least >= 10e6, "{row}: {least}");
            continue;
        }
        for (metric, floor) in [
            ("roundtrip_overhead", 10e6),
            ("first_token_overhead", 10e6),
            ("token_overhead", 4e6),
        ] {
            let least = figures["metrics"][metric]["min"].as_f64().unwrap();
            // A deep queue or a busy host adds what it likes; the link alone is the floor, and no clock is off here.
            assert!(least >= floor, "{row}.{metric}: {least}");
        }
    }
    assert_eq!(record["floor"]["round_trip_ns"], 10_000_000);
    assert_eq!(record["floor"]["downlink_ns"], 4_000_000);
    assert_eq!(record["plan"]["link"]["server_congestion_control"], "reno");
    let parameters = record["plan"]["link"]["parameters"].as_str().unwrap();
    assert!(
        parameters.contains("up-delay=6ms") && parameters.contains("mtu=1500"),
        "{parameters}"
    );
    assert_eq!(record["conditions"]["link"], parameters);
    assert_eq!(record["conditions"]["tcp_congestion_control"], "reno");
    assert_eq!(
        record["conditions"]["client_tcp_congestion_control"],
        "reno"
    );
    assert_carried(&report["link"], 300);
    assert_eq!(report["link"], record["link"]);
    // Every packet of a link without loss and with a deep queue came out, and each of them had to wait.
    let did = &report["link"];
    for way in ["up", "down"] {
        let came = did[way]["packets"].as_u64().unwrap() - did[way]["dropped"].as_u64().unwrap();
        let delivered = did[way]["delivered"].as_u64().unwrap();
        // What is on its way at the moment of asking came in and not out.
        assert!(
            (came.saturating_sub(20)..=came).contains(&delivered),
            "{did}"
        );
    }
}

#[test]
fn a_load_goes_over_the_link() {
    if !may_link() {
        return;
    }
    let backend = Backend::start();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let fixed =
        "load --link rtt=12ms --isl 40 --osl 4 --num-prompts 3 --ui none --allow-untrusted --url";
    let mut args: Vec<&str> = fixed.split(' ').collect();
    args.extend([&*backend.url, "--out", out.to_str().unwrap()]);
    assert_code(&run(&args), 0);
    let report = json(&out.join("report.json"));
    let row = &report["channels"][0];
    assert_eq!((&row["completed"], &row["failed"]), (&3.into(), &0.into()));
    let least = row["metrics"]["ttft"]["min"].as_f64().unwrap();
    assert!(least >= 12e6, "{least}");
    let named = json(&out.join("run.json"));
    assert_eq!(named["plan"]["link"]["given"], "rtt=12ms");
    assert_eq!(named["floor"]["round_trip_ns"], 12_000_000);
    assert_carried(&report["link"], 20);
    let shown = run(&["report", "show", out.to_str().unwrap()]);
    assert_code(&shown, 0);
    let text = stdout(&shown);
    assert!(
        text.contains("Link: ") && text.contains(" on both sides"),
        "{text}"
    );
}

#[test]
fn a_profile_goes_over_the_link() {
    if !may_link() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let fixed = "profile --link rtt=6ms --channels http --state full --no-direct --blocks 2 --turns 2 --isl 48 --later-isl 8 --osl 32 \
                 --ui none --allow-untrusted --out";
    let mut args: Vec<&str> = fixed.split_whitespace().collect();
    args.push(out.to_str().unwrap());
    assert_code(&run(&args), 0);
    let ends = &json(&out.join("profile.json"))["rows"][0]["ends"];
    assert_eq!(ends.as_array().map(Vec::len), Some(2));
    for end in ends.as_array().unwrap() {
        assert!(end["samples"].as_u64() > Some(0), "{end}");
    }
    let report = json(&out.join("report.json"));
    let least = report["channels"][0]["metrics"]["ttft"]["min"].as_f64();
    assert!(least >= Some(6e6), "{least:?}");
    assert_carried(&report["link"], 20);
}
