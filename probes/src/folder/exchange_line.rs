//! One line of `exchanges.jsonl`: an exchange with its stamps relative to `dispatched` and its figures.

use serde::{Serialize, Serializer};

use crate::cell::{CellSample, exact_sum};
use crate::clock::Stamp;
use crate::exchange::{DeltaKind, FailureKind, HopExchange, Outcome, TraceId, Usage};
use crate::figures::{Both, Figures, derive_into};
use crate::join::JoinedExchange;
use crate::metric::Metric;
use crate::recorder::Recorder;
use crate::row::Row;

#[derive(Serialize)]
pub(super) struct ExchangeLine<'a> {
    trace: TraceId,
    #[serde(serialize_with = "by_name")]
    row: Row,
    block: u32,
    session: u32,
    turn: u32,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<FailureKind>,
    /// The one absolute stamp: nanoseconds of the host's monotonic clock.
    dispatched: Stamp,
    stamps: Stamps<'a>,
    deltas: usize,
    chunks: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    joined: bool,
    figures: Once<'a>,
    means: Means<'a>,
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

/// What became of a delta once it had come, in nanoseconds, and when that was over, as it was stamped.
#[derive(Serialize)]
struct HandlingLine {
    wakeup: i64,
    poll: i64,
    decode: i64,
    decoded: i64,
}

impl<'a> ExchangeLine<'a> {
    /// The line of `joined`, whose figures `sums` took.
    pub(super) fn new(
        row: Row,
        joined: &'a JoinedExchange,
        sums: &'a Sums,
        keep_tokens: bool,
    ) -> Self {
        let exchange = &joined.exchange;
        let (outcome, failure) = match exchange.outcome {
            Outcome::Complete => ("complete", None),
            Outcome::Truncated => ("truncated", None),
            Outcome::Cancelled => ("cancelled", None),
            Outcome::Failed(kind) => ("failed", Some(kind)),
        };
        Self {
            trace: exchange.trace,
            row,
            block: exchange.place.block,
            session: exchange.place.session,
            turn: exchange.place.turn,
            outcome,
            failure,
            dispatched: exchange.dispatched,
            stamps: Stamps(joined),
            deltas: exchange.tokens.len(),
            chunks: exchange.chunks,
            usage: exchange.usage,
            joined: joined.hop.is_some(),
            figures: Once(sums),
            means: Means(sums),
            tokens: keep_tokens.then_some(TokenLines(joined)),
        }
    }
}

fn by_name<S: Serializer>(row: &Row, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(row)
}

/// Stamps of an exchange in nanoseconds since `dispatched`; those that were not reached are absent.
struct Stamps<'a>(&'a JoinedExchange);

impl Serialize for Stamps<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let reached = stamps(self.0).into_iter();
        let dispatched = self.0.exchange.dispatched;
        let since = |(name, stamp): (_, Option<Stamp>)| Some((name, stamp?.since(dispatched)));
        serializer.collect_map(reached.filter_map(since))
    }
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

/// Figures that an exchange has once.
struct Once<'a>(&'a Sums);

impl Serialize for Once<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let values = self
            .0
            .values()
            .filter(|(metric, ..)| !metric.is_per_delta());
        // One value is its own sum.
        let once = values.filter_map(|(metric, sum, _)| {
            let nanos = i64::try_from(sum).ok()?;
            Some((metric.name(), nanos))
        });
        serializer.collect_map(once)
    }
}

/// Means of the figures that an exchange has once per delta.
struct Means<'a>(&'a Sums);

impl Serialize for Means<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let values = self.0.values().filter(|(metric, ..)| metric.is_per_delta());
        let means = values.map(|(metric, sum, count)| (metric.name(), sum as f64 / count as f64));
        serializer.collect_map(means)
    }
}

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
