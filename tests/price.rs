//! The price of a token as `compare` tells it: CPU time, system calls and context switches of both ends, beside the bytes.

mod support;

use serde_json::Value;
use support::{compared, counter, rows_of};

/// Counters of every row that a price list is of; `None` on the control, which has no proxy.
const PRICES: [(&str, bool); 18] = [
    ("client_cpu_ns_per_token", false),
    ("client_cpu_user_ns_per_token", false),
    ("client_cpu_system_ns_per_token", false),
    ("client_context_switches_per_token", false),
    ("client_involuntary_switches_per_token", false),
    ("packets_sent_per_token", false),
    ("packets_received_per_token", false),
    ("packets_retransmitted", false),
    ("proxy_cpu_ns_per_token", true),
    ("proxy_reads_per_token", true),
    ("proxy_writes_per_token", true),
    ("proxy_packets_sent_per_token", true),
    ("proxy_packets_received_per_token", true),
    ("proxy_packets_lost", true),
    ("proxy_cpu_user_ns_per_token", true),
    ("proxy_cpu_system_ns_per_token", true),
    ("proxy_context_switches_per_token", true),
    ("proxy_involuntary_switches_per_token", true),
];

/// Allocations are known where counting them was built in, and nowhere else.
fn check_allocations(name: &str, row: &Value) {
    let counted = cfg!(feature = "count-allocations");
    for (end, is_there) in [("client", true), ("proxy", !name.starts_with("direct"))] {
        let count = counter(row, &format!("{end}_allocations_per_token"));
        assert_eq!(count.is_some(), counted && is_there, "{name} {end}: {row}");
        // Every exchange makes some at either end, and nothing makes thousands for a token.
        assert!(
            count.is_none_or(|count| count > 0.0 && count < 1_000.0),
            "{name} {end}: {count:?}"
        );
    }
}

fn check_modes(row: &Value, end: &str) {
    let count = |name: &str| counter(row, &format!("{end}_cpu_{name}ns_per_token"));
    let (all, user, system) = (count(""), count("user_"), count("system_"));
    let (all, user, system) = (all.unwrap(), user.unwrap(), system.unwrap());
    assert!(all > 0.0 && user >= 0.0 && system >= 0.0, "{row}");
    // A cell whose modes the kernel cannot tell has CPU time all the same.
    assert!(user + system <= all * (1.0 + 1e-9), "{row}");
}

/// What the sockets of each end did below their bytes.
fn check_sockets(name: &str, row: &Value) {
    let (direct, quic) = (name.starts_with("direct"), name.starts_with("quic"));
    let ends = row["sockets"].as_object().unwrap();
    let names: Vec<&str> = ends.keys().map(String::as_str).collect();
    let expected = match direct {
        true => vec!["client"],
        false => vec!["client", "door", "upstream"],
    };
    assert_eq!(names, expected, "{row}");
    for (end, counts) in ends {
        for count in ["reads", "writes", "packets_sent", "packets_received"] {
            let share = counts[format!("{count}_per_token")].as_f64();
            assert!(
                share.is_some_and(|share| share > 0.0),
                "{name} {end} {count}: {counts}"
            );
        }
        // What one end receives the other has sent, and on one host nothing is lost on the way but for want of room.
        let window = counts["congestion_window_bytes"]["max"].as_u64();
        assert!(
            window.is_some_and(|bytes| bytes > 1_200),
            "{name} {end}: {counts}"
        );
        let over_tcp = !(quic && end != "upstream");
        let sampled = counts["queued_bytes"]["samples"].as_u64();
        assert_eq!(
            sampled.is_some_and(|samples| samples > 0),
            over_tcp,
            "{name} {end}: {counts}"
        );
    }
    if direct {
        return;
    }
    let of = |end: &str, count: &str| ends[end][count].as_f64().unwrap();
    if !name.starts_with("pair") {
        // Every token leaves by a write of its own, or with others in fewer packets than both ends saw between them.
        let (sent, received) = ("packets_sent_per_token", "packets_received_per_token");
        let apart = (of("door", sent) - of("client", received)).abs();
        assert!(apart <= 0.2 * of("door", sent), "{name}: {ends:?}");
    }
    let calls = of("door", "reads_per_token") + of("upstream", "reads_per_token");
    let counted = counter(row, "proxy_reads_per_token").unwrap();
    assert!(
        (calls - counted).abs() < 1e-9 * counted,
        "{name}: {calls} {counted}"
    );
}

#[test]
fn every_row_has_its_price_and_its_ratio_to_the_baselines() {
    let (report, record) = compared(&["--channels", "http,ws,quic,pair-ws", "--state", "full"]);
    for (name, row) in rows_of(&report) {
        let direct = name == "direct/full";
        for (price, of_proxy) in PRICES {
            let known = counter(row, price).is_some();
            assert_eq!(known, !(of_proxy && direct), "{name} {price}");
        }
        check_modes(row, "client");
        if !direct {
            check_modes(row, "proxy");
        }
        for price in ["reads_per_token", "writes_per_token"] {
            assert!(counter(row, price).unwrap() > 0.0, "{name} {price}");
        }
        let quic = name.starts_with("quic");
        check_sockets(&name, row);
        check_allocations(&name, row);
        let window = counter(row, "congestion_window");
        assert_eq!(window.is_some_and(|bytes| bytes > 1_200.0), quic, "{name}");
        let changes = row["price_versus"].as_array();
        if name == "http/full" {
            assert!(changes.is_none(), "{row}");
            continue;
        }
        let changes = changes.unwrap();
        let cpu = changes.iter().find(|change| {
            change["counter"] == "client_cpu_ns_per_token" && change["baseline"] == "http/full"
        });
        let cpu = cpu.unwrap();
        assert_eq!(cpu["blocks"], 2, "{cpu}");
        let end = |name: &str| cpu[name].as_f64().unwrap();
        assert!(end("low") <= end("change") && end("change") <= end("high"));
        let of_proxy = changes
            .iter()
            .any(|it| it["counter"] == "proxy_cpu_ns_per_token");
        assert_eq!(of_proxy, !direct, "{row}");
    }
    for cell in record["cells"].as_array().unwrap() {
        let counters = &cell["counters"];
        let count = |name: &str| counters[name].as_u64().unwrap();
        if let Some(user) = counters["client_cpu_user_ns"].as_u64() {
            let sum = user + count("client_cpu_system_ns");
            assert_eq!(sum, count("client_cpu_ns"), "{cell}");
        }
        assert!(count("client_involuntary_switches") <= count("client_context_switches"));
    }
}

