//! What was measured, beside what the instrument knows: errors in nanoseconds.

use std::collections::HashMap;

use tokenlag_probes::metric::Metric;
use tokenlag_probes::{
    Exchange, HopExchange, JoinedExchange, Outcome, Recorder, Stamp, TraceId, derive,
};
use tokenlag_scripted::ReceivedRequest;

/// A set of values, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    pub mean: f64,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

/// How far measured values are from true ones.
#[derive(Debug, Default)]
pub struct Errors {
    /// Measured minus true time to the first token.
    pub ttft: Spread,
    /// Measured minus true gap, whichever way.
    pub gap: Spread,
    /// The gaps as they were measured, and as they were.
    pub gap_measured: Spread,
    pub gap_true: Spread,
    /// Tokens that were written and not read.
    pub lost: u64,
    /// Exchanges to which nothing was written, as where no connection could be had.
    pub unanswered: u64,
    pub exchanges: usize,
    /// What only a proxy has.
    pub proxied: Option<Proxied>,
}

/// Errors of what is derived from both ends.
#[derive(Debug, Default)]
pub struct Proxied {
    /// The upstream stamp minus the emission.
    pub tap: Spread,
    /// `token - emitted`: how late a token really was.
    pub late: Spread,
    /// `token_overhead` as it is reported minus its truth, `token - emitted` minus the tap's lateness: of means, and of 99th
    /// percentiles.
    pub overhead_mean: f64,
    pub overhead_p99: f64,
    /// The leg `model_ttft` minus the time from the request's read to the first emission.
    pub model: Spread,
    /// The most by which legs miss their sum.
    pub legs: f64,
    /// Complete exchanges without the proxy's record.
    pub unjoined: u64,
}

pub fn compare(
    exchanges: &[JoinedExchange],
    emissions: &HashMap<TraceId, Vec<Stamp>>,
    requests: &[ReceivedRequest],
) -> Errors {
    let mut errors = Errors::default();
    let (mut ttft, mut gaps) = (Vec::new(), Vec::new());
    let (mut measured, mut truth) = (Vec::new(), Vec::new());
    let mut sides = Sides::default();
    let empty = Vec::new();
    for JoinedExchange { exchange, hop } in exchanges {
        let emitted = emissions.get(&exchange.trace).unwrap_or(&empty);
        let tokens: Vec<Stamp> = exchange.tokens.iter().map(|mark| mark.at).collect();
        errors.lost += (emitted.len() as u64).saturating_sub(tokens.len() as u64);
        errors.unanswered += u64::from(emitted.is_empty());
        errors.exchanges += 1;
        if let (Some(token), Some(emission)) = (tokens.first(), emitted.first()) {
            ttft.push(token.since(*emission) as f64);
        }
        for (ours, theirs) in tokens.windows(2).zip(emitted.windows(2)) {
            let gap = ours[1].since(ours[0]) as f64;
            let true_gap = theirs[1].since(theirs[0]) as f64;
            measured.push(gap);
            truth.push(true_gap);
            gaps.push((gap - true_gap).abs());
        }
        match hop {
            Some(hop) => sides.add(exchange, hop, &tokens, emitted),
            None => sides.unjoined += u64::from(exchange.outcome == Outcome::Complete),
        }
    }
    errors.ttft = Spread::of(ttft);
    errors.gap = Spread::of(gaps);
    errors.gap_measured = Spread::of(measured);
    errors.gap_true = Spread::of(truth);
    if !sides.tap.is_empty() {
        errors.proxied = Some(sides.finish(requests));
    }
    errors
}

/// What both ends say, collected.
#[derive(Default)]
struct Sides {
    tap: Vec<f64>,
    late: Vec<f64>,
    overhead: Vec<f64>,
    recorder: Recorder,
    /// By trace: the leg, and the first emission.
    models: HashMap<TraceId, (i64, Stamp)>,
    legs: f64,
    unjoined: u64,
}

impl Sides {
    fn add(&mut self, exchange: &Exchange, hop: &HopExchange, tokens: &[Stamp], emitted: &[Stamp]) {
        self.recorder.finish(exchange, Some(hop));
        for (k, ((token, up), emission)) in
            tokens.iter().zip(&hop.up_token).zip(emitted).enumerate()
        {
            let (late, tap) = (token.since(*emission) as f64, up.since(*emission) as f64);
            self.tap.push(tap);
            self.late.push(late);
            if k > 0 {
                self.overhead.push(late - tap);
            }
        }
        let (mut legs, mut model) = (0, None);
        derive(exchange, Some(hop), &mut |metric, nanos| {
            if Metric::LEGS.contains(&metric) {
                legs += nanos;
            }
            if metric == Metric::ModelTtft {
                model = Some(nanos);
            }
        });
        if let (Some(model), Some(emission), Some(token)) = (model, emitted.first(), tokens.first())
        {
            self.models.insert(exchange.trace, (model, *emission));
            let whole = token.since(exchange.dispatched);
            self.legs = self.legs.max((legs - whole).abs() as f64);
        }
    }

    fn finish(self, requests: &[ReceivedRequest]) -> Proxied {
        let of_request = |request: &ReceivedRequest| {
            let (model, emission) = self.models.get(&request.trace?)?;
            Some((model - emission.since(request.at)) as f64)
        };
        let model = requests.iter().filter_map(of_request).collect();
        let reported = self.recorder.summary(Metric::TokenOverhead);
        let truth = Spread::of(self.overhead);
        Proxied {
            tap: Spread::of(self.tap),
            late: Spread::of(self.late),
            overhead_mean: reported.map_or(f64::NAN, |found| found.mean - truth.mean),
            overhead_p99: reported.map_or(f64::NAN, |found| found.p99 as f64 - truth.p99),
            model: Spread::of(model),
            legs: self.legs,
            unjoined: self.unjoined,
        }
    }
}

impl Spread {
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let Some(&max) = values.last() else {
            return Self::default();
        };
        let rank = |share: f64| {
            let rank = (share * values.len() as f64).ceil() as usize;
            values[rank.clamp(1, values.len()) - 1]
        };
        Self {
            mean: values.iter().sum::<f64>() / values.len() as f64,
            p50: rank(0.5),
            p99: rank(0.99),
            max,
        }
    }
}
