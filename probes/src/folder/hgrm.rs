//! `<row>.<metric>.hgrm`: HdrHistogram's percentile distribution as text, in milliseconds, for its plotters.
//!
//! Six decimals in place of three: overheads of some microseconds would lose their digits.
//! The layout is that of `AbstractHistogram.outputPercentileDistribution` (five steps per halving of the distance to 100 %).

use std::fmt::Write;

use hdrhistogram::Histogram;

use crate::histogram::{SIGNIFICANT_DIGITS, SignedHistogram};

const NANOS_PER_MILLI: f64 = 1e6;
const STEPS_PER_HALVING: u32 = 5;

/// The distribution of the values that are zero or more; empty where there are none. Negative ones are named in a comment.
pub(super) fn text(histogram: &SignedHistogram) -> String {
    let mut text = String::new();
    let Some(values) = histogram.positive() else {
        return text;
    };
    // Writing to a String cannot fail.
    let _ = print(&mut text, &values);
    if histogram.negatives() > 0 {
        let _ = writeln!(
            text,
            "#[Negative values, not above: {} of {}; they are in the .hlog]",
            histogram.negatives(),
            histogram.count()
        );
    }
    text
}

fn print(text: &mut String, values: &Histogram<u64>) -> std::fmt::Result {
    let millis = |nanos: f64| nanos / NANOS_PER_MILLI;
    writeln!(
        text,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut passed = 0;
    for step in values.iter_quantiles(STEPS_PER_HALVING) {
        passed += step.count_since_last_iteration();
        let value = millis(values.highest_equivalent(step.value_iterated_to()) as f64);
        let share = step.quantile_iterated_to();
        write!(text, "{value:>12.6} {share:.12} {passed:>10}")?;
        match share < 1.0 {
            true => writeln!(text, " {:>14.2}", 1.0 / (1.0 - share))?,
            false => writeln!(text)?,
        }
    }
    writeln!(
        text,
        "#[Mean    = {:>12.6}, StdDeviation   = {:>12.6}]",
        millis(values.mean()),
        millis(values.stdev())
    )?;
    writeln!(
        text,
        "#[Max     = {:>12.6}, Total count    = {:>12}]",
        millis(values.max() as f64),
        values.len()
    )?;
    writeln!(
        text,
        "#[Buckets = {:>12}, SubBuckets     = {:>12}]",
        values.buckets(),
        sub_buckets()
    )
}

/// Buckets within a halving: the smallest power of two that tells `SIGNIFICANT_DIGITS` digits apart, twice.
fn sub_buckets() -> u64 {
    (2 * 10u64.pow(u32::from(SIGNIFICANT_DIGITS))).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_prints_as_the_reference_prints_it() {
        let mut histogram = SignedHistogram::default();
        histogram.record(2_000_000);
        let lines: Vec<String> = text(&histogram).lines().map(str::to_owned).collect();
        assert_eq!(
            lines,
            [
                "       Value     Percentile TotalCount 1/(1-Percentile)",
                "",
                "    2.000895 0.000000000000          1           1.00",
                "    2.000895 1.000000000000          1",
                "#[Mean    =     2.000384, StdDeviation   =     0.000000]",
                "#[Max     =     2.000895, Total count    =            1]",
                "#[Buckets =           32, SubBuckets     =         2048]",
            ]
        );
    }

    #[test]
    fn shares_and_counts_rise_to_the_whole() {
        let mut histogram = SignedHistogram::default();
        for micros in 1..=1_000 {
            histogram.record(micros * 1_000);
        }
        histogram.record(-5);
        let text = text(&histogram);
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| {
                let fields = line.split_whitespace();
                fields.map(|field| field.parse().unwrap()).collect()
            })
            .collect();
        assert!(rows.is_sorted_by(|a, b| a[0] <= b[0] && a[1] <= b[1] && a[2] <= b[2]));
        let median = rows.iter().find(|row| row[1] == 0.5).unwrap();
        assert!((median[0] - 0.5).abs() < 0.001, "{median:?}");
        assert_eq!(median[3], 2.0);
        assert_eq!(rows.last().unwrap()[1..], [1.0, 1_000.0]);
        assert!(text.contains("#[Negative values, not above: 1 of 1001; they are in the .hlog]"));
    }

    #[test]
    fn nothing_recorded_is_no_file() {
        assert_eq!(text(&SignedHistogram::default()), "");
    }
}
