//! From stamps to figures: every derived figure of `docs/metrics.md`, for one exchange at a time.

use crate::clock::Stamp;
use crate::exchange::{DeltaKind, Exchange, HopExchange, Outcome, TokenMark};
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

/// Who takes figures: those of an exchange one by one, those of its deltas in slices, over which loops can be tight.
pub(crate) trait Figures {
    /// One value.
    fn one(&mut self, metric: Metric, nanos: i64);

    /// Values of a figure that each delta has, in order: one or more, at most [`TOGETHER`]. The next ones come in further calls.
    fn some(&mut self, metric: Metric, values: &[i64]);
}

/// Values that are handed on together: few enough to stay in the nearest cache until the last has taken them.
pub(crate) const TOGETHER: usize = 128;

struct OneByOne<'a, F>(&'a mut F);

impl<F: FnMut(Metric, i64)> Figures for OneByOne<'_, F> {
    fn one(&mut self, metric: Metric, nanos: i64) {
        (self.0)(metric, nanos);
    }

    fn some(&mut self, metric: Metric, values: &[i64]) {
        values.iter().for_each(|&nanos| (self.0)(metric, nanos));
    }
}

/// Two take the same figures, of which each is then derived once.
pub(crate) struct Both<'a, A, B>(pub(crate) &'a mut A, pub(crate) &'a mut B);

impl<A: Figures, B: Figures> Figures for Both<'_, A, B> {
    fn one(&mut self, metric: Metric, nanos: i64) {
        self.0.one(metric, nanos);
        self.1.one(metric, nanos);
    }

    fn some(&mut self, metric: Metric, values: &[i64]) {
        self.0.some(metric, values);
        self.1.some(metric, values);
    }
}

/// Values that wait to be handed on.
struct Room {
    values: [i64; TOGETHER],
    len: usize,
}

impl Room {
    const fn new() -> Self {
        Self {
            values: [0; TOGETHER],
            len: 0,
        }
    }

    /// Puts in the first [`TOGETHER`] of `values`, in place of what was there.
    fn fill(&mut self, values: impl ExactSizeIterator<Item = i64>) -> &[i64] {
        self.len = values.len().min(TOGETHER);
        let room = &mut self.values[..self.len];
        room.iter_mut()
            .zip(values)
            .for_each(|(slot, value)| *slot = value);
        room
    }

    /// Puts in magnitudes: what is zero or more here, the rest into `below`, each in place of what was there. Both are
    /// written to at each value and the sign says which keeps it: it is as good as a coin, and no branch can guess it.
    fn fill_by_sign(&mut self, below: &mut Room, values: impl Iterator<Item = i64>) {
        // Not fields: those would go through memory at each value.
        let (mut above_len, mut below_len) = (0, 0);
        for nanos in values.take(TOGETHER) {
            self.values[above_len] = nanos;
            below.values[below_len] = nanos.saturating_neg();
            let negative = usize::from(nanos < 0);
            below_len += negative;
            above_len += 1 - negative;
        }
        (self.len, below.len) = (above_len, below_len);
    }

    fn hand_on(&self, metric: Metric, sink: &mut impl Figures) {
        if self.len > 0 {
            sink.some(metric, &self.values[..self.len]);
        }
    }
}

/// `marks` in pieces with [`TOGETHER`] gaps each, so that each piece begins with the last mark of the one before.
fn pieces<T>(marks: &[T]) -> impl Iterator<Item = &[T]> {
    let starts = (0..marks.len().saturating_sub(1)).step_by(TOGETHER);
    starts.map(|from| &marks[from..marks.len().min(from + TOGETHER + 1)])
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
    let mut room = Room::new();
    for piece in pieces(tokens) {
        let gaps = piece.windows(2);
        sink.some(
            Metric::Itl,
            room.fill(gaps.map(|pair| pair[1].at.since(pair[0].at))),
        );
    }
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
    let both = exchange.tokens.len().min(hop.up_token.len());
    later_overheads(&exchange.tokens[..both], &hop.up_token[..both], sink);
}

/// Of the deltas that both ends have, without the first one: it is the subject of figures of its own.
fn later_overheads(tokens: &[TokenMark], up_token: &[Stamp], sink: &mut impl Figures) {
    let (mut room, mut below) = (Room::new(), Room::new());
    for (ours, theirs) in pieces(tokens).zip(pieces(up_token)) {
        let later = ours[1..].iter().zip(&theirs[1..]);
        sink.some(
            Metric::TokenOverhead,
            room.fill(later.map(|(mark, up)| mark.at.since(*up))),
        );
        let gaps = ours.windows(2).zip(theirs.windows(2));
        let spreads =
            gaps.map(|(ours, theirs)| ours[1].at.since(ours[0].at) - theirs[1].since(theirs[0]));
        room.fill_by_sign(&mut below, spreads);
        room.hand_on(Metric::GapStretch, sink);
        below.hand_on(Metric::GapBunch, sink);
    }
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
