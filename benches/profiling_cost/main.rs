//! What it does to tokens that the sidecar is profiled while it carries them: `cargo bench --bench profiling_cost [-- SECONDS]`.
//!
//! One proxy stands in front of a scripted backend, and one run of `tokenlag compare` keeps it at work for as long as the bench
//! lasts, at a rate that leaves the machine room. Meanwhile short stretches follow one another, by twos: in one the admin endpoint
//! is asked for a profile of a second, in the other it is left alone, and a coin says which comes first. The profile says when its
//! samples were taken, so that what came before them (the sampler is made) and after (names are looked up) is told apart.
//! Afterwards each token is booked to the stretch in which the proxy read it.
//!
//! A pair's ratio of `token_overhead`, p50 or p99, in one of those phases to the stretch that was left alone is one value: the
//! machine's other work, which comes and goes, is in both. Shown is the mean of the logarithms without the outer fifth on either
//! side, and a bootstrap over pairs has its interval. It fails where the interval of the sampling reaches 10 % at either statistic.

mod load;
mod middle;
mod phases;
mod sidecar;

use std::thread;
use std::time::Duration;

use tokenlag_probes::{Clock, MonoClock};
use tokenlag_scripted::ScriptedBackend;

use crate::load::{Load, Token};
use crate::middle::{Coin, Middle, median, middle};
use crate::phases::{Phase, Stretch, compared, of_phase, within};
use crate::sidecar::{Cpu, CpuTicks, Profiled, Sidecar};

/// How long the load lasts, unless told otherwise.
const SECONDS: u64 = 330;
/// More than this the sidecar's tokens must not suffer.
const TOLERATED: f64 = 0.10;
/// What the backend does.
const SCRIPT: &str = "ttft=5ms,gap=4ms,tokens=200";
/// Until warm-ups are over.
const SETTLING: Duration = Duration::from_secs(4);
/// In which the proxy is left alone, and for which it is sampled.
const STRETCH: Duration = Duration::from_secs(1);
/// After a profile, so that what it leaves behind is in no stretch.
const PAUSE: Duration = Duration::from_millis(200);
/// With fewer pairs nothing is said.
const FEWEST: usize = 8;

/// Two stretches that belong together.
struct Pair {
    alone: Stretch,
    profiled: Profiled,
}

fn main() {
    let mut words = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'));
    let seconds = words
        .next()
        .map_or(SECONDS, |word| word.parse().expect("a number of seconds"));
    let backend = ScriptedBackend::start(SCRIPT.parse().expect("a script")).expect("a free port");
    let proxy = Sidecar::start(&backend.url());
    let mut load = Load::start(&backend.url(), &proxy, seconds);
    thread::sleep(SETTLING);
    let ticks = CpuTicks::of(proxy.pid());
    // Debug information is read once in a process: that is told apart.
    let first = pair(&proxy, false);
    let mut coin = Coin::new(1);
    let mut pairs = Vec::new();
    while !load.is_over() {
        pairs.extend(pair(&proxy, coin.heads()));
        thread::sleep(PAUSE);
    }
    let cpu = ticks.stop();
    let tokens = load.tokens();
    println!(
        "token_overhead of 16 streams at 4 ms, {} tokens, {} pairs of stretches of a second; us, medians over pairs; \
         95 % intervals",
        tokens.len(),
        pairs.len()
    );
    println!(
        "{:<18} {:>5} {:>8}  {:>16} {:>24}  {:>16} {:>24}",
        "phase", "pairs", "lasts ms", "p50 alone -> on", "change %", "p99 alone -> on", "change %"
    );
    if let Some(first) = &first {
        told(
            &tokens,
            std::slice::from_ref(first),
            Phase::Making,
            "first of all",
        );
    }
    told(&tokens, &pairs, Phase::Making, "sampler is made");
    let held = told(&tokens, &pairs, Phase::Sampling, "sampling");
    told(&tokens, &pairs, Phase::Naming, "names looked up");
    tell_cpu(&tokens, &pairs, &cpu);
    let goal = TOLERATED * 100.0;
    match held {
        Some(high) if high < TOLERATED => {
            println!("held: while it is sampled, both intervals end below {goal:.0} %");
        }
        _ => {
            println!("missed: while it is sampled, an interval reaches {goal:.0} % or more");
            std::process::exit(1);
        }
    }
}

