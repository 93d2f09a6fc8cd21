//! Profiles as text for people: how exact each is, what a token costs, and which functions make the difference.

use std::fmt::Write;

use tokenlag_profiling::difference::FunctionChange;

use super::summary::{Shown, ShownDifference, ShownEnd};

/// Functions that are named of each difference.
const NAMED: usize = 8;

/// The table.
pub fn text(shown: &Shown) -> String {
    let mut text = String::new();
    let points = shown.resolution_wanted * 100.0;
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "CPU profiles: {:.0} samples in a second of CPU time at most. +- is the error of sampling, 95 %;\na function's share is known to so many points.\n\n\
         {:<26} {:<8} {:>8} {:>18} {:>8}  for +-{points:.1} points",
        shown.hertz, "row", "end", "samples", "us of CPU a token", "points"
    );
    for row in &shown.rows {
        for end in &row.ends {
            let _ = writeln!(text, "{:<26} {}", row.row, line(end));
        }
    }
    for difference in &shown.differences {
        text.push_str(&changed(difference));
    }
    text
}

fn line(end: &ShownEnd) -> String {
    let cost = match (end.cpu_ns_per_token, end.error_ns) {
        (Some(cost), Some(error)) => format!("{:.2} +-{:.2}", cost / 1e3, error / 1e3),
        (Some(cost), None) => format!("{:.2}", cost / 1e3),
        (None, _) => "-".to_owned(),
    };
    let points = end
        .resolution
        .map_or_else(|| "-".to_owned(), |it| format!("+-{:.1}", it * 100.0));
    let needs = match (end.samples, end.needs_s) {
        (0, _) => "no sample: more load, or a longer --duration".to_owned(),
        (_, None) => "reached".to_owned(),
        (_, Some(seconds)) => format!("--duration {}", span(seconds)),
    };
    format!(
        "{:<8} {:>8} {cost:>18} {points:>8}  {needs}",
        end.end.name(),
        end.samples
    )
}

/// Seconds as they can be given to `--duration`, rounded up.
fn span(seconds: f64) -> String {
    match seconds {
        ..120.0 => format!("{:.0}s", seconds.ceil()),
        ..7_200.0 => format!("{:.0}m", (seconds / 60.0).ceil()),
        _ => format!("{:.0}h", (seconds / 3_600.0).ceil()),
    }
}

fn changed(difference: &ShownDifference) -> String {
    let ShownDifference {
        row, end, baseline, ..
    } = difference;
    let mut text = format!(
        "\n{row} against {baseline}, {}: a token's CPU time in each function itself, us\n",
        end.name()
    );
    let clear: Vec<&FunctionChange> = difference
        .functions
        .iter()
        .filter(|it| it.own.is_clear())
        .collect();
    if clear.is_empty() {
        text.push_str("  no function differs by more than sampling does\n");
    }
    for change in clear.iter().take(NAMED) {
        let own = change.own;
        let _ = writeln!(
            text,
            "  {:>+8.2} +-{:<6.2} {:>8.2} -> {:<8.2} {}",
            own.change_ns / 1e3,
            own.error_ns / 1e3,
            own.before_ns / 1e3,
            own.after_ns / 1e3,
            change.function
        );
    }
    if clear.len() > NAMED {
        let _ = writeln!(text, "  and {} more, in profile.json", clear.len() - NAMED);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_that_is_named_is_long_enough() {
        assert_eq!(span(3.1), "4s");
        assert_eq!(span(119.2), "120s");
        assert_eq!(span(121.0), "3m");
        assert_eq!(span(7_201.0), "3h");
    }
}
