//! From stamps to figures: every derived figure of `docs/metrics.md`, for one exchange at a time.

use crate::clock::Stamp;
use crate::exchange::{DeltaKind, Exchange, HopExchange, Outcome};
use crate::metric::Metric;

/// Derives every figure that `exchange` has, in nanoseconds, and hands each to `sink`; figures of single deltas come once per delta.
///
/// - An exchange that is not [`Outcome::Complete`] has no figures: failures never enter a latency histogram.
/// - `hop` is the proxy's record of the same exchange, as [`join`](crate::join::join) paired it. Without it, or where the
///   proxy answered by itself, or where the reply overlapped the request, the figures that need both ends are absent.
/// - Values are signed: a negative one is handed on as it is.
pub fn derive(exchange: &Exchange, hop: Option<&HopExchange>, sink: &mut impl FnMut(Metric, i64)) {
    derive_into(exchange, hop, &mut OneByOne(sink));
}

/// Who takes figures: those of an exchange one by one, those of its deltas in loops that it can make tight.
pub(crate) trait Figures {
    /// One value.
    fn one(&mut self, metric: Metric, nanos: i64);

    /// A value for each delta.
    fn each(&mut self, metric: Metric, values: impl Iterator<Item = i64>) {
        values.for_each(|nanos| self.one(metric, nanos));
    }

    /// A value for each delta, as a magnitude: of `below` where it is less than zero, else of `above`.
    fn each_by_sign(&mut self, above: Metric, below: Metric, values: impl Iterator<Item = i64>) {
        // The sign is as good as a coin: it is chosen by it, not branched on.
        let metrics = [above, below];
        values.for_each(|nanos| self.one(metrics[usize::from(nanos < 0)], nanos.saturating_abs()));
    }
}

struct OneByOne<'a, F>(&'a mut F);

impl<F: FnMut(Metric, i64)> Figures for OneByOne<'_, F> {
    fn one(&mut self, metric: Metric, nanos: i64) {
        (self.0)(metric, nanos);
    }
}

/// [`derive`], for those who take the figures of many deltas at once.
pub(crate) fn derive_into(exchange: &Exchange, hop: Option<&HopExchange>, sink: &mut impl Figures) {
    if exchange.outcome != Outcome::Complete {
        return;
    }
    client_figures(exchange, sink);
    if let Some(edge) = hop.and_then(ModelEdge::of) {
        overheads(exchange, &edge, sink);
        legs(exchange, &edge, sink);
    }
}

/// A hop whose exchange really went upstream, after its request had ended.
struct ModelEdge<'a> {
    hop: &'a HopExchange,
    written: Stamp,
}

impl<'a> ModelEdge<'a> {
    fn of(hop: &'a HopExchange) -> Option<Self> {
        let written = hop.up_written?;
        (!hop.overlapped).then_some(Self { hop, written })
    }
}

fn client_figures(exchange: &Exchange, sink: &mut impl Figures) {
    let Exchange {
        intended,
        dispatched,
        tokens,
        ..
    } = exchange;
    // In a closed loop the two are one stamp, and then there is no lag to speak of.
    if intended != dispatched {
        sink.one(Metric::DispatchLag, dispatched.since(*intended));
    }
    if let Some(connected) = exchange.connected {
        sink.one(Metric::Setup, connected.since(*dispatched));
    }
    if let Some(first) = tokens.first() {
        sink.one(Metric::Ttft, first.at.since(*intended));
        sink.one(Metric::TtftDispatched, first.at.since(*dispatched));
        let visible = tokens.iter().find(|mark| mark.kind == DeltaKind::Content);
        if let Some(visible) = visible.filter(|_| first.kind != DeltaKind::Content) {
            sink.one(Metric::TtftVisible, visible.at.since(*intended));
        }
    }
    let gaps = tokens.windows(2);
    sink.each(Metric::Itl, gaps.map(|pair| pair[1].at.since(pair[0].at)));
    if let Some(mean) = time_per_output_token(exchange) {
        sink.one(Metric::Tpot, mean);
    }
    if let Some(end) = exchange.end {
        sink.one(Metric::Roundtrip, end.since(*intended));
        sink.one(Metric::RoundtripDispatched, end.since(*dispatched));
    }
}

/// Absent below two tokens; and below two deltas, where all tokens came at one moment and none was waited for.
/// Without `usage` the deltas are counted instead, and the row is labelled `per_delta`.
fn time_per_output_token(exchange: &Exchange) -> Option<i64> {
    let [first, .., last] = exchange.tokens.as_slice() else {
        return None;
    };
    let tokens = match exchange.usage {
        Some(usage) => i64::try_from(usage.output).ok()?,
        None => exchange.tokens.len() as i64,
    };
    (tokens >= 2).then(|| {
        let span = last.at.since(first.at) as f64;
        (span / (tokens - 1) as f64).round() as i64
    })
}

fn overheads(exchange: &Exchange, edge: &ModelEdge<'_>, sink: &mut impl Figures) {
    let hop = edge.hop;
    if let (Some(first), Some(up_first)) = (exchange.tokens.first(), hop.up_token.first()) {
        let model = up_first.since(edge.written);
        sink.one(Metric::ModelTtft, model);
        sink.one(
            Metric::FirstTokenOverhead,
            first.at.since(exchange.dispatched) - model,
        );
    }
    if let Some(up_end) = hop.up_end {
        let model = up_end.since(edge.written);
        sink.one(Metric::ModelTime, model);
        if let Some(end) = exchange.end {
            sink.one(
                Metric::RoundtripOverhead,
                end.since(exchange.dispatched) - model,
            );
        }
    }
    // The first token is the subject of figures of its own.
    let later = exchange.tokens.iter().zip(&hop.up_token).skip(1);
    sink.each(
        Metric::TokenOverhead,
        later.map(|(mark, up)| mark.at.since(*up)),
    );
    let gaps = exchange.tokens.windows(2).zip(hop.up_token.windows(2));
    let spreads =
        gaps.map(|(ours, theirs)| ours[1].at.since(ours[0].at) - theirs[1].since(theirs[0]));
    sink.each_by_sign(Metric::GapStretch, Metric::GapBunch, spreads);
}

fn legs(exchange: &Exchange, edge: &ModelEdge<'_>, sink: &mut impl Figures) {
    let hop = edge.hop;
    if let Some(connected) = exchange.connected {
        sink.one(Metric::RequestTransfer, hop.in_body.since(connected));
    }
    sink.one(Metric::ProxyRequest, edge.written.since(hop.in_body));
    if let (Some(up), Some(out)) = (hop.up_token.first(), hop.out_token.first()) {
        sink.one(Metric::ProxyToken, out.since(*up));
        if let Some(first) = exchange.tokens.first() {
            sink.one(Metric::Delivery, first.at.since(*out));
        }
    }
}

#[cfg(test)]
#[path = "figures_tests.rs"]
mod tests;
