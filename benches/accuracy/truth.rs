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

/// Measured values beside true ones, collected.
#[derive(Default)]
pub struct Comparison {
    ttft: Vec<f64>,
    gaps: Vec<f64>,
    measured: Vec<f64>,
    truth: Vec<f64>,
    lost: u64,
    unanswered: u64,
    sides: Sides,
}

/// Emissions of each exchange, as the instrument kept them.
pub type Emissions = HashMap<TraceId, Vec<Stamp>>;

impl Comparison {
    /// Adds the tokens of one exchange, as they were stamped; gives what was emitted.
    pub fn add<'a>(
        &mut self,
        trace: TraceId,
        tokens: &[Stamp],
        emissions: &'a Emissions,
    ) -> &'a [Stamp] {
        let emitted = emissions.get(&trace).map_or(&[][..], Vec::as_slice);
        self.lost += (emitted.len() as u64).saturating_sub(tokens.len() as u64);
        self.unanswered += u64::from(emitted.is_empty());
        if let (Some(token), Some(emission)) = (tokens.first(), emitted.first()) {
            self.ttft.push(token.since(*emission) as f64);
        }
        for (ours, theirs) in tokens.windows(2).zip(emitted.windows(2)) {
            let gap = ours[1].since(ours[0]) as f64;
            let true_gap = theirs[1].since(theirs[0]) as f64;
            self.measured.push(gap);
            self.truth.push(true_gap);
            self.gaps.push((gap - true_gap).abs());
        }
        emitted
    }

    /// Adds what the load generator measured, and the proxy where there is one.
    pub fn add_joined(
        &mut self,
        exchanges: &[JoinedExchange],
        emissions: &Emissions,
        requests: &[ReceivedRequest],
    ) {
        for JoinedExchange { exchange, hop } in exchanges {
            let tokens: Vec<Stamp> = exchange.tokens.iter().map(|mark| mark.at).collect();
            let emitted = self.add(exchange.trace, &tokens, emissions);
            match hop {
                Some(hop) => self.sides.add(exchange, hop, &tokens, emitted),
                None => self.sides.unjoined += u64::from(exchange.outcome == Outcome::Complete),
            }
        }
        self.sides.requested(requests);
    }

    /// Where a round begins.
    pub fn mark(&self) -> Mark {
        Mark {
            ttft: self.ttft.len(),
            gap: self.truth.len(),
        }
    }

    /// The round that began there.
    pub fn glance(&self, mark: Mark) -> Glance {
        let p99 = |gaps: &[f64]| Spread::of(gaps[mark.gap..].to_vec()).p99;
        Glance {
            ttft: Spread::of(self.ttft[mark.ttft..].to_vec()).mean,
            told: p99(&self.measured),
            emitted: p99(&self.truth),
        }
    }

    pub fn finish(self) -> Errors {
        Errors {
            ttft: Spread::of(self.ttft),
            gap: Spread::of(self.gaps),
            gap_measured: Spread::of(self.measured),
            gap_true: Spread::of(self.truth),
            lost: self.lost,
            unanswered: self.unanswered,
            proxied: (!self.sides.tap.is_empty()).then(|| self.sides.finish()),
        }
    }
}

/// So many values there were before.
#[derive(Clone, Copy)]
pub struct Mark {
    ttft: usize,
    gap: usize,
}

/// A round in three figures: the mean error of ttft, and the 99th percentiles of the gaps, as they were told and emitted.
#[derive(Clone, Copy, Debug)]
pub struct Glance {
    pub ttft: f64,
    pub told: f64,
    pub emitted: f64,
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
    /// The leg's error.
    model: Vec<f64>,
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

    fn requested(&mut self, requests: &[ReceivedRequest]) {
        let of_request = |request: &ReceivedRequest| {
            let (model, emission) = self.models.get(&request.trace?)?;
            Some((model - emission.since(request.at)) as f64)
        };
        self.model.extend(requests.iter().filter_map(of_request));
    }

    fn finish(self) -> Proxied {
        let reported = self.recorder.summary(Metric::TokenOverhead);
        let truth = Spread::of(self.overhead);
        Proxied {
            tap: Spread::of(self.tap),
            late: Spread::of(self.late),
            overhead_mean: reported.map_or(f64::NAN, |found| found.mean - truth.mean),
            overhead_p99: reported.map_or(f64::NAN, |found| found.p99 as f64 - truth.p99),
            model: Spread::of(self.model),
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
