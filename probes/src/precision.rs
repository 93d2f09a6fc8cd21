//! How narrow the intervals of the headline are, and whether a run that goes on until they are may end.
//!
//! Who looks at an interval again and again, and stops at the first that pleases, stops at one that is too narrow by chance.
//! So the looks are few, each at a fifth more blocks than the one before, none before [`FEWEST_BLOCKS`], and what is looked at
//! is the width alone, never where the interval lies (Chow and Robbins, "On the asymptotic theory of fixed-width sequential
//! confidence intervals for the mean", *Annals of Mathematical Statistics* 36, 1965). `tests/coverage.rs` shows what is left.

use serde::{Deserialize, Serialize};

use crate::metric::Metric;
use crate::record::RunRecord;
use crate::row::{Row, Transport};
use crate::stats::Statistic;

/// Blocks before the first look.
pub const FEWEST_BLOCKS: u32 = 20;

/// Figures of the headline: their medians, as changes against the baselines.
const HEADLINE: [Metric; 3] = [
    Metric::RoundtripOverhead,
    Metric::TokenOverhead,
    Metric::Ttft,
];

/// What a run goes on until.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Until {
    /// The farthest that an interval may reach from its change to either side: 0.02 is two percentage points.
    pub half_width: f64,
    /// Blocks before the first look.
    pub fewest_blocks: u32,
}

/// How far a run that goes on until its intervals are narrow has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Precision {
    /// What it goes on until.
    #[serde(flatten)]
    pub until: Until,
    /// All intervals of the headline are that narrow.
    pub reached: bool,
    /// Blocks so far.
    pub blocks: u32,
    /// Looks at the intervals so far, the last one included.
    pub looks: u32,
    /// The widest interval; `None` where nothing is compared.
    pub widest: Option<Widest>,
}

/// The widest interval of the headline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Widest {
    /// The row.
    pub row: Row,
    /// The baseline row.
    pub baseline: Row,
    /// The figure, whose block medians are compared.
    pub metric: Metric,
    /// How far it reaches from the change; `None`: it has no end, since there are too few blocks, or no ratio.
    pub half_width: Option<f64>,
}

impl Until {
    /// A run is looked at once it has so many blocks.
    pub fn looks_at(&self, blocks: u32) -> bool {
        let mut next = self.fewest_blocks.max(FEWEST_BLOCKS);
        while next < blocks {
            next = next.saturating_add(next.div_ceil(5));
        }
        next == blocks
    }

    /// How many looks a run of so many blocks has had.
    fn looks(&self, blocks: u32) -> u32 {
        (1..=blocks).filter(|count| self.looks_at(*count)).count() as u32
    }
}

impl Precision {
    /// Looks at a run; `None` where it goes on until something else.
    pub fn of(record: &RunRecord) -> Option<Self> {
        let until = record.until?;
        let blocks = record.block_count() as u32;
        let widest = widest(record);
        let reached = widest.as_ref().is_some_and(|widest| {
            let narrow = |width| width <= until.half_width;
            blocks >= FEWEST_BLOCKS && widest.half_width.is_some_and(narrow)
        });
        Some(Self {
            until,
            reached,
            blocks,
            looks: until.looks(blocks),
            widest,
        })
    }
}

fn widest(record: &RunRecord) -> Option<Widest> {
    let compared = |row: &&Row| row.transport != Transport::Direct && record.rows.contains(row);
    let mut widest: Option<Widest> = None;
    for &baseline in record.baselines.iter().filter(compared) {
        let others = record.rows.iter().filter(compared);
        for &row in others.filter(|row| **row != baseline) {
            // A ratio that is never given is not waited for.
            let given = |metric: &Metric| !record.withholds_ratios(*metric);
            for metric in HEADLINE.into_iter().filter(given) {
                let found = record.change_of(row, baseline, metric, Statistic::P50);
                if found.blocks == 0 {
                    continue;
                }
                let half_width = found.half_width();
                let beyond = |width: Option<f64>| width.unwrap_or(f64::INFINITY);
                if widest
                    .as_ref()
                    .is_none_or(|known| beyond(half_width) > beyond(known.half_width))
                {
                    widest = Some(Widest {
                        row,
                        baseline,
                        metric,
                        half_width,
                    });
                }
            }
        }
    }
    widest
}
