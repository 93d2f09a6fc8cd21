//! The price of a token as `compare` tells it: CPU time, system calls and context switches of both ends, beside the bytes.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

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

/// A row's lateness: parts by name, and what they must add up to.
#[derive(Debug, Default, PartialEq)]
struct Lateness {
    /// Deltas, then the sums of the parts, in the order of [`PARTS`].
    parts: [i64; 7],
    /// From each delta's arrival at the proxy to the end of its decoding, by those two stamps alone.
    whole: i64,
    /// From each delta's arrival at the proxy to its stamp at the load generator.
    overhead: i64,
}

const PARTS: [&str; 7] = [
    "deltas",
    "proxy_ns",
    "sidecar_ns",
    "way_ns",
    "wakeup_ns",
    "poll_ns",
    "decode_ns",
];

/// What the manifest has of each row.
fn booked(record: &Value) -> BTreeMap<String, [i64; 7]> {
    let mut booked = BTreeMap::<String, [i64; 7]>::new();
    for cell in record["cells"].as_array().unwrap() {
        let sums = &cell["tallies"]["lateness"];
        let part = |name: &str| cell["row"][name].as_str().unwrap();
        let name = format!("{}/{}", part("channel"), part("state"));
        let parts = booked.entry(name).or_default();
        for (sum, name) in parts.iter_mut().zip(PARTS) {
            *sum += sums[name].as_i64().unwrap_or(0);
        }
    }
    booked
}

/// What the stamps of every delta say. Each delta's parts add up to what lies between its first stamp and its last, and none of the
/// load generator's own is below zero.
fn stamped(lines: &str) -> BTreeMap<String, Lateness> {
    let mut stamped = BTreeMap::<String, Lateness>::new();
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let name = line["row"].as_str().unwrap();
        let row = stamped.entry(name.to_owned()).or_default();
        for token in line["tokens"].as_array().unwrap().iter().skip(1) {
            let stamp = |name: &str| token[name].as_i64();
            let (Some(up), Some(out)) = (stamp("up"), stamp("out")) else {
                assert_eq!(name, "direct/full", "{token}");
                continue;
            };
            let span = |name: &str| stamp(name).unwrap();
            let (at, decoded) = (span("at"), span("decoded"));
            let beside = stamp("sidecar");
            assert_eq!(beside.is_some(), name.starts_with("pair"), "{token}");
            let beside = beside.unwrap_or(0);
            let parts = [
                out - up,
                beside,
                at - out - beside,
                span("wakeup"),
                span("poll"),
                span("decode"),
            ];
            assert_eq!(parts.iter().sum::<i64>(), decoded - up, "{name}: {token}");
            assert!(parts[3..].iter().all(|&nanos| nanos >= 0), "{token}");
            row.parts[0] += 1;
            for (sum, part) in row.parts[1..].iter_mut().zip(parts) {
                *sum += part;
            }
            row.whole += decoded - up;
            row.overhead += at - up;
        }
    }
    stamped
}

/// The parts of the lateness as the manifest adds them up, next to the same of every delta's own stamps, to the nanosecond; and the
/// report's means next to the distribution of `token_overhead`, whose values were booked elsewhere.
fn check_parts(out: &Path, by_kernel: bool) {
    let lines = fs::read_to_string(out.join("exchanges.jsonl")).unwrap();
    let stamped = stamped(&lines);
    let sums = stamped.iter().map(|(name, row)| (name.clone(), row.parts));
    assert_eq!(
        booked(&support::json(&out.join("run.json"))),
        sums.collect()
    );
    let report = support::json(&out.join("report.json"));
    for (name, row) in rows_of(&report) {
        let shown = &row["token_lateness"];
        if name == "direct/full" {
            assert!(shown.is_null(), "{row}");
            continue;
        }
        let Lateness {
            parts: [deltas, _, beside, _, wakeup, poll, decode],
            whole,
            overhead,
        } = stamped[&name];
        assert!(deltas > 0 && poll > 0 && decode > 0, "{name}");
        let is_pair = name.starts_with("pair");
        assert_eq!(shown["sidecar_ns"].is_null(), !is_pair, "{name}");
        assert_eq!(beside > 0, is_pair, "{name}");
        assert_eq!(shown["deltas"].as_i64(), Some(deltas));
        let mean = |nanos: i64| nanos as f64 / deltas as f64;
        assert_eq!(shown["mean_ns"].as_f64(), Some(mean(whole)), "{name}");
        let part = |name: &str| shown[name].as_f64().unwrap_or(0.0);
        let before = part("proxy_ns") + part("sidecar_ns") + part("kernel_and_link_ns");
        let distribution = &row["metrics"]["token_overhead"];
        assert_eq!(distribution["count"].as_i64(), Some(deltas));
        // The histogram keeps three digits of each value.
        let of_histogram = distribution["mean"].as_f64().unwrap();
        let apart = (before - of_histogram).abs();
        assert!(apart <= 1e-3 * of_histogram, "{name}: {row}");
        assert!((before - mean(overhead)).abs() < 0.01, "{name}: {row}");
        assert_eq!(shown["wakeup_ns"].is_null(), !by_kernel, "{name}");
        assert_eq!(wakeup > 0, by_kernel, "{name}");
        assert_eq!(shown["merged"].is_null(), by_kernel, "{name}");
    }
}

/// The table of what was waited for: a line of each row's, and one of the proxy's where there is one, with the figures of the report.
fn check_waiting(tables: &str, report: &Value) {
    let (_, table) = tables.split_once("Waiting: ").expect("it stands there");
    // Where the terminal is narrow the other columns are in a table of their own.
    let (table, _) = table.split_once("\n\n").expect("it is not the last");
    let rows = rows_of(report);
    for (name, row) in &rows {
        let line = table.lines().find(|line| line.starts_with(&**name));
        let line = line.unwrap_or_else(|| panic!("{name}: {table}"));
        let cores = line.split_whitespace().nth(1).unwrap();
        let known = counter(row, "client_run_queue_delay_ns").is_some();
        assert_eq!(cores != "-", known, "{line}");
    }
    let of_proxies = table.lines().filter(|line| line.starts_with("  proxy "));
    let to_clients = of_proxies.filter(|line| !line.contains("to upstream"));
    let with_proxy = rows.iter().filter(|(name, _)| name != "direct/full");
    assert_eq!(to_clients.count(), with_proxy.count(), "{table}");
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
    check_waiting(&tables, &support::json(&out.join("report.json")));
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
