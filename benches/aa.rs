//! A row against itself on the real stack: how often is a difference claimed where there is none?
//! `cargo bench --bench aa [-- RUNS [CHANNEL]]`.
//!
//! Each run is a `tokenlag compare` of one row alone: the command, its proxy in a process of its own, the join of both ends;
//! behind it a scripted backend. Its turns are taken by twos. Of each two a coin says which is the row's and which the
//! baseline's: a block of random order. The change of `roundtrip_overhead` p50 is then what a report would give, interval
//! included, and the truth is that there is none: of 40 intervals of 95 % two leave it out in the mean.

use std::process::{Command, Stdio};

use tokenlag_probes::stats::Blocks;
use tokenlag_probes::{Metric, Row, RunFolder, State, Statistic, Transport, change};
use tokenlag_scripted::ScriptedBackend;

/// Runs, unless told otherwise.
const RUNS: u64 = 40;
/// Of so many runs as many may claim a difference: with 5 % each, more than 5 of 40 come in one series of seventy.
const TOLERATED: f64 = 5.0 / 40.0;
/// Blocks of each run, of two turns each.
const BLOCKS: u32 = 24;
/// Exchanges of each turn.
const EXCHANGES: u32 = 4;
/// What the backend does.
const SCRIPT: &str = "ttft=2ms,gap=500us,tokens=8";

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let number = |word: &String| word.parse().expect("a number of runs");
    let runs = words.first().map_or(RUNS, number);
    let channel = |word: &String| word.parse().expect("a channel");
    let channel: Transport = words.get(1).map_or(Transport::Http, channel);
    let row = Row::events(channel, State::Full);

    let backend = ScriptedBackend::start(SCRIPT.parse().expect("a script")).expect("a free port");
    println!(
        "{row} against itself: roundtrip_overhead p50, {BLOCKS} blocks of {EXCHANGES} exchanges each"
    );
    println!("{:>4} {:>10}  95 % interval", "run", "change %");
    let mut claimed = 0;
    for seed in 1..=runs {
        let (ours, theirs) = halves(&run(&backend.url(), channel, seed), row, seed);
        let found = change(&ours, &theirs, Statistic::P50, seed);
        let percent = |share: Option<f64>| share.map_or(f64::NAN, |share| share * 100.0);
        let differs = found.is_distinguishable();
        claimed += u64::from(differs);
        println!(
            "{seed:>4} {:>10.2}  [{:.2} {:.2}]{}",
            percent(found.change),
            percent(found.low),
            percent(found.high),
            if differs { "  claims a difference" } else { "" }
        );
    }
    let tolerated = (TOLERATED * runs as f64).floor();
    println!("{claimed} of {runs} runs claim a difference; at most {tolerated} may");
    if claimed as f64 > tolerated {
        std::process::exit(1);
    }
}

/// Measures one row by the command, and gives what it recorded.
fn run(url: &str, channel: Transport, seed: u64) -> tokenlag_probes::RunRecord {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("run");
    let (channel, seed) = (channel.to_string(), seed.to_string());
    let turns = (2 * BLOCKS).to_string();
    let prompts = (2 * BLOCKS * EXCHANGES).to_string();
    let told = Command::new(env!("CARGO_BIN_EXE_tokenlag"))
        .args(["compare", "--url", url, "--channels", &channel])
        .args(["--state", "full", "--no-direct", "--turns", "1"])
        .args(["--isl", "64", "--osl", "8", "--pin", "none"])
        .args(["--blocks", &turns, "--num-prompts", &prompts])
        .args(["--random-seed", &seed, "--ui", "none", "--allow-untrusted"])
        .arg("--out")
        .arg(&out)
        .stdout(Stdio::null())
        .output()
        .expect("the command starts");
    let words = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success(), "tokenlag compare: {words}");
    RunFolder::open(&out).expect("the run's folder").record
}

/// The turns by twos, as two rows' blocks.
fn halves(record: &tokenlag_probes::RunRecord, row: Row, seed: u64) -> (Blocks, Blocks) {
    let turns = record.blocks_of(row, Metric::RoundtripOverhead);
    assert_eq!(turns.len(), 2 * BLOCKS as usize, "every turn is whole");
    let (mut ours, mut theirs) = (Blocks::new(), Blocks::new());
    for block in 0..BLOCKS {
        let (first, second) = (turns[&(2 * block)], turns[&(2 * block + 1)]);
        let heads = coin(seed, block);
        ours.insert(block, if heads { first } else { second });
        theirs.insert(block, if heads { second } else { first });
    }
    (ours, theirs)
}

/// A coin for each block of each run: SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", 2014).
fn coin(seed: u64, block: u32) -> bool {
    let mut z = (seed << 32 | u64::from(block)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)) & 1 == 0
}
