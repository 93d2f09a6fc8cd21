//! What it does to tokens that the sidecar is profiled while it carries them: `cargo bench --bench profiling_cost [-- PAIRS]`.
//!
//! One proxy stands in front of a scripted backend. Two runs of `tokenlag compare` of one row make a pair; during one of them, a
//! coin says which, one profile after another is asked of the admin endpoint, so that beginning it, sampling, looking names up
//! and packing all happen under load. A pair's ratio of `token_overhead`, p50 and p99, is one value; the geometric mean of them
//! has the interval that reports have. It fails where the interval's upper end reaches 10 %.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::Value;
use tokenlag_probes::bootstrap::estimate;
use tokenlag_scripted::ScriptedBackend;

/// Pairs of runs, unless told otherwise.
const PAIRS: u64 = 24;
/// More than this the sidecar's tokens must not suffer.
const TOLERATED: f64 = 0.10;
/// What the backend does.
const SCRIPT: &str = "ttft=5ms,gap=2ms,tokens=200";
/// Seconds of each profile.
const SECONDS: u32 = 2;
/// The statistics that are compared.
const STATISTICS: [&str; 2] = ["p50", "p99"];

fn main() {
    let mut words = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'));
    let pairs = words
        .next()
        .map_or(PAIRS, |word| word.parse().expect("a number of pairs"));
    let backend = ScriptedBackend::start(SCRIPT.parse().expect("a script")).expect("a free port");
    let proxy = Sidecar::start(&backend.url());
    // Debug information is read once in a process: before anything is compared, as warm-ups are.
    proxy.profile(1);
    println!(
        "token_overhead of 16 streams at 2 ms, profiled against not, {pairs} pairs of runs; us"
    );
    println!(
        "{:>4} {:>17} {:>17}",
        "pair", "p50 off -> on", "p99 off -> on"
    );
    let mut ratios = [Vec::new(), Vec::new()];
    for pair in 1..=pairs {
        let mut off_on = [[0.0; 2]; 2];
        for on in if coin(pair) {
            [true, false]
        } else {
            [false, true]
        } {
            off_on[usize::from(on)] = proxy.run(&backend.url(), on, pair);
        }
        let [off, on] = off_on;
        for at in 0..2 {
            ratios[at].push((on[at] / off[at]).ln());
        }
        let shown = |at: usize| format!("{:.1} -> {:.1}", off[at] / 1e3, on[at] / 1e3);
        println!("{pair:>4} {:>17} {:>17}", shown(0), shown(1));
    }
    let mut too_much = false;
    for (name, ratios) in STATISTICS.iter().zip(&ratios) {
        let found = estimate(ratios, 1).expect("there are pairs");
        let percent = |log: f64| (log.exp() - 1.0) * 100.0;
        let high = found.high.map_or(f64::INFINITY, percent);
        let low = found.low.map_or(f64::NEG_INFINITY, percent);
        println!(
            "{name}: {:+.1} % [{low:+.1} {high:+.1}]",
            percent(found.mean)
        );
        too_much |= high >= TOLERATED * 100.0;
    }
    if too_much {
        println!("an interval reaches beyond {:.0} %", TOLERATED * 100.0);
        std::process::exit(1);
    }
}

/// A proxy that is measured; killed when dropped.
struct Sidecar {
    process: Child,
    listen: String,
    admin: String,
}

impl Sidecar {
    fn start(upstream: &str) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_tokenlag"))
            .args([
                "proxy",
                "--listen",
                "127.0.0.1:0",
                "--no-quic",
                "--admin",
                "127.0.0.1:0",
            ])
            .args([
                "--upstream",
                upstream,
                "--upstream-api",
                "responses",
                "--report-ready",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the proxy starts");
        let mut line = String::new();
        let stdout = process.stdout.as_mut().expect("it is piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("it speaks");
        let ready: Value = serde_json::from_str(&line).expect("JSON");
        let address = |name: &str| ready[name].as_str().expect("an address").to_owned();
        Self {
            listen: address("listen"),
            admin: address("admin"),
            process,
        }
    }

    fn profile(&self, seconds: u32) {
        profile(&self.admin, seconds);
    }

    /// p50 and p99 of a run's `token_overhead`, in nanoseconds.
    fn run(&self, url: &str, profiled: bool, seed: u64) -> [f64; 2] {
        let over = Arc::new(AtomicBool::new(false));
        let asking = profiled.then(|| {
            let (admin, over) = (self.admin.clone(), Arc::clone(&over));
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    profile(&admin, SECONDS);
                }
            })
        });
        let folder = tempfile::tempdir().expect("a folder");
        let told = Command::new(env!("CARGO_BIN_EXE_tokenlag"))
            .args([
                "compare",
                "--url",
                url,
                "--channels",
                "http",
                "--state",
                "full",
                "--no-direct",
            ])
            .args(["--proxy", &format!("http://{}", self.listen)])
            .args(["--proxy-admin", &format!("http://{}", self.admin)])
            .args([
                "--turns",
                "1",
                "--isl",
                "64",
                "--osl",
                "200",
                "--concurrency",
                "16",
                "--blocks",
                "4",
            ])
            .args(["--num-prompts", "256", "--random-seed", &seed.to_string()])
            .args(["--ui", "none", "--allow-untrusted", "--output", "json"])
            .arg("--out")
            .arg(folder.path().join("run"))
            .output()
            .expect("the command starts");
        over.store(true, Ordering::Relaxed);
        if let Some(asking) = asking {
            asking.join().expect("profiles are answered");
        }
        let words = String::from_utf8_lossy(&told.stderr);
        assert!(told.status.success(), "tokenlag compare: {words}");
        let report: Value = serde_json::from_slice(&told.stdout).expect("JSON");
        let figure = &report["channels"][0]["metrics"]["token_overhead"];
        STATISTICS.map(|name| figure[name].as_f64().expect("a figure"))
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Takes a profile. That nothing was to be sampled is an answer too.
fn profile(admin: &str, seconds: u32) {
    let mut stream = TcpStream::connect(admin).expect("the admin endpoint listens");
    let request = format!(
        "GET /debug/pprof/profile?seconds={seconds} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    let status = answer.get(9..12).unwrap_or_default();
    assert!(
        status == b"200" || status == b"503",
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

/// A coin for each pair: SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
fn coin(pair: u64) -> bool {
    let mut z = pair.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)) & 1 == 0
}
