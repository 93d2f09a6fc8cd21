//! What keeps the proxy at work: one long run of `tokenlag compare`, and its tokens with both ends' stamps.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde::Deserialize;
use tempfile::TempDir;
use tokenlag_probes::Stamp;

use crate::sidecar::Sidecar;

/// Exchanges of each turn of the row, which then takes four seconds.
const EXCHANGES: u64 = 80;
/// Seconds of a turn, with what is done between two.
const TURN: f64 = 4.3;

/// A token after its reply's first.
#[derive(Clone, Copy, Debug)]
pub struct Token {
    /// When the proxy read it.
    pub read: Stamp,
    /// By how much it came later to the load generator, in nanoseconds: `token_overhead`.
    pub late: i64,
}

/// A run that is under way; killed when dropped.
pub struct Load {
    process: Child,
    folder: TempDir,
}

/// A line of `exchanges.jsonl`, as far as it is read.
#[derive(Deserialize)]
struct Line {
    dispatched: u64,
    outcome: String,
    tokens: Vec<Stamps>,
}

/// Nanoseconds since `dispatched`.
#[derive(Deserialize)]
struct Stamps {
    at: i64,
    up: Option<i64>,
}

impl Load {
    /// One of some `seconds`.
    pub fn start(url: &str, proxy: &Sidecar, seconds: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let turns = (seconds as f64 / TURN).ceil().max(1.0) as u64;
        let process = Command::new(env!("CARGO_BIN_EXE_tokenlag"))
            .args(["compare", "--url", url, "--channels", "http"])
            .args(["--state", "full", "--no-direct", "--turns", "1"])
            .args(["--proxy", &format!("http://{}", proxy.listen)])
            .args(["--proxy-admin", &format!("http://{}", proxy.admin)])
            .args(["--isl", "64", "--osl", "200", "--concurrency", "16"])
            .args(["--blocks", &turns.to_string()])
            .args(["--num-prompts", &(turns * EXCHANGES).to_string()])
            .args(["--random-seed", "1", "--ui", "none", "--keep-tokens"])
            .args(["--allow-untrusted", "--output", "json", "--out"])
            .arg(folder.path().join("run"))
            .stdout(Stdio::null())
            .spawn()
            .expect("the command starts");
        Self { process, folder }
    }

    /// Whether it has ended, as it should.
    pub fn is_over(&mut self) -> bool {
        let ended = self.process.try_wait().expect("it is a child");
        ended.is_some_and(|status| {
            assert!(status.success(), "tokenlag compare: {status}");
            true
        })
    }

    /// The tokens of a run that is over, in the order in which the proxy read them.
    pub fn tokens(&self) -> Vec<Token> {
        let file: PathBuf = self.folder.path().join("run/exchanges.jsonl");
        let mut tokens = Vec::new();
        for line in BufReader::new(File::open(file).expect("it was kept")).lines() {
            let line: Line = serde_json::from_str(&line.expect("text")).expect("JSON");
            if line.outcome != "complete" {
                continue;
            }
            let dispatched = Stamp::from_nanos(line.dispatched);
            tokens.extend(line.tokens.iter().skip(1).filter_map(|stamps| {
                let up = stamps.up?;
                Some(Token {
                    read: dispatched.moved_by(up),
                    late: stamps.at - up,
                })
            }));
        }
        tokens.sort_unstable_by_key(|token| token.read);
        tokens
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
