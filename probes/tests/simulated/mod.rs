//! Simulated runs of two rows whose true difference is known: drift, a step, noise with heavy tails.

use std::time::UNIX_EPOCH;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use tokenlag_probes::{
    Cell, CellSample, Change, Counters, DeltaKind, Exchange, Metric, Outcome, Place, Precision,
    Recorders, Report, Row, RunRecord, Seeds, Stamp, Statistic, Tallies, TokenMark, TraceId, Until,
    precision::FEWEST_BLOCKS,
};

/// The time to first token of an exchange of the baseline that nothing disturbs, in nanoseconds.
const BASE_NS: f64 = 1e6;
/// Exchanges of a cell.
const EXCHANGES: u32 = 8;
/// How far the machine drifts from one cell to the next, as a share: a trend, and a random walk around it.
const TREND: f64 = 0.005;
const WALK: f64 = 0.02;
/// What the machine loses, or wins back, in one step in the middle of the run.
const STEP: f64 = 0.3;

/// What disturbs the exchanges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noise {
    /// Factors: the ratio of the rows is what is true.
    Scales,
    /// Times that are added: the difference of the rows is what is true.
    Shifts,
    /// Factors, and one row has further ones of its own, all above one: its cells are skewed.
    ScalesOneRow,
}

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What disturbs it.
    pub noise: Noise,
    /// Blocks of a whole run.
    pub blocks: u32,
    /// The row's is this many times the baseline's.
    pub scale: f64,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            noise: Noise::Scales,
            blocks: 30,
            scale: 0.6,
        }
    }
}

/// Mean of the logarithms of the factors that one row has of its own: exponential.
const OWN: f64 = 0.15;

impl Plan {
    /// The true change.
    pub fn change(&self) -> f64 {
        let own = match self.noise {
            Noise::ScalesOneRow => OWN,
            Noise::Scales | Noise::Shifts => 0.0,
        };
        (self.scale.ln() + own).exp_m1()
    }

    /// The true difference, where noise is added.
    pub fn difference_ns(&self) -> f64 {
        BASE_NS * (self.scale - 1.0)
    }
}

/// A run that is simulated block by block.
pub struct Run {
    plan: Plan,
    random: ChaCha8Rng,
    drift: f64,
    stepped_at: u32,
    clock_ns: u64,
    /// The manifest so far.
    pub record: RunRecord,
}

impl Run {
    /// One without blocks yet.
    pub fn begin(plan: Plan, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut record = RunRecord::begin(
            "compare",
            UNIX_EPOCH,
            vec![Row::HTTP_COLD_FULL, Row::HTTP_FULL],
        );
        record.baselines = vec![Row::HTTP_COLD_FULL];
        record.seeds = Seeds {
            bootstrap: seed,
            ..Seeds::default()
        };
        Self {
            stepped_at: random.random_range(0..plan.blocks),
            plan,
            random,
            drift: 0.0,
            clock_ns: 1,
            record,
        }
    }

    /// A run of all blocks that its plan has.
    pub fn whole(plan: Plan, seed: u64) -> Self {
        let mut run = Self::begin(plan, seed);
        for block in 0..plan.blocks {
            run.block(block);
        }
        run
    }

    /// A run that goes on until its intervals reach no farther than `half_width`, or it has `most` blocks.
    pub fn until(plan: Plan, seed: u64, half_width: f64, most: u32) -> Self {
        let mut run = Self::begin(plan, seed);
        let until = Until {
            half_width,
            fewest_blocks: FEWEST_BLOCKS,
        };
        run.record.until = Some(until);
        for block in 0..most {
            run.block(block);
            if until.looks_at(block + 1)
                && Precision::of(&run.record).is_some_and(|found| found.reached)
            {
                break;
            }
        }
        run
    }

