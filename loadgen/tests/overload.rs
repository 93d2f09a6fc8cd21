//! An open loop that falls due faster than it can be prepared: once its time is over, what is left is counted, and nothing else
//! waits for that.

mod support;

use std::time::Duration;

use support::{direct, run, shared_asking};
use tokenlag_loadgen::{Arrivals, CellPlan, Connections, Rate};
use tokenlag_probes::{Exchange, Transport};
use tokenlag_scripted::ScriptedBackend;

const PATIENCE: Duration = Duration::from_secs(60);
/// Tokens of a prompt: to prepare it takes a part of a millisecond or more.
const PROMPT: u32 = 4_000;

fn open(rate: f64, duration: Duration) -> CellPlan {
    CellPlan {
        arrivals: Arrivals::Constant {
            rate: Rate::new(rate).unwrap(),
        },
        concurrency: 10_000,
        sessions: None,
        duration: Some(duration),
        turns: 1,
        connections: Connections::Pooled,
    }
}

/// The longest time between two deltas of a reply.
fn longest_gap(exchange: &Exchange) -> i64 {
    let pairs = exchange.tokens.windows(2);
    let gaps = pairs.map(|pair| pair[1].at.since(pair[0].at));
    gaps.max().unwrap_or_default()
}

#[tokio::test(flavor = "current_thread")]
async fn replies_under_way_are_read_while_what_is_too_late_is_counted() {
    const DUE: u64 = 40_000;
    // A reply of a second: those that started are under way when the cell's fifth of a second is over.
    let script = "ttft=5ms,gap=20ms,tokens=50";
    let backend = ScriptedBackend::start(script.parse().unwrap()).unwrap();
    let (shared, _stopper) = shared_asking(PROMPT, PATIENCE);
    let lane = direct(&backend, Transport::Http);
    let end = run(&shared, &lane, open(200_000.0, Duration::from_millis(200))).await;
    assert!(end.completed() > 0, "{:?}", end.troubles);
    assert_eq!(end.completed() as u64, end.sessions, "{:?}", end.troubles);
    assert_eq!(end.sessions + end.not_started, DUE, "each is accounted for");
    // To prepare the others first would take many seconds, in which nothing is read.
    let longest = end.exchanges.iter().map(longest_gap).max().unwrap();
    println!(
        "{} started, longest gap {} ms",
        end.sessions,
        longest / 1_000_000
    );
    assert!(longest < 2_000_000_000, "{longest} ns");
}

#[tokio::test(flavor = "current_thread")]
async fn a_stop_ends_the_counting() {
    const DUE: u64 = 3_000_000;
    const CELL: Duration = Duration::from_millis(300);
    let backend = ScriptedBackend::start("ttft=10s".parse().unwrap()).unwrap();
    let (shared, stopper) = shared_asking(PROMPT, PATIENCE);
    let lane = direct(&backend, Transport::Http);
    let stopping = async {
        // From a moment later than the cell's first: its time is over.
        tokio::time::sleep(CELL).await;
        stopper.stop();
    };
    let (end, ()) = tokio::join!(biased; run(&shared, &lane, open(1e7, CELL)), stopping);
    assert!(end.not_started > 0, "the cell was over");
    let told = end.sessions + end.not_started;
    assert!(
        told < DUE,
        "the stop was heeded only after all {told} were counted"
    );
    assert_eq!(end.cancelled, end.sessions, "{:?}", end.troubles);
}
