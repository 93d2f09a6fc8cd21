//! One line of `exchanges.jsonl`: an exchange with its stamps relative to `dispatched` and its figures.

use std::io::{self, Write};

use serde::{Serialize, Serializer};

use super::object::Object;
use crate::cell::{CellSample, exact_sum};
use crate::clock::Stamp;
use crate::exchange::{DeltaKind, HopExchange, Outcome};
use crate::figures::{Both, Figures, derive_into};
use crate::join::Seen;
use crate::key::{Key, key};
use crate::metric::Metric;
use crate::recorder::Recorder;

/// Writes the line of an exchange of `row` that was `seen`, and whose figures `sums` took, by way of `text`, whose memory it uses.
pub(super) fn write(
    file: &mut impl Write,
    text: &mut Vec<u8>,
    row: &str,
    seen: Seen<'_>,
    sums: &Sums,
    keep_tokens: bool,
) -> io::Result<()> {
    text.clear();
    let mut line = Object::begin(text);
    fill(&mut line, row, seen, sums);
    match keep_tokens {
        false => line.end(),
        true => {
            // Not by way of memory: there may be a million.
            file.write_all(text)?;
            file.write_all(b",\"tokens\":")?;
            serde_json::to_writer(&mut *file, &TokenLines(seen))?;
            text.clear();
            text.push(b'}');
        }
    }
    text.push(b'\n');
    file.write_all(text)
}

fn fill(line: &mut Object<'_>, row: &str, seen: Seen<'_>, sums: &Sums) {
    let Seen { exchange, hop } = seen;
    let (outcome, failure): (&[u8], _) = match exchange.outcome {
        Outcome::Complete => (b"complete", None),
        Outcome::Truncated => (b"truncated", None),
        Outcome::Cancelled => (b"cancelled", None),
        Outcome::Failed(kind) => (b"failed", Some(kind)),
    };
    line.say(key!("trace"), &exchange.trace.digits());
    line.say(key!("row"), row.as_bytes());
    line.set(key!("block"), exchange.place.block);
    line.set(key!("session"), exchange.place.session);
    line.set(key!("turn"), exchange.place.turn);
    line.say(key!("outcome"), outcome);
    if let Some(kind) = failure {
        line.say(key!("failure"), kind.name().as_bytes());
    }
    // The one absolute stamp: nanoseconds of the host's monotonic clock.
    line.set(key!("dispatched"), exchange.dispatched);
    line.nest(key!("stamps"), |line| {
        for (key, stamp) in stamps(seen) {
            // Those that were not reached are absent.
            if let Some(stamp) = stamp {
                line.set(key, stamp.since(exchange.dispatched));
            }
        }
    });
    line.set(key!("deltas"), exchange.tokens.len());
    line.set(key!("chunks"), exchange.chunks);
    if let Some(usage) = exchange.usage {
        line.set(key!("usage"), usage);
    }
    line.set(key!("joined"), hop.is_some());
    line.nest(key!("figures"), |line| {
        for (metric, sum, _) in sums.values().filter(|(metric, ..)| !metric.is_per_delta()) {
            // What comes once is its own sum.
            if let Ok(nanos) = i64::try_from(sum) {
                line.set(metric.key(), nanos);
            }
        }
    });
    line.nest(key!("means"), |line| {
        for (metric, sum, count) in sums.values().filter(|(metric, ..)| metric.is_per_delta()) {
            line.set(metric.key(), sum as f64 / count as f64);
        }
    });
}

#[derive(Serialize)]
struct TokenLine {
    at: i64,
    chunk: u32,
    kind: DeltaKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    up: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    out: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sidecar: Option<u32>,
    #[serde(flatten)]
    handling: Option<HandlingLine>,
}

/// What became of a delta once it had come, in nanoseconds, and when that was over, as it was stamped.
#[derive(Serialize)]
struct HandlingLine {
    wakeup: i64,
    poll: i64,
    decode: i64,
    decoded: i64,
}