/// The parts of the lateness as the manifest adds them up, next to the same of every delta's own stamps, to the nanosecond.
fn check_parts(out: &std::path::Path, by_kernel: bool) {
    let record = support::json(&out.join("run.json"));
    let mut recorded = std::collections::BTreeMap::<String, [i64; 7]>::new();
    for cell in record["cells"].as_array().unwrap() {
        let sums = &cell["tallies"]["lateness"];
        let name = format!("{}/{}", cell["row"]["channel"], cell["row"]["state"]).replace('"', "");
        let parts = recorded.entry(name).or_default();
        let names = [
            "deltas",
            "proxy_ns",
            "sidecar_ns",
            "way_ns",
            "wakeup_ns",
            "poll_ns",
            "decode_ns",
        ];
        for (sum, name) in parts.iter_mut().zip(names) {
            *sum += sums[name].as_i64().unwrap_or(0);
        }
    }
    let mut stamped = std::collections::BTreeMap::<String, [i64; 7]>::new();
    let mut overheads = std::collections::BTreeMap::<String, i64>::new();
    for line in std::fs::read_to_string(out.join("exchanges.jsonl"))
        .unwrap()
        .lines()
    {
        let line: Value = serde_json::from_str(line).unwrap();
        let name = line["row"].as_str().unwrap().to_owned();
        let parts = stamped.entry(name.clone()).or_default();
        for token in line["tokens"].as_array().unwrap().iter().skip(1) {
            let stamp = |name: &str| token[name].as_i64();
            let (Some(up), Some(out), Some(at)) = (stamp("up"), stamp("out"), stamp("at")) else {
                continue;
            };
            let span = |name: &str| stamp(name).unwrap();
            let (wakeup, poll, decode) = (span("wakeup"), span("poll"), span("decode"));
            let beside = stamp("sidecar");
            assert_eq!(beside.is_some(), name.starts_with("pair"), "{token}");
            let beside = beside.unwrap_or(0);
            let way = at - out - beside;
            for (sum, part) in
                parts
                    .iter_mut()
                    .zip([1, out - up, beside, way, wakeup, poll, decode])
            {
                *sum += part;
            }
            *overheads.entry(name.clone()).or_default() += at - up;
        }
    }
    assert_eq!(recorded, stamped);
    let report = support::json(&out.join("report.json"));
    for (name, row) in rows_of(&report) {
        let shown = &row["token_lateness"];
        if name == "direct/full" {
            assert!(shown.is_null(), "{row}");
            continue;
        }
        let [deltas, proxy, beside, way, wakeup, poll, decode] = stamped[&name];
        assert!(deltas > 0 && poll > 0 && decode > 0, "{name}");
        assert_eq!(proxy + beside + way, overheads[&name], "{name}");
        let is_pair = name.starts_with("pair");
        assert_eq!(shown["sidecar_ns"].is_null(), !is_pair, "{name}");
        assert_eq!(beside > 0, is_pair, "{name}");
        assert_eq!(shown["deltas"].as_i64(), Some(deltas));
        assert_eq!(
            row["metrics"]["token_overhead"]["count"].as_i64(),
            Some(deltas)
        );
        let whole = (proxy + beside + way + wakeup + poll + decode) as f64 / deltas as f64;
        assert_eq!(shown["mean_ns"].as_f64(), Some(whole), "{name}");
        assert_eq!(shown["wakeup_ns"].is_null(), !by_kernel, "{name}");
        assert_eq!(wakeup > 0, by_kernel, "{name}");
        assert_eq!(shown["merged"].is_null(), by_kernel, "{name}");
    }
}

fn split_of_lateness(stamp: &str) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let mut args = support::small(&["--keep-tokens", "--channels", "http,http2,ws,quic,pair-ws"]);
    args.extend(["--state", "full", "--legs", "--stamp", stamp]);
    args.extend(["--out", out.to_str().unwrap()]);
    let output = support::run(&args);
    support::assert_code(&output, 0);
    check_parts(&out, stamp == "kernel");
    let tables = support::stdout(&output);
    assert!(
        tables.contains("Where the time of a later token goes"),
        "{tables}"
    );
    assert!(tables.contains("The price of an output token"), "{tables}");
    assert_eq!(
        tables.contains("wakeup: within kernel, link"),
        stamp == "user"
    );
}

#[test]
fn the_parts_of_a_tokens_lateness_add_up_under_the_reads_own_stamps() {
    split_of_lateness("user");
}

#[test]
fn the_parts_of_a_tokens_lateness_add_up_under_the_kernels_stamps() {
    split_of_lateness("kernel");
}
