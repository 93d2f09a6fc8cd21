//! Hand-made exchanges, rows and runs for this crate's tests.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use crate::cell::CellSample;
use crate::clock::Stamp;
use crate::counters::Counters;
use crate::exchange::{
    DeltaKind, Exchange, HopExchange, Outcome, Place, TokenMark, TraceId, Usage,
};
use crate::join::JoinedExchange;
use crate::metric::Metric;
use crate::record::{Cell, RunRecord};
use crate::recorder::{Recorder, Tallies};
use crate::report::Recorders;
use crate::row::Row;
use crate::sockets::Sockets;

/// A stamp at `nanos`.
pub(crate) fn at(nanos: u64) -> Stamp {
    Stamp::from_nanos(nanos)
}

/// A complete exchange in a closed loop: dispatched at 1,000, connected at 1,100, written at 1,150, content deltas at
/// `tokens`, ended 50 after the last, with a usage of one token a delta.
pub(crate) fn exchange(trace: u128, tokens: &[u64]) -> Exchange {
    let mut exchange = Exchange::begin(
        TraceId::from_bits(trace),
        Place::default(),
        at(1_000),
        at(1_000),
        tokens.len(),
    );
    exchange.connected = Some(at(1_100));
    exchange.written = Some(at(1_150));
    exchange.head = tokens.first().map(|&nanos| at(nanos));
    exchange.tokens = tokens
        .iter()
        .enumerate()
        .map(|(k, &nanos)| TokenMark {
            at: at(nanos),
            chunk: k as u32,
            kind: DeltaKind::Content,
        })
        .collect();
    exchange.chunks = tokens.len() as u32;
    exchange.end = Some(at(tokens.last().unwrap_or(&1_500) + 50));
    exchange.usage = Some(Usage {
        input: 7,
        cached_input: Some(3),
        output: tokens.len() as u64,
    });
    exchange.outcome = Outcome::Complete;
    exchange
}

/// The proxy's record of it: request in at 1,200 and 1,210, upstream written at 1,230, deltas at `tokens`, each handed on
/// 10 later, the upstream's end 20 after its last delta.
pub(crate) fn hop(trace: u128, tokens: &[u64]) -> HopExchange {
    HopExchange {
        trace: Some(TraceId::from_bits(trace)),
        channel: "http".into(),
        in_head: at(1_200),
        in_body: at(1_210),
        up_written: Some(at(1_230)),
        up_token: tokens.iter().copied().map(at).collect(),
        up_coalesced: 0,
        out_token: tokens.iter().map(|nanos| at(nanos + 10)).collect(),
        up_end: Some(at(tokens.last().unwrap_or(&1_400) + 20)),
        usage: None,
        up_connected_anew: false,
        overlapped: false,
        outcome: Outcome::Complete,
    }
}

/// How one row of a hand-made run behaves; all in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowSketch {
    pub(crate) row: Row,
    /// What the request's way adds.
    pub(crate) request: u64,
    /// What a delta's way adds.
    pub(crate) delta: u64,
    /// The backend's time to first token, and between deltas.
    pub(crate) model: (u64, u64),
}

/// A run of `blocks` blocks over `rows`, four exchanges of eight deltas a cell, each with a little noise of its own.
pub(crate) fn run(rows: &[RowSketch], blocks: u32) -> (RunRecord, Recorders) {
    let started = UNIX_EPOCH + Duration::from_secs(1_750_000_000);
    let names = rows.iter().map(|sketch| sketch.row).collect();
    let mut record = RunRecord::begin("compare", started, names);
    let mut recorders = Recorders::new();
    for block in 0..blocks {
        for (order, sketch) in rows.iter().enumerate() {
            record.cells.push(cell(sketch, block, order as u32));
            let recorder = recorders.entry(sketch.row).or_default();
            book(recorder, sketch, block);
        }
    }
    record.end(started + Duration::from_secs(60));
    (record, recorders)
}

/// Books the exchanges of one cell.
pub(crate) fn book(recorder: &mut Recorder, sketch: &RowSketch, block: u32) {
    for joined in cell_exchanges(sketch, block) {
        recorder.finish(&joined.exchange, joined.hop.as_ref());
    }
}

/// One cell of [`run`].
pub(crate) fn cell(sketch: &RowSketch, block: u32, order: u32) -> Cell {
    let mut sample = CellSample::default();
    let mut tallies = Tallies::default();
    for joined in cell_exchanges(sketch, block) {
        sample.finish(&joined.exchange, joined.hop.as_ref());
        tallies.count(&joined.exchange, joined.hop.as_ref());
    }
    Cell {
        block,
        row: sketch.row,
        order,
        started_ns: u64::from(block * 100 + order) * 10_000_000,
        duration_ns: 9_000_000,
        parts: None,
        statistics: sample.statistics(),
        logged: BTreeMap::new(),
        tallies,
        counters: Counters {
            wire_bytes_sent: Some(9 * 32),
            wire_bytes_received: Some(64 * 32),
            channel_bytes_sent: Some(8 * 32),
            channel_bytes_received: Some(61 * 32 + 16),
            connections_opened: Some(1),
            client_cpu_ns: Some(4_000 * 32),
            client_cpu_user_ns: Some(1_500 * 32),
            client_cpu_system_ns: Some(2_500 * 32),
            client_context_switches: Some(40),
            ..Counters::default()
        },
        leg: sketch.row.transport.is_pair().then(leg),
        sockets: Sockets::default(),
    }
}

/// What goes between the sidecars of [`cell`]'s pair.
fn leg() -> Counters {
    Counters {
        wire_bytes_sent: Some(12 * 32),
        wire_bytes_received: Some(48 * 32),
        channel_bytes_sent: Some(9 * 32),
        channel_bytes_received: Some(40 * 32 + 8),
        connections_opened: Some(0),
        handshakes_made: Some(0),
        ..Counters::default()
    }
}

/// The exchanges of one cell of [`run`].
pub(crate) fn cell_exchanges(sketch: &RowSketch, block: u32) -> Vec<JoinedExchange> {
    let micros = |value: u64| value * 1_000;
    let (model_first, model_gap) = sketch.model;
    (0..4u32)
        .map(|turn| {
            // Noise that needs no randomness: a share of up to 6 % that differs by block and turn.
            let noise = |value: u64| value + value * u64::from((block * 7 + turn * 3) % 7) / 100;
            let start = micros(1_000);
            let written = start + noise(micros(sketch.request));
            let up: Vec<u64> = (0..8)
                .map(|k| written + micros(model_first + k * model_gap))
                .collect();
            let trace = u128::from(block) << 64 | u128::from(turn) << 32 | 1;
            let down: Vec<u64> = up.iter().map(|t| t + noise(micros(sketch.delta))).collect();
            let mut exchange = exchange(trace, &down);
            exchange.place = Place {
                block,
                session: 0,
                turn,
            };
            exchange.intended = at(start);
            exchange.dispatched = at(start);
            exchange.connected = Some(at(start + micros(5)));
            let mut hop = hop(trace, &up);
            hop.in_head = at(written - micros(2));
            hop.in_body = at(written - micros(1));
            hop.up_written = Some(at(written));
            JoinedExchange {
                exchange,
                hop: Some(hop),
            }
        })
        .collect()
}

/// The values that `derive` hands out for one figure, in order.
pub(crate) fn values(exchange: &Exchange, hop: Option<&HopExchange>, wanted: Metric) -> Vec<i64> {
    let mut values = Vec::new();
    crate::figures::derive(exchange, hop, &mut |metric, nanos| {
        if metric == wanted {
            values.push(nanos);
        }
    });
    values
}
