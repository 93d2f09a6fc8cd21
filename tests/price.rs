//! The price of a token as `compare` tells it: CPU time, system calls and context switches of both ends, beside the bytes.

mod support;

use serde_json::Value;
use support::{compared, counter, rows_of};

/// Counters of every row that a price list is of; `None` on the control, which has no proxy.
const PRICES: [(&str, bool); 10] = [
    ("client_cpu_ns_per_token", false),
    ("client_cpu_user_ns_per_token", false),
    ("client_cpu_system_ns_per_token", false),
    ("client_context_switches_per_token", false),
    ("client_involuntary_switches_per_token", false),
    ("proxy_cpu_ns_per_token", true),
    ("proxy_cpu_user_ns_per_token", true),
    ("proxy_cpu_system_ns_per_token", true),
    ("proxy_context_switches_per_token", true),
    ("proxy_involuntary_switches_per_token", true),
];

fn check_modes(row: &Value, end: &str) {
    let count = |name: &str| counter(row, &format!("{end}_cpu_{name}ns_per_token"));
    let (all, user, system) = (count(""), count("user_"), count("system_"));
    let (all, user, system) = (all.unwrap(), user.unwrap(), system.unwrap());
    assert!(all > 0.0 && user >= 0.0 && system >= 0.0, "{row}");
    // A cell whose modes the kernel cannot tell has CPU time all the same.
    assert!(user + system <= all * (1.0 + 1e-9), "{row}");
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
