//! One line of `exchanges.jsonl`: an exchange with its stamps relative to `dispatched` and its figures.

use std::io::{self, Write};

use serde::{Serialize, Serializer};

use super::object::Object;
use crate::cell::{CellSample, exact_sum};
use crate::clock::Stamp;
use crate::exchange::{DeltaKind, HopExchange, Outcome};
use crate::figures::{Both, Figures, derive_into};
use crate::join::JoinedExchange;
use crate::metric::Metric;
use crate::recorder::Recorder;
use crate::row::Row;

/// Writes the line of `joined`, whose figures `sums` took, by way of `text`, whose memory it uses.
pub(super) fn write(
    file: &mut impl Write,
    text: &mut Vec<u8>,
    row: Row,
    joined: &JoinedExchange,
    sums: &Sums,
    keep_tokens: bool,
) -> io::Result<()> {
    text.clear();
    let mut line = Object::begin(text);
    fill(&mut line, row, joined, sums);
    match keep_tokens {
        false => line.end(),
        true => {
            // Not by way of memory: there may be a million.
            file.write_all(text)?;
            file.write_all(b",\"tokens\":")?;
            serde_json::to_writer(&mut *file, &TokenLines(joined))?;
            text.clear();
            text.push(b'}');
        }
    }
    text.push(b'\n');
    file.write_all(text)
}

fn fill(line: &mut Object<'_>, row: Row, joined: &JoinedExchange, sums: &Sums) {
    let exchange = &joined.exchange;
    let (outcome, failure) = match exchange.outcome {
        Outcome::Complete => ("complete", None),
        Outcome::Truncated => ("truncated", None),
        Outcome::Cancelled => ("cancelled", None),
        Outcome::Failed(kind) => ("failed", Some(kind)),
    };
    line.say("trace", exchange.trace);
    line.say("row", row);
    line.set("block", exchange.place.block);
    line.set("session", exchange.place.session);
    line.set("turn", exchange.place.turn);
    line.say("outcome", outcome);
    if let Some(kind) = failure {
        line.say("failure", kind.name());
    }
    // The one absolute stamp: nanoseconds of the host's monotonic clock.
    line.set("dispatched", exchange.dispatched);
    line.nest("stamps", |line| {
        for (name, stamp) in stamps(joined) {
            // Those that were not reached are absent.
            if let Some(stamp) = stamp {
                line.set(name, stamp.since(exchange.dispatched));
            }
        }
    });
    line.set("deltas", exchange.tokens.len());
    line.set("chunks", exchange.chunks);
    if let Some(usage) = exchange.usage {
        line.set("usage", usage);
    }
    line.set("joined", joined.hop.is_some());
    line.nest("figures", |line| {
        for (metric, sum, _) in sums.values().filter(|(metric, ..)| !metric.is_per_delta()) {
            // What comes once is its own sum.
            if let Ok(nanos) = i64::try_from(sum) {
                line.set(metric.name(), nanos);
            }
        }
    });
    line.nest("means", |line| {
        for (metric, sum, count) in sums.values().filter(|(metric, ..)| metric.is_per_delta()) {
            line.set(metric.name(), sum as f64 / count as f64);
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

fn stamps(joined: &JoinedExchange) -> [(&'static str, Option<Stamp>); 15] {
    let JoinedExchange { exchange, hop } = joined;
    let hop = hop.as_ref();
    [
        ("intended", Some(exchange.intended)),
        ("resolved", exchange.resolved),
        ("transport_connected", exchange.transport_connected),
        ("connected", exchange.connected),
        ("written", exchange.written),
        ("head", exchange.head),
        ("first_token", exchange.tokens.first().map(|mark| mark.at)),
        ("last_token", exchange.tokens.last().map(|mark| mark.at)),
        ("end", exchange.end),
        ("in_head", hop.map(|hop| hop.in_head)),
        ("in_body", hop.map(|hop| hop.in_body)),
        ("up_written", hop.and_then(|hop| hop.up_written)),
        (
            "up_first_token",
            hop.and_then(|hop| hop.up_token.first().copied()),
        ),
        (
            "out_first_token",
            hop.and_then(|hop| hop.out_token.first().copied()),
        ),
        ("up_end", hop.and_then(|hop| hop.up_end)),
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

    pub(super) fn of(joined: &JoinedExchange) -> Self {
        let mut sums = Self::default();
        derive_into(&joined.exchange, joined.hop.as_ref(), &mut sums);
        sums
    }

    /// Those of `joined`, whose figures `recorder` and `sample` take in the same go.
    pub(super) fn booked(
        joined: &JoinedExchange,
        recorder: &mut Recorder,
        sample: &mut CellSample,
    ) -> Self {
        let JoinedExchange { exchange, hop } = joined;
        let mut sums = Self::default();
        recorder.count(exchange, hop.as_ref());
        let mut of_block = Both(sample, &mut sums);
        derive_into(exchange, hop.as_ref(), &mut Both(recorder, &mut of_block));
        sample.exchange_is_over();
        sums
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
struct TokenLines<'a>(&'a JoinedExchange);

impl Serialize for TokenLines<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let JoinedExchange { exchange, hop } = self.0;
        let since = |stamp: &Stamp| stamp.since(exchange.dispatched);
        let of_hop = |stamps: fn(&HopExchange) -> &[Stamp], k: usize| {
            stamps(hop.as_ref()?).get(k).map(since)
        };
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
