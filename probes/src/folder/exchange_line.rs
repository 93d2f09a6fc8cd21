//! One line of `exchanges.jsonl`: an exchange with its stamps relative to `dispatched` and its figures.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::clock::Stamp;
use crate::exchange::{DeltaKind, FailureKind, Outcome, TraceId, Usage};
use crate::figures::derive;
use crate::join::JoinedExchange;
use crate::metric::Metric;
use crate::row::Row;

/// Stamps of an exchange in nanoseconds since `dispatched`; those that were not reached are absent.
type Stamps = BTreeMap<&'static str, i64>;

#[derive(Serialize)]
pub(super) struct ExchangeLine {
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
    tokens: Option<Vec<TokenLine>>,
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
}

impl ExchangeLine {
    pub(super) fn new(row: Row, joined: &JoinedExchange, keep_tokens: bool) -> Self {
        let exchange = &joined.exchange;
        let (outcome, failure) = match exchange.outcome {
            Outcome::Complete => ("complete", None),
            Outcome::Truncated => ("truncated", None),
            Outcome::Cancelled => ("cancelled", None),
            Outcome::Failed(kind) => ("failed", Some(kind)),
        };
        let (figures, means) = figures(joined);
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
            tokens: keep_tokens.then(|| tokens(joined)),
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
fn figures(joined: &JoinedExchange) -> (BTreeMap<Metric, i64>, BTreeMap<Metric, f64>) {
    let mut values: BTreeMap<Metric, Vec<i64>> = BTreeMap::new();
    derive(
        &joined.exchange,
        joined.hop.as_ref(),
        &mut |metric, nanos| {
            values.entry(metric).or_default().push(nanos);
        },
    );
    let mut once = BTreeMap::new();
    let mut means = BTreeMap::new();
    for (metric, values) in values {
        if metric.is_per_delta() {
            let sum: i128 = values.iter().map(|&nanos| i128::from(nanos)).sum();
            means.insert(metric, sum as f64 / values.len() as f64);
        } else {
            once.extend(values.first().map(|&nanos| (metric, nanos)));
        }
    }
    (once, means)
}

fn tokens(joined: &JoinedExchange) -> Vec<TokenLine> {
    let JoinedExchange { exchange, hop } = joined;
    let since = |stamp: &Stamp| stamp.since(exchange.dispatched);
    exchange
        .tokens
        .iter()
        .enumerate()
        .map(|(k, mark)| TokenLine {
            at: since(&mark.at),
            chunk: mark.chunk,
            kind: mark.kind,
            up: hop.as_ref().and_then(|hop| hop.up_token.get(k)).map(since),
            out: hop.as_ref().and_then(|hop| hop.out_token.get(k)).map(since),
        })
        .collect()
}
