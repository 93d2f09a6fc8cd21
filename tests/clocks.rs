//! Two hosts' clocks, for real: a proxy in a time namespace whose monotonic clock is 1,000 s ahead.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use support::{Backend, Proxy, assert_code, compared, run, stdout, tokenlag};

/// How far the proxy's clock is ahead, in seconds.
const AHEAD: u32 = 1_000;

/// `tokenlag proxy` with a clock of its own; killed when dropped.
struct Elsewhere {
    process: Child,
    listen: String,
    admin: String,
}

impl Elsewhere {
    /// `None` where the system gives nobody a time namespace.
    fn start(upstream: &str) -> Option<Self> {
        let ahead = AHEAD.to_string();
        let into = ["--time", "--monotonic", &ahead, "--fork", "--kill-child"];
        let allowed = Command::new("unshare").args(into).arg("true").output();
        if !allowed.is_ok_and(|output| output.status.success()) {
            return None;
        }
        let any = "127.0.0.1:0";
        let mut args = vec!["proxy", "--report-ready", "--listen", any, "--admin", any];
        args.extend(["--upstream", upstream]);
        let proxy = tokenlag(&args);
        let mut process = Command::new("unshare")
            .args(into)
            .arg(proxy.get_program())
            .args(proxy.get_args())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare was there a moment ago");
        let stdout = process.stdout.as_mut().expect("standard output is piped");
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        read.expect("the proxy speaks");
        let ready: Value = serde_json::from_str(&line).expect("one line of JSON");
        let address = |name: &str| ready[name].as_str().expect("an address").to_owned();
        Some(Self {
            listen: address("listen"),
            admin: address("admin"),
            process,
        })
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // Its child dies with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const REFUSED: &str = "no time namespace can be had here (unshare --time needs root): the injected clock of cli/clocks_tests.rs has to do";

/// A way to `target` on which everything takes `out` to get there and `back` to come back.
fn long_way(target: &str, out: Duration, back: Duration) -> SocketAddr {
    let target: SocketAddr = target.parse().expect("an address");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(target) else {
                return;
            };
            for (from, to, delay) in [(&client, &server, out), (&server, &client, back)] {
                let pair = (from.try_clone(), to.try_clone());
                let (Ok(from), Ok(to)) = pair else { return };
                thread::spawn(move || carry(from, to, delay));
            }
        }
    });
    address
}

fn carry(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let _ = to.set_nodelay(true);
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        thread::sleep(delay);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

fn row<'a>(report: &'a Value, channel: &str) -> &'a Value {
    let rows = report["channels"].as_array().expect("there are rows");
    let found = rows.iter().find(|row| row["channel"] == channel);
    found.expect("the row ran")
}

fn nanos(value: &Value) -> i64 {
    value
        .as_i64()
        .unwrap_or_else(|| panic!("no figure: {value}"))
}

const CHANNELS: [&str; 4] = ["--channels", "http,ws", "--baseline", "http/full"];