fn stamps(Seen { exchange, hop }: Seen<'_>) -> [(Key, Option<Stamp>); 15] {
    [
        (key!("intended"), Some(exchange.intended)),
        (key!("resolved"), exchange.resolved),
        (key!("transport_connected"), exchange.transport_connected),
        (key!("connected"), exchange.connected),
        (key!("written"), exchange.written),
        (key!("head"), exchange.head),
        (
            key!("first_token"),
            exchange.tokens.first().map(|mark| mark.at),
        ),
        (
            key!("last_token"),
            exchange.tokens.last().map(|mark| mark.at),
        ),
        (key!("end"), exchange.end),
        (key!("in_head"), hop.map(|hop| hop.in_head)),
        (key!("in_body"), hop.map(|hop| hop.in_body)),
        (key!("up_written"), hop.and_then(|hop| hop.up_written)),
        (
            key!("up_first_token"),
            hop.and_then(|hop| hop.up_token.first().copied()),
        ),
        (
            key!("out_first_token"),
            hop.and_then(|hop| hop.out_token.first().copied()),
        ),
        (key!("up_end"), hop.and_then(|hop| hop.up_end)),
    ]
}

/// Sum and number of an exchange's values, by figure.
#[derive(Default)]
pub(super) struct Sums([(i128, u64); Metric::ALL.len()]);

impl Sums {
    /// The figures that have values, with the sum and the number of theirs.
    fn values(&self) -> impl Iterator<Item = (Metric, i128, u64)> {
        let all = Metric::ALL.into_iter().zip(&self.0);
        all.filter(|(_, (_, count))| *count > 0)
            .map(|(metric, &(sum, count))| (metric, sum, count))
    }

    /// Takes those of an exchange in place of what was there.
    pub(super) fn become_those_of(&mut self, seen: Seen<'_>) {
        self.0.fill((0, 0));
        derive_into(seen.exchange, seen.hop, self);
    }

    /// The same; `recorder` and `sample` take its figures in the same go.
    pub(super) fn book(
        &mut self,
        seen: Seen<'_>,
        recorder: &mut Recorder,
        sample: &mut CellSample,
    ) {
        let Seen { exchange, hop } = seen;
        self.0.fill((0, 0));
        recorder.count(exchange, hop);
        let mut of_block = Both(sample, self);
        derive_into(exchange, hop, &mut Both(recorder, &mut of_block));
        sample.exchange_is_over();
    }
}

impl Figures for Sums {
    fn one(&mut self, metric: Metric, nanos: i64) {
        self.some(metric, &[nanos]);
    }

    fn some(&mut self, metric: Metric, values: &[i64]) {
        let (sum, count) = &mut self.0[metric.index()];
        *sum += exact_sum(values);
        *count += values.len() as u64;
    }
}

/// Every delta's stamps, written as they are read off the exchange: a reply may have a million.
struct TokenLines<'a>(Seen<'a>);

impl Serialize for TokenLines<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Seen { exchange, hop } = self.0;
        let since = |stamp: &Stamp| stamp.since(exchange.dispatched);
        let of_hop =
            |stamps: fn(&HopExchange) -> &[Stamp], k: usize| stamps(hop?).get(k).map(since);
        serializer.collect_seq(exchange.tokens.iter().enumerate().map(|(k, mark)| {
            TokenLine {
                at: since(&mark.at),
                chunk: mark.chunk,
                kind: mark.kind,
                up: of_hop(|hop| &hop.up_token, k),
                out: of_hop(|hop| &hop.out_token, k),
                sidecar: exchange
                    .sidecar
                    .as_ref()
                    .and_then(|spans| spans.get(k).copied()),
                handling: exchange.handling.get(k).map(|it| HandlingLine {
                    wakeup: it.wakeup(mark.at),
                    poll: it.poll(),
                    decode: it.decode(),
                    decoded: since(&it.decoded),
                }),
            }
        }))
    }
}
