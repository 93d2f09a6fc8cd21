//! One line of `exchanges.jsonl`: an exchange with its stamps relative to `dispatched` and its figures.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cell::{CellSample, exact_sum};
use crate::clock::Stamp;
use crate::exchange::{DeltaKind, FailureKind, HopExchange, Outcome, TraceId, Usage};
use crate::figures::{Both, Figures, derive_into};
use crate::join::JoinedExchange;
use crate::metric::Metric;
use crate::recorder::Recorder;
use crate::row::Row;

/// Stamps of an exchange in nanoseconds since `dispatched`; those that were not reached are absent.
type Stamps = BTreeMap<&'static str, i64>;

#[derive(Serialize)]
pub(super) struct ExchangeLine<'a> {
    trace: TraceId,
    row: String,
    block: u32,
    session: u32,
    turn: u32,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<FailureKind>,
    /// The one absolute stamp: nanoseconds of the host's monotonic clock.
    dispatched: Stamp,
    stamps: Stamps,
    deltas: usize,
    chunks: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    joined: bool,
    /// Figures that an exchange has once.
    figures: BTreeMap<Metric, i64>,
    /// Means of the figures that an exchange has once per delta.
    means: BTreeMap<Metric, f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<TokenLines<'a>>,
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

/// What became of a delta once it had come, in nanoseconds.
#[derive(Serialize)]
struct HandlingLine {
    wakeup: u32,
    poll: u32,
    decode: u32,
}

impl<'a> ExchangeLine<'a> {
    /// The line of `joined`, whose figures `sums` took.
    pub(super) fn new(row: Row, joined: &'a JoinedExchange, sums: Sums, keep_tokens: bool) -> Self {
        let exchange = &joined.exchange;
        let (outcome, failure) = match exchange.outcome {
            Outcome::Complete => ("complete", None),
            Outcome::Truncated => ("truncated", None),
            Outcome::Cancelled => ("cancelled", None),
            Outcome::Failed(kind) => ("failed", Some(kind)),
        };
        let (figures, means) = figures(sums);
        Self {
            trace: exchange.trace,
            row: row.to_string(),
            block: exchange.place.block,
            session: exchange.place.session,
            turn: exchange.place.turn,
            outcome,
            failure,
            dispatched: exchange.dispatched,
            stamps: stamps(joined),
            deltas: exchange.tokens.len(),
            chunks: exchange.chunks,
            usage: exchange.usage,
            joined: joined.hop.is_some(),
            figures,
            means,
            tokens: keep_tokens.then_some(TokenLines(joined)),
        }
    }
}

fn stamps(joined: &JoinedExchange) -> Stamps {
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
    .into_iter()
    .filter_map(|(name, stamp)| Some((name, stamp?.since(exchange.dispatched))))
    .collect()
}

/// Figures that come once, and means of those that come once per delta.
fn figures(sums: Sums) -> (BTreeMap<Metric, i64>, BTreeMap<Metric, f64>) {
    let mut once = BTreeMap::new();
    let mut means = BTreeMap::new();
    for (metric, (sum, count)) in Metric::ALL.into_iter().zip(sums.0) {
        match count {
            0 => {}
            _ if metric.is_per_delta() => {
                means.insert(metric, sum as f64 / count as f64);
            }
            // One value is its own sum.
            _ => once.extend(i64::try_from(sum).ok().map(|nanos| (metric, nanos))),
        }
    }
    (once, means)
}

/// Sum and number of an exchange's values, by figure.
#[derive(Default)]
pub(super) struct Sums([(i128, u64); Metric::ALL.len()]);

impl Sums {
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
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
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
                    wakeup: it.wakeup,
                    poll: it.poll,
                    decode: it.decode,
                }),
            }
        }))
    }
}
