//! What recording costs: cargo bench --bench recording. An exchange has 1,000 tokens, so that microseconds are nanoseconds a token.
//!
//! It is the thread's own time that is measured: what else runs on the machine adds to the clock on the wall, and not to the cost.

use std::hint::black_box;
use std::time::{Duration, UNIX_EPOCH};

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nix::time::{ClockId, clock_gettime};
use tokenlag_instructions::exchanges::{exchange, joined};
use tokenlag_probes::{
    CellSample, JoinedExchange, Recorder, Row, RunFolder, RunRecord, TokenMark, TokenStamps,
};

const TOKENS: usize = 1_000;
/// Exchanges of different stamps: one alone would be predicted.
const EXCHANGES: u64 = 64;

/// The parts, and all that is done with the tokens of an exchange from its marks to its line on disk.
fn recording(criterion: &mut Criterion<ThreadTime>) {
    let mut group = criterion.benchmark_group("recording of 1,000 tokens");
    group.throughput(Throughput::Elements(TOKENS as u64));

    let marks: Vec<TokenMark> = exchange(0, TOKENS).tokens;
    let mut own = Vec::with_capacity(TOKENS);
    group.bench_function("marks", |bencher| {
        bencher.iter(|| {
            own.clear();
            for mark in black_box(&marks) {
                own.push(*mark);
            }
            black_box(&own);
        });
    });

    let exchanges: Vec<JoinedExchange> = (0..EXCHANGES).map(|of| joined(of, TOKENS)).collect();
    let mut turn = exchanges.iter().cycle();
    let mut next = || turn.next().expect("a cycle has no end");
    let mut recorder = Recorder::new();
    group.bench_function("histograms of the client alone", |bencher| {
        bencher.iter(|| recorder.finish(&next().exchange, None));
    });
    group.bench_function("histograms of both ends", |bencher| {
        bencher.iter(|| {
            let joined = next();
            recorder.finish(&joined.exchange, joined.hop.as_ref());
        });
    });

    let mut sample = CellSample::default();
    let mut sampled = 0_u64;
    group.bench_function("exact values of a block", |bencher| {
        bencher.iter(|| {
            // A cell of some hundred thousand tokens.
            sampled += 1;
            if sampled.is_multiple_of(200) {
                sample.reset();
            }
            let joined = next();
            sample.finish(&joined.exchange, joined.hop.as_ref());
        });
    });

    let place = tempfile::tempdir().expect("there is room for files");
    let row: Row = "ws/full".parse().expect("a row");
    let record = RunRecord::begin("load", UNIX_EPOCH, vec![row]);
    let mut folder = RunFolder::create(&place.path().join("run"), &record, TokenStamps::Drop)
        .expect("the folder is made");
    group.bench_function("line on disk", |bencher| {
        bencher.iter(|| {
            folder
                .append_exchanges(row, std::slice::from_ref(next()))
                .expect("the disk takes it");
        });
    });

    let mut book = |joined: &JoinedExchange| {
        sampled += 1;
        if sampled.is_multiple_of(200) {
            sample.reset();
        }
        let joined = std::slice::from_ref(joined);
        folder
            .book_exchanges(row, joined, &mut recorder, &mut sample)
            .expect("the disk takes it");
    };
    // An exchange makes room for its marks and gives it back.
    group.bench_function("all of it", |bencher| {
        bencher.iter(|| {
            let joined = next();
            let mut own = Vec::with_capacity(TOKENS);
            for mark in black_box(&joined.exchange.tokens) {
                own.push(*mark);
            }
            black_box(&own);
            book(joined);
        });
    });
    let short: Vec<JoinedExchange> = (0..EXCHANGES).map(|of| joined(of, 1)).collect();
    let mut turn = short.iter().cycle();
    group.throughput(Throughput::Elements(1));
    group.bench_function("an exchange of one token", |bencher| {
        bencher.iter(|| book(turn.next().expect("a cycle has no end")));
    });
    group.finish();
}

/// What the processor gave to the thread.
struct ThreadTime;

impl Measurement for ThreadTime {
    type Intermediate = Duration;
    type Value = Duration;

    #[expect(
        clippy::disallowed_methods,
        reason = "the thread's CPU time, which is no moment"
    )]
    fn start(&self) -> Duration {
        let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
        now.expect("every thread has such a clock").into()
    }

    fn end(&self, start: Duration) -> Duration {
        self.start().saturating_sub(start)
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(ThreadTime);
    targets = recording
}
criterion_main!(benches);