/// Both stretches, in the order that is asked for. `None` where the profile had no sample.
fn pair(proxy: &Sidecar, profiled_first: bool) -> Option<Pair> {
    let alone = || {
        let from = MonoClock.now();
        thread::sleep(STRETCH);
        Stretch {
            from,
            to: MonoClock.now(),
        }
    };
    if profiled_first {
        let profiled = proxy.profile(STRETCH.as_secs());
        thread::sleep(PAUSE);
        let alone = alone();
        return profiled.map(|profiled| Pair { alone, profiled });
    }
    let alone = alone();
    let profiled = proxy.profile(STRETCH.as_secs())?;
    Some(Pair { alone, profiled })
}

/// Prints a phase's line. The higher of both intervals' upper ends; `None` with too few pairs.
fn told(tokens: &[Token], pairs: &[Pair], phase: Phase, name: &str) -> Option<f64> {
    let found: Vec<_> = (pairs.iter())
        .filter_map(|pair| compared(tokens, pair.alone, of_phase(&pair.profiled, phase)))
        .collect();
    let lasts: Vec<f64> = (pairs.iter())
        .map(|pair| of_phase(&pair.profiled, phase).nanos() / 1e6)
        .collect();
    let mut line = format!("{name:<18} {:>5} {:>8.0} ", found.len(), median(&lasts));
    let mut highs = Vec::new();
    for at in 0..2 {
        let of = |on: usize| {
            let values: Vec<f64> = found.iter().map(|it| it.alone_on[on][at] / 1e3).collect();
            median(&values)
        };
        let ratios: Vec<f64> = (found.iter())
            .map(|it| (it.alone_on[1][at] / it.alone_on[0][at]).ln())
            .collect();
        let change = (found.len() >= FEWEST).then(|| middle(&ratios));
        line += &format!(
            " {:>16} {:>24} ",
            format!("{:.1} -> {:.1}", of(0), of(1)),
            change.map_or("-".to_owned(), shown)
        );
        highs.extend(change.map(|change| change.high.exp_m1()));
    }
    println!("{}", line.trim_end());
    highs.into_iter().max_by(f64::total_cmp)
}

fn shown(change: Middle) -> String {
    let percent = |log: f64| log.exp_m1() * 100.0;
    format!(
        "{:+.1} [{:+.1} {:+.1}]",
        percent(change.mean),
        percent(change.low),
        percent(change.high)
    )
}

/// What the proxy's threads used, per token while it is sampled, and altogether in the other phases.
fn tell_cpu(tokens: &[Token], pairs: &[Pair], cpu: &Cpu) {
    let used = |it: Stretch| Some(cpu.at(it.to)? - cpu.at(it.from)?);
    let a_token = |it: Stretch| {
        let count = within(tokens, it).len();
        used(it)
            .filter(|_| count > 0)
            .map(|nanos| nanos / count as f64)
    };
    let both: Vec<[f64; 2]> = (pairs.iter())
        .filter_map(|pair| {
            let on = of_phase(&pair.profiled, Phase::Sampling);
            Some([a_token(pair.alone)?, a_token(on)?])
        })
        .filter(|both| both.iter().all(|nanos| *nanos > 0.0))
        .collect();
    if both.len() < FEWEST {
        return;
    }
    let of = |at: usize| median(&both.iter().map(|it| it[at] / 1e3).collect::<Vec<_>>());
    let ratios: Vec<f64> = both.iter().map(|[alone, on]| (on / alone).ln()).collect();
    println!(
        "CPU of the proxy, us a token: {:.2} -> {:.2} while it is sampled, {} %",
        of(0),
        of(1),
        shown(middle(&ratios))
    );
    let whole = |phase: Phase| {
        let beyond: Vec<f64> = (pairs.iter())
            .filter_map(|pair| {
                let it = of_phase(&pair.profiled, phase);
                let traffic = used(pair.alone)? / pair.alone.nanos() * it.nanos();
                Some((used(it)? - traffic) / 1e6)
            })
            .collect();
        median(&beyond)
    };
    println!(
        "CPU beside its traffic, ms a profile: {:.0} as the sampler is made, {:.0} as names are looked up and tables given back",
        whole(Phase::Making),
        whole(Phase::Naming)
    );
}