#[test]
fn a_clock_that_is_a_thousand_seconds_ahead_is_found_and_taken_out() {
    let backend = Backend::start();
    let here = Proxy::start(&backend.url);
    let mut args = CHANNELS.to_vec();
    args.extend(["--url", &backend.url]);
    let mut near = args.clone();
    near.extend(["--proxy", &here.listen, "--proxy-admin", &here.admin]);
    let (same, _) = compared(&near);
    let clocks = &same["clocks"];
    assert_eq!(clocks["relation"], "same", "{clocks}");
    let (offset, within) = (&clocks["offset_ns"], &clocks["uncertainty_ns"]);
    assert!(nanos(offset).abs() <= nanos(within), "{clocks}");
    assert!(row(&same, "http")["uncertainty_ns"].is_null());

    let Some(there) = Elsewhere::start(&backend.url) else {
        eprintln!("{REFUSED}");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let mut far = support::small(&args);
    far.extend(["--proxy", &there.listen, "--proxy-admin", &there.admin]);
    far.extend(["--out", out.to_str().unwrap()]);
    let output = run(&far);
    assert_code(&output, 0);
    let other = support::json(&out.join("report.json"));
    let clocks = &other["clocks"];
    assert_eq!(clocks["relation"], "estimated", "{clocks}");
    let within = nanos(&clocks["uncertainty_ns"]);
    let off = nanos(&clocks["offset_ns"]) - i64::from(AHEAD) * 1_000_000_000;
    assert!(off.abs() <= within, "{clocks}");
    assert!(within < 1_000_000_000, "that says nothing: {clocks}");
    let drift = clocks["drift_ppm"].as_f64().expect("several batches");
    let drift_within = clocks["drift_uncertainty_ppm"].as_f64().expect("a bound");
    assert!(
        drift.abs() <= drift_within,
        "both clocks are of one crystal: {clocks}"
    );

    for channel in ["http", "ws"] {
        let (one, two) = (row(&same, channel), row(&other, channel));
        assert_eq!(two["completed"], 4, "{two}");
        assert_eq!(two["unjoined"], one["unjoined"]);
        for metric in ["token_overhead", "request_transfer", "delivery"] {
            let within = nanos(&two["uncertainty_ns"][metric]);
            assert!(within > 0, "{two}");
            let [one, two] = [one, two].map(|row| &row["metrics"][metric]);
            let p50 = nanos(&two["p50"]);
            // Nothing comes before it was sent, but for what the estimate is off.
            assert!(nanos(&two["min"]) >= -within, "{channel} {metric}: {two}");
            // A busy host makes either of them slow: it is the thousand seconds that must be gone.
            let range = -within..=nanos(&one["max"]) + within + 100_000_000;
            assert!(
                range.contains(&p50),
                "{channel} {metric}: {p50} not in {range:?}"
            );
        }
        for metric in ["first_token_overhead", "roundtrip_overhead"] {
            let two = &two["metrics"][metric];
            assert!(two["count"].as_u64() == Some(4), "{metric}: {two}");
            assert!(nanos(&two["max"]) < 10_000_000_000, "{metric}: {two}");
        }
    }
    let versus = row(&other, "ws")["versus"].as_array().expect("changes");
    let of = |metric: &str| {
        let found = versus
            .iter()
            .find(|it| it["metric"] == metric && it["statistic"] == "p50");
        found.unwrap_or_else(|| panic!("{metric} is compared"))
    };
    let one_way = of("token_overhead");
    assert!(one_way["change"].is_null(), "{one_way}");
    assert_eq!(one_way["withheld"], "clocks");
    let difference = nanos_of(&one_way["difference"]["mean_ns"]);
    assert!(difference.abs() < 10e9, "{one_way}");
    assert!(of("roundtrip_overhead")["withheld"].is_null());
    assert!(of("ttft")["change"].is_f64());

    // The table says it, and a report that is made again says the same.
    let shown = stdout(&output);
    assert!(shown.contains("Clocks: the proxy's is "), "{shown}");
    assert!(shown.contains("s ahead of ours"), "{shown}");
    let again = run(&["report", "show", out.to_str().unwrap(), "--output", "json"]);
    let again: Value = serde_json::from_slice(&again.stdout).expect("JSON");
    assert_eq!(again["clocks"], *clocks);
    assert_eq!(again["channels"], other["channels"]);
    let record = support::json(&out.join("run.json"));
    let batches = record["clocks"]["batches"]
        .as_array()
        .expect("raw round trips");
    assert!(batches.len() >= 3, "{batches:?}");
    assert_eq!(Some(batches.len() as u64), clocks["batches"].as_u64());
}

fn nanos_of(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("no figure: {value}"))
}

#[test]
fn an_offset_that_is_known_worse_than_the_figures_are_large_speaks_against_a_run() {
    let backend = Backend::start();
    let Some(there) = Elsewhere::start(&backend.url) else {
        eprintln!("{REFUSED}");
        return;
    };
    // Unlike ways put the estimate off by half of their difference; the bound holds it all the same.
    let (out, back) = (Duration::from_millis(30), Duration::from_millis(2));
    let admin = long_way(&there.admin, out, back).to_string();
    let mut args = CHANNELS.to_vec();
    args.extend(["--url", &backend.url, "--proxy", &there.listen]);
    args.extend(["--proxy-admin", &admin]);
    let (report, _) = compared(&args);
    let clocks = &report["clocks"];
    let within = nanos(&clocks["uncertainty_ns"]);
    let off = nanos(&clocks["offset_ns"]) - i64::from(AHEAD) * 1_000_000_000;
    assert!(off.abs() <= within, "{clocks}");
    assert!(
        off >= 10_000_000 && within >= 16_000_000,
        "the ways are unlike: {clocks}"
    );
    assert_eq!(report["verdict"]["trusted"], false);
    let warnings = report["verdict"]["warnings"].as_array().expect("a list");
    let found = warnings.iter().find(|it| it["code"] == "clock_drift");
    let found = found.unwrap_or_else(|| panic!("{warnings:?}"));
    let message = found["message"].as_str().expect("text");
    assert!(message.contains("their offset is known to"), "{message}");
    assert!(message.contains("token_overhead p50"), "{message}");
    // The figures that need no offset are not touched by it.
    let overhead = &row(&report, "http")["metrics"]["first_token_overhead"];
    assert!(nanos(&overhead["min"]) > 0, "{overhead}");
}
