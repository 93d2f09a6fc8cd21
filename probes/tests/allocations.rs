//! Recording allocates nothing for a token, and what it holds does not grow with the tokens that went through it.

use std::time::{Duration, UNIX_EPOCH};

use allocation_counter::AllocationInfo;
use tokenlag_probes::cell::DEFAULT_KEPT_VALUES;
use tokenlag_probes::{
    CellSample, DeltaKind, Exchange, HopExchange, JoinedExchange, Metric, Outcome, Place, Recorder,
    Row, RunFolder, RunRecord, Stamp, TokenMark, TokenStamps, TraceId,
};

/// Exact values of a figure that are kept here: few, so that the bound is reached.
const KEPT: usize = 256;

/// A reply of so many deltas, about 10 ms apart, that reached the client some ten microseconds after the proxy.
fn reply(serial: u64, deltas: usize) -> JoinedExchange {
    let started = Stamp::from_nanos(serial << 40);
    let at = |k: usize, late: u64| {
        let noise = (serial << 20 | k as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (44 + late);
        started + Duration::from_nanos(10_000_000 * (k as u64 + 1) + 30_000 * late + noise)
    };
    let trace = TraceId::from_bits(u128::from(serial));
    let mut exchange = Exchange::begin(trace, Place::default(), started, started, deltas);
    exchange.connected = Some(started);
    exchange.tokens.extend((0..deltas).map(|k| TokenMark {
        at: at(k, 1),
        chunk: k as u32,
        kind: DeltaKind::Content,
    }));
    exchange.end = Some(at(deltas, 1));
    exchange.outcome = Outcome::Complete;
    let hop = HopExchange {
        trace: Some(trace),
        channel: "ws".into(),
        in_head: started,
        in_body: started,
        up_written: Some(started),
        up_token: (0..deltas).map(|k| at(k, 0)).collect(),
        up_coalesced: 0,
        out_token: (0..deltas).map(|k| at(k, 0)).collect(),
        up_end: Some(at(deltas, 0)),
        usage: None,
        up_connected_anew: false,
        overlapped: false,
        outcome: Outcome::Complete,
    };
    JoinedExchange {
        exchange,
        hop: Some(hop),
    }
}

fn row() -> Row {
    "ws/full".parse().expect("a row")
}

/// All that a run does with a reply once it is over.
struct Recording {
    part: Recorder,
    whole: Recorder,
    sample: CellSample,
    folder: RunFolder,
    intervals: u64,
    _place: tempfile::TempDir,
}

impl Recording {
    fn new(tokens: TokenStamps, sample: CellSample) -> Self {
        let place = tempfile::tempdir().expect("there is room");
        let record = RunRecord::begin("load", UNIX_EPOCH, vec![row()]);
        Self {
            part: Recorder::new(),
            whole: Recorder::new(),
            sample,
            folder: RunFolder::create(&place.path().join("run"), &record, tokens)
                .expect("the folder is made"),
            intervals: 0,
            _place: place,
        }
    }

    fn take(&mut self, reply: &JoinedExchange) {
        let replies = std::slice::from_ref(reply);
        self.folder
            .book_exchanges(row(), replies, &mut self.part, &mut self.sample)
            .expect("the disk takes it");
    }

    /// What a long cell does every other second.
    fn log(&mut self) {
        let span = Duration::from_secs(2);
        self.intervals += 1;
        self.folder
            .append_interval(row(), span * self.intervals as u32, span, &self.part)
            .expect("the disk takes it");
        self.whole.merge(&self.part);
        self.part.reset();
    }
}

/// Allocations of taking one more reply of so many deltas.
fn of_a_reply(recording: &mut Recording, deltas: usize) -> AllocationInfo {
    let reply = reply(1, deltas);
    // Its buckets, and room for a cell's exact values.
    recording.take(&reply);
    recording.sample.reset();
    allocation_counter::measure(|| recording.take(&reply))
}

#[test]
fn a_token_costs_no_allocation() {
    let mut marks = Vec::with_capacity(1_000);
    let mark = reply(0, 1).exchange.tokens[0];
    let pushed = allocation_counter::measure(|| marks.resize(1_000, mark));
    assert_eq!(pushed.count_total, 0);

    let mut recording = Recording::new(TokenStamps::Drop, CellSample::default());
    recording.take(&reply(1, 10_000));
    let few = of_a_reply(&mut recording, 100);
    let many = of_a_reply(&mut recording, 10_000);
    assert_eq!(few.count_total, many.count_total, "its line in the file");
    assert!(many.bytes_max < 16 << 10, "{many:?}");

    let reply = reply(1, 10_000);
    let figures = allocation_counter::measure(|| {
        recording.sample.reset();
        recording.part.finish(&reply.exchange, reply.hop.as_ref());
        recording.sample.finish(&reply.exchange, reply.hop.as_ref());
    });
    assert_eq!(figures.count_total, 0, "its figures");
}

#[test]
fn nor_does_one_whose_stamps_are_kept() {
    let mut recording = Recording::new(TokenStamps::Keep, CellSample::default());
    recording.take(&reply(1, 10_000));
    let few = of_a_reply(&mut recording, 100);
    let many = of_a_reply(&mut recording, 10_000);
    assert_eq!(few.count_total, many.count_total);
    assert!(many.bytes_max < 16 << 10, "{many:?}");
}

#[test]
fn what_is_held_is_the_same_after_two_million_tokens_as_after_half_a_million() {
    // One reply lives while it is taken; of an hour at 100,000 tokens/s there are 360,000 of these.
    let replies = |from: u64, count: u64, recording: &mut Recording| {
        for serial in from..from + count {
            recording.take(&reply(serial, 1_000));
            if serial % 100 == 0 {
                recording.log();
            }
        }
    };
    let mut recording = None;
    let first = allocation_counter::measure(|| {
        let mut own = Recording::new(TokenStamps::Drop, CellSample::new(KEPT));
        replies(1, 500, &mut own);
        recording = Some(own);
    });
    let mut recording = recording.expect("it was made");
    let then = allocation_counter::measure(|| replies(501, 1_500, &mut recording));
    assert_eq!(then.bytes_current, 0, "held more than before: {then:?}");
    let highest = first.bytes_current + then.bytes_max as i64;
    let kept_by_a_run = Metric::ALL.len() * DEFAULT_KEPT_VALUES * size_of::<i64>();
    let most = highest + kept_by_a_run as i64;
    println!(
        "{highest} bytes for histograms and rows, {most} with all the exact values that a cell may keep"
    );
    assert!(most < 64 << 20, "{most}");
    let itl = recording.whole.histogram(Metric::Itl);
    assert_eq!(itl.count(), 2_000 * 999);
}
