//! `--fail-if`: a condition on a report, by which scripts and pipelines fail.

use std::fmt;
use std::str::FromStr;

use tokenlag_probes::{Metric, Report, RowReport, Summary};

use crate::rows::RowName;

/// A condition such as `ws/incremental.ttft.p99 > 50ms`. Without a row it is about every row.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    text: String,
    row: Option<RowName>,
    metric: Metric,
    statistic: Statistic,
    above: bool,
    nanos: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Statistic {
    Mean,
    Std,
    Min,
    P50,
    P90,
    P99,
    P999,
    Max,
}

const STATISTICS: [(&str, Statistic); 8] = [
    ("mean", Statistic::Mean),
    ("std", Statistic::Std),
    ("min", Statistic::Min),
    ("p50", Statistic::P50),
    ("p90", Statistic::P90),
    ("p99", Statistic::P99),
    ("p999", Statistic::P999),
    ("max", Statistic::Max),
];

/// A threshold that holds, or cannot be judged: both fail a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Crossed(String);

impl fmt::Display for Crossed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Threshold {
    /// Where the report meets the condition. A figure that the report lacks is no proof that all is well.
    pub fn crossed(&self, report: &Report) -> Vec<Crossed> {
        let named = |row: &&RowReport| self.row.is_none_or(|name| name.0 == row.row);
        let rows: Vec<&RowReport> = report.channels.iter().filter(named).collect();
        let judged: Vec<(&RowReport, f64)> = rows
            .iter()
            .filter_map(|row| Some((*row, self.statistic.of(row.metrics.get(&self.metric)?))))
            .collect();
        if judged.is_empty() {
            let missing = format!(
                "'{}' cannot be judged: the run has no such figure",
                self.text
            );
            return vec![Crossed(missing)];
        }
        judged
            .into_iter()
            .filter(|(_, value)| {
                if self.above {
                    *value > self.nanos
                } else {
                    *value < self.nanos
                }
            })
            .map(|(row, value)| {
                let found = format!("{:.3} ms", value / 1e6);
                Crossed(format!("'{}': {} is at {found}", self.text, row.row))
            })
            .collect()
    }
}

impl Statistic {
    fn of(self, summary: &Summary) -> f64 {
        match self {
            Self::Mean => summary.mean,
            Self::Std => summary.std,
            Self::Min => summary.min as f64,
            Self::P50 => summary.p50 as f64,
            Self::P90 => summary.p90 as f64,
            Self::P99 => summary.p99 as f64,
            Self::P999 => summary.p999 as f64,
            Self::Max => summary.max as f64,
        }
    }
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (figure, above, limit) = if let Some((figure, limit)) = text.split_once('>') {
            (figure, true, limit)
        } else if let Some((figure, limit)) = text.split_once('<') {
            (figure, false, limit)
        } else {
            return Err("a condition is written 'ws/incremental.ttft.p99 > 50ms'".to_owned());
        };
        let parts: Vec<&str> = figure.trim().split('.').collect();
        let (row, metric, statistic) = match parts[..] {
            [metric, statistic] => (None, metric, statistic),
            [row, metric, statistic] => (Some(row.parse()?), metric, statistic),
            _ => {
                return Err(format!(
                    "'{}' is no figure; write [ROW.]METRIC.STATISTIC",
                    figure.trim()
                ));
            }
        };
        Ok(Self {
            text: text.trim().to_owned(),
            row,
            metric: metric
                .parse()
                .map_err(|error: <Metric as FromStr>::Err| error.to_string())?,
            statistic: statistic_of(statistic)?,
            above,
            nanos: nanos(limit.trim())?,
        })
    }
}

fn statistic_of(name: &str) -> Result<Statistic, String> {
    let found = STATISTICS.iter().find(|(known, _)| *known == name);
    found.map(|(_, statistic)| *statistic).ok_or_else(|| {
        let known: Vec<&str> = STATISTICS.iter().map(|(name, _)| *name).collect();
        format!("unknown statistic '{name}'; known: {}", known.join(", "))
    })
}

/// A span with its unit, in nanoseconds; fractions are welcome.
fn nanos(text: &str) -> Result<f64, String> {
    let bad = || format!("'{text}' is no span; write it like 50ms, 1.5s or 80us");
    let unit_at = text
        .find(|c: char| c.is_alphabetic() || c == 'µ')
        .ok_or_else(bad)?;
    let (number, unit) = text.split_at(unit_at);
    let scale = match unit.trim() {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        _ => return Err(bad()),
    };
    let number: f64 = number.trim().parse().map_err(|_| bad())?;
    Ok(number * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read() {
        let threshold: Threshold = "ws/incremental.ttft.p99 > 50ms".parse().unwrap();
        assert_eq!(threshold.metric, Metric::Ttft);
        assert_eq!(threshold.nanos, 50e6);
        assert!(threshold.above);
        let threshold: Threshold = "token_overhead.p50<1.5us".parse().unwrap();
        assert_eq!(threshold.row, None);
        assert_eq!(threshold.nanos, 1_500.0);
    }

    #[test]
    fn what_is_wrong_with_a_condition_is_said() {
        for (text, part) in [
            ("ttft.p99", "a condition is written"),
            ("ttfb.p99 > 1s", "unknown metric 'ttfb'"),
            ("ttft.p98 > 1s", "unknown statistic 'p98'"),
            ("ttft.p99 > 50", "is no span"),
            ("smtp/full.ttft.p99 > 50ms", "unknown channel 'smtp'"),
        ] {
            let error = text.parse::<Threshold>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
