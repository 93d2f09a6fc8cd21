//! What the stamps of the kernel and of the reads say of a backend whose token times are known, and that each read is booked.

mod support;

use std::time::Duration;

use support::{lane, run, shared};
use tokenlag_loadgen::{Arrivals, CellEnd, CellPlan, Connections, Lane};
use tokenlag_probes::{StampSource, State, TokenMark, Transport};
use tokenlag_scripted::{Pace, ScriptedBackend};

const STREAMS: u64 = 64;
const TOKENS: usize = 200;
const SCRIPT: &str = "ttft=50ms,gap=1ms,tokens=200";
/// Two readings of the clocks may differ by so much.
const READING_NS: i64 = 20_000;

/// Runs the streams side by side; how late each delta's stamp is after its emission, ascending, in nanoseconds.
async fn errors(source: StampSource) -> (CellEnd, Vec<i64>) {
    let any = "127.0.0.1:0".parse().unwrap();
    let script = SCRIPT.parse().unwrap();
    let backend = ScriptedBackend::start_with(any, script, Pace::RealTime).unwrap();
    let lane = lane(
        0,
        Transport::Http,
        State::Full,
        &backend.url().parse().unwrap(),
    );
    let lane = Lane {
        row: lane.row,
        index: lane.index,
        endpoint: lane.endpoint.clone().stamped_by(source),
    };
    let plan = CellPlan {
        arrivals: Arrivals::Closed,
        concurrency: STREAMS as usize,
        sessions: Some(STREAMS),
        duration: None,
        turns: 1,
        connections: Connections::PerSession,
    };
    let (shared, _stopper) = shared(1, Duration::from_secs(20));
    let end = run(&shared, &lane.into(), plan).await;
    assert_eq!(end.completed() as u64, STREAMS, "{:?}", end.troubles);
    let mut errors = Vec::new();
    let mut last_of_reads = Vec::new();
    for exchange in &end.exchanges {
        let emissions = backend.emissions(exchange.trace).unwrap();
        assert_eq!((exchange.tokens.len(), emissions.len()), (TOKENS, TOKENS));
        let pairs = exchange.tokens.iter().zip(&emissions);
        errors.extend(pairs.map(|(mark, &emitted)| mark.at.since(emitted)));
        // The stamps of the others are upper bounds.
        let next = exchange.tokens.iter().skip(1).map(|mark| Some(mark.chunk));
        let of_this = errors[errors.len() - TOKENS..].iter();
        let marks = exchange.tokens.iter().zip(next.chain([None]));
        let is_last = |(mark, next): (&TokenMark, Option<u32>)| next != Some(mark.chunk);
        let lasts = marks.map(is_last).zip(of_this);
        last_of_reads.extend(lasts.filter(|(is_last, _)| *is_last).map(|(_, &late)| late));
    }
    errors.sort_unstable();
    let mean = |of: &[i64]| of.iter().sum::<i64>() as f64 / of.len() as f64;
    let p99 = errors[errors.len() * 99 / 100];
    println!(
        "stamps of the {source}: {:.3} ms late on average ({:.3} ms for the last delta of each read), p99 {:.3} ms; {}",
        mean(&errors) / 1e6,
        mean(&last_of_reads) / 1e6,
        p99 as f64 / 1e6,
        backend.take_lateness()
    );
    (end, errors)
}

#[tokio::test(flavor = "current_thread")]
async fn no_token_is_stamped_before_it_left_and_every_read_is_booked() {
    let (end, late) = errors(StampSource::User).await;
    assert!(late[0] >= 0, "{}", late[0]);
    assert_eq!(end.wakeups, Default::default());

    let (end, late) = errors(StampSource::Kernel).await;
    assert!(late[0] >= -READING_NS, "{}", late[0]);
    let booked = end.wakeups.stamped() + end.wakeups.unstamped;
    assert_eq!(booked, end.counters.reads, "{}", end.wakeups.unstamped);
    let lay: u64 = end
        .wakeups
        .spans
        .iter()
        .map(|(nanos, reads)| nanos * reads)
        .sum();
    println!(
        "between receipt and read: {:.3} ms on average of {} reads; {} without a stamp",
        lay as f64 / booked as f64 / 1e6,
        booked,
        end.wakeups.unstamped
    );
}