    /// Both rows take their turn, in random order.
    pub fn block(&mut self, block: u32) {
        if block == self.stepped_at {
            self.drift += if self.random.random() { STEP } else { -STEP };
        }
        let mut rows = [Row::HTTP_COLD_FULL, Row::HTTP_FULL];
        if self.random.random() {
            rows.swap(0, 1);
        }
        for (order, row) in (0..).zip(rows) {
            let cell = self.cell(block, order, row);
            self.record.cells.push(cell);
        }
    }

    /// The row's changes against the baseline in the median and in the 99th percentile, as the report gives them.
    pub fn changes(&self) -> [Change; 2] {
        let report = Report::build(&self.record, &Recorders::new());
        let row = report.row(Row::HTTP_FULL).expect("the row ran");
        let baseline = Row::HTTP_COLD_FULL.to_string();
        [Statistic::P50, Statistic::P99].map(|statistic| {
            let change = row.versus(&baseline, Metric::Ttft, statistic);
            change.expect("it is compared with the baseline").clone()
        })
    }

    fn cell(&mut self, block: u32, order: u32, row: Row) -> Cell {
        let started_ns = self.clock_ns;
        self.drift += TREND + WALK * normal(&mut self.random);
        let is_baseline = row == Row::HTTP_COLD_FULL;
        // Student's t of three degrees of freedom: some turns are disturbed as a whole, and by much.
        let mut disturbed = self.drift + 0.03 * student3(&mut self.random);
        if self.plan.noise == Noise::ScalesOneRow && !is_baseline {
            disturbed += OWN * exponential(&mut self.random);
        }
        let ours = BASE_NS * if is_baseline { 1.0 } else { self.plan.scale };
        let mut sample = CellSample::default();
        for session in 0..EXCHANGES {
            // Pareto's tail with an exponent of 1.5: a mean, and no variance.
            let tail = 0.05 * ((exponential(&mut self.random) / 1.5).exp() - 1.0);
            let nanos = match self.plan.noise {
                Noise::Shifts => ours + BASE_NS * (2.0 + disturbed + tail),
                Noise::Scales | Noise::ScalesOneRow => ours * disturbed.exp() * (1.0 + tail),
            };
            sample.finish(&self.exchange(block, session, nanos as u64), None);
        }
        Cell {
            block,
            row,
            order,
            started_ns,
            duration_ns: self.clock_ns - started_ns,
            parts: None,
            statistics: sample.statistics(),
            logged: Default::default(),
            tallies: Tallies::default(),
            counters: Counters::default(),
            leg: None,
            sockets: Default::default(),
        }
    }

    fn exchange(&mut self, block: u32, session: u32, nanos: u64) -> Exchange {
        let place = Place {
            block,
            session,
            turn: 0,
        };
        let start = Stamp::from_nanos(self.clock_ns);
        self.clock_ns += nanos;
        let trace = TraceId::from_bits(self.clock_ns.into());
        let mut exchange = Exchange::begin(trace, place, start, start, 1);
        exchange.tokens.push(TokenMark {
            at: Stamp::from_nanos(self.clock_ns),
            chunk: 0,
            kind: DeltaKind::Content,
        });
        exchange.outcome = Outcome::Complete;
        exchange
    }
}

/// Whether the interval of the ratio holds `truth`.
pub fn holds(found: &Change, truth: f64) -> bool {
    let ends = found.low.zip(found.high);
    ends.is_some_and(|(low, high)| (low..=high).contains(&truth))
}

fn exponential(random: &mut ChaCha8Rng) -> f64 {
    -(1.0 - random.random::<f64>()).ln()
}

/// Box and Muller's normal variate.
fn normal(random: &mut ChaCha8Rng) -> f64 {
    let radius = (2.0 * exponential(random)).sqrt();
    radius * (std::f64::consts::TAU * random.random::<f64>()).cos()
}

fn student3(random: &mut ChaCha8Rng) -> f64 {
    let squares: f64 = (0..3).map(|_| normal(random).powi(2)).sum();
    normal(random) / (squares / 3.0).sqrt()
}
