//! Comparing two rows block by block: a ratio on the log scale with its 95 % interval, and the plain difference beside it.
//!
//! Rows take turns in short blocks, so what drifts in a run hits both rows of a block and leaves their ratio alone. The
//! block is the unit of chance: exchanges within one are not independent, blocks nearly are.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::bootstrap::{Estimate, IntervalMethod, estimate};
use crate::cell::CellFigure;

/// Which statistic of a block is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// The median.
    P50,
    /// The 99th percentile.
    P99,
    /// The arithmetic mean.
    Mean,
}

impl Statistic {
    /// The name in JSON and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::Mean => "mean",
        }
    }
}

impl fmt::Display for Statistic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that no statistic has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown statistic '{0}'; known: p50, p99, mean")]
pub struct UnknownStatistic(String);

impl FromStr for Statistic {
    type Err = UnknownStatistic;

    fn from_str(name: &str) -> Result<Self, UnknownStatistic> {
        [Self::P50, Self::P99, Self::Mean]
            .into_iter()
            .find(|statistic| statistic.name() == name)
            .ok_or_else(|| UnknownStatistic(name.to_owned()))
    }
}

/// One figure of one row over a run's blocks, by block.
pub type Blocks = BTreeMap<u32, CellFigure>;

/// How a row's statistic differs from a baseline's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Ratio to the baseline minus 1 (-0.4: 40 % less): geometric mean of the blocks' ratios. `None` where some block's statistic
    /// is zero or less, so that it has no logarithm, where no block has both rows, or where it is withheld; then only `difference` stands.
    pub change: Option<f64>,
    /// Lower end of its 95 % interval; `None` with fewer than two blocks.
    pub low: Option<f64>,
    /// Upper end of its 95 % interval.
    pub high: Option<f64>,
    /// Blocks in which both rows have the figure.
    pub blocks: u32,
    /// Pairs of exchanges behind it: over the blocks, the smaller of the two rows' numbers of exchanges.
    pub pairs: u64,
    /// How the intervals were computed; `None` with fewer than two blocks.
    pub interval: Option<IntervalMethod>,
    /// Row minus baseline, averaged over the blocks; `None` where no block has both rows.
    pub difference: Option<Difference>,
    /// Blocks in which one of the statistics is zero or less: more than none withholds the ratio.
    #[serde(default)]
    pub without_logarithm: u32,
    /// Why there is no ratio although it could be computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withheld: Option<Withheld>,
}

/// Why a ratio that could be computed is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Withheld {
    /// The figure is a difference of stamps of two clocks: what their offset is off by would be in both terms of the ratio.
    Clocks,
    /// The figure is net of the floor, and the interval of the baseline's own reaches zero: it would be a share of nothing.
    Floor,
}

/// A difference of two rows in nanoseconds, with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Row minus baseline, mean over the blocks.
    pub mean_ns: f64,
    /// Lower end; `None` with fewer than two blocks.
    pub low_ns: Option<f64>,
    /// Upper end.
    pub high_ns: Option<f64>,
}

impl Change {
    /// The same without its ratio, for a reason; the difference stands alone.
    pub(crate) fn without_ratio(self, why: Withheld) -> Self {
        Self {
            change: None,
            low: None,
            high: None,
            withheld: Some(why),
            ..self
        }
    }

    /// How far the interval of the ratio reaches to its farther side; `None` without one.
    pub fn half_width(&self) -> Option<f64> {
        let (low, high) = self.low.zip(self.high)?;
        let change = self.change?;
        Some((change - low).max(high - change))
    }

    /// The interval excludes zero: on the ratio where there is one, else on the difference.
    pub fn is_distinguishable(&self) -> bool {
        let bounds = match (self.change, self.difference) {
            (Some(_), _) => self.low.zip(self.high),
            (None, Some(difference)) => difference.low_ns.zip(difference.high_ns),
            (None, None) => None,
        };
        bounds.is_some_and(|(low, high)| low > 0.0 || high < 0.0)
    }
}

/// Compares `statistic` of two rows over the blocks that both have.
///
/// For each block the logarithm of the ratio row / baseline; their mean `m` gives `change = exp(m) - 1`; the 95 % interval is a
/// bootstrap-t over blocks (see [`estimate`]), seeded, so that the same run gives the same interval.
pub fn change(row: &Blocks, baseline: &Blocks, statistic: Statistic, seed: u64) -> Change {
    let both: Vec<(&CellFigure, &CellFigure)> = row
        .iter()
        .filter_map(|(block, figure)| Some((figure, baseline.get(block)?)))
        .collect();
    let values = || {
        both.iter()
            .map(|(ours, theirs)| (ours.statistic(statistic), theirs.statistic(statistic)))
    };
    let without_logarithm = values().filter(|(a, b)| *a <= 0.0 || *b <= 0.0).count() as u32;

    let differences: Vec<f64> = values().map(|(ours, theirs)| ours - theirs).collect();
    let difference = estimate(&differences, seed);
    let ratio = if without_logarithm == 0 {
        let logarithms: Vec<f64> = values().map(|(a, b)| (a / b).ln()).collect();
        estimate(&logarithms, seed)
    } else {
        None
    };
    Change {
        change: ratio.map(|log| log.mean.exp_m1()),
        low: ratio.and_then(|log| Some(log.low?.exp_m1())),
        high: ratio.and_then(|log| Some(log.high?.exp_m1())),
        blocks: both.len() as u32,
        pairs: both.iter().map(|(a, b)| a.exchanges.min(b.exchanges)).sum(),
        interval: difference.and_then(|estimate| estimate.method),
        difference: difference.map(
            |Estimate {
                 mean, low, high, ..
             }| Difference {
                mean_ns: mean,
                low_ns: low,
                high_ns: high,
            },
        ),
        without_logarithm,
        withheld: None,
    }
}

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;
