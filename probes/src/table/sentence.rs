//! What came out of a comparison, in one plain sentence.

use crate::metric::Metric;
use crate::report::{Report, RowReport};
use crate::row::{Row, State, Transport};
use crate::stats::{Change, Statistic};

use super::quantity::{TimeUnit, percent, three_digits};

const SAID: [(Metric, &str); 3] = [
    (Metric::RoundtripOverhead, "the roundtrip overhead"),
    (Metric::TokenOverhead, "the per-token overhead"),
    (Metric::Ttft, "the time to first token"),
];

/// One sentence that says what came out (medians, with 95 % intervals), and what could not be told from no change.
///
/// It speaks of one row, chosen before the figures are known: `ws/incremental`, which is the mode that OpenAI's figures are
/// about; else the first incremental row of a channel that is no baseline's, else the first of any, else the last row. Choosing
/// the best row afterwards would flatter it.
pub fn sentence(report: &Report) -> String {
    let clauses = headline_row(report).map(clauses).unwrap_or_default();
    match clauses.as_slice() {
        [_, ..] => {
            let caution = match report.verdict.trusted {
                true => "",
                false => "Not to be trusted, for the reasons below: ",
            };
            let text = clauses.join("; ");
            format!("{caution}{}.", capitalised(&text, caution.is_empty()))
        }
        [] => "Nothing was compared: neither http-cold/full nor http/full ran beside another row, or nothing completed."
            .to_owned(),
    }
}

fn headline_row(report: &Report) -> Option<&RowReport> {
    let is_candidate = |row: &&RowReport| {
        let is_baseline = [Row::HTTP_COLD_FULL, Row::HTTP_FULL].contains(&row.row);
        row.row.transport != Transport::Direct && !is_baseline
    };
    let candidates = || report.channels.iter().filter(is_candidate);
    let incremental = || candidates().filter(|row| row.row.state == State::Incremental);
    let baselines = [Transport::HttpCold, Transport::Http];
    candidates()
        .find(|row| row.row == Row::events(Transport::Ws, State::Incremental))
        .or_else(|| incremental().find(|row| !baselines.contains(&row.row.transport)))
        .or_else(|| incremental().next())
        .or_else(|| candidates().next_back())
        .or_else(|| report.row(Row::HTTP_FULL))
}

/// One clause per baseline that the row was compared with; the first names the row.
fn clauses(row: &RowReport) -> Vec<String> {
    let outcomes = [
        (
            Row::HTTP_COLD_FULL,
            "against HTTP per request (http-cold/full)",
        ),
        (Row::HTTP_FULL, "against keep-alive HTTP (http/full)"),
    ]
    .into_iter()
    .filter_map(|(baseline, against)| Some((against, outcomes(row, baseline)?)));
    outcomes
        .enumerate()
        .map(|(at, (against, listed))| match at {
            0 => format!("{against}, {} {listed}", row.row),
            _ => format!("{against}, it {listed}"),
        })
        .collect()
}

fn outcomes(row: &RowReport, baseline: Row) -> Option<String> {
    let baseline = baseline.to_string();
    let said: Vec<String> = SAID
        .into_iter()
        .filter_map(|(metric, what)| outcome(row.versus(&baseline, metric, Statistic::P50)?, what))
        .collect();
    let (last, others) = said.split_last()?;
    Some(match others {
        [] => last.clone(),
        _ => format!("{} and {last}", others.join(", ")),
    })
}

fn outcome(change: &Change, what: &str) -> Option<String> {
    let Some(share) = change.change else {
        let difference = change.difference?;
        let unit = TimeUnit::for_values([difference.mean_ns]);
        let amount = format!("{} {}", unit.show(difference.mean_ns), unit.name());
        return Some(match change.is_distinguishable() {
            true => {
                format!("changes {what} by {amount} (no ratio: some blocks are not above zero)")
            }
            false => format!("changes {what} by {amount}, not distinguishable from zero"),
        });
    };
    let Some((low, high)) = change.low.zip(change.high) else {
        return Some(format!(
            "changes {what} by {} % in a single block, which proves nothing",
            percent(share)
        ));
    };
    let whole = |share: f64| three_digits((share.abs() * 1_000.0).round() / 10.0);
    Some(match (change.is_distinguishable(), share < 0.0) {
        (true, true) => format!(
            "takes {} % ({} to {}) off {what}",
            whole(share),
            whole(high),
            whole(low)
        ),
        (true, false) => format!(
            "adds {} % ({} to {}) to {what}",
            whole(share),
            whole(low),
            whole(high)
        ),
        (false, _) => format!(
            "changes {what} by {} % ({} to {}), not distinguishable from zero",
            percent(share),
            percent(low),
            percent(high)
        ),
    })
}

fn capitalised(text: &str, first: bool) -> String {
    let mut letters = text.chars();
    match letters.next().filter(|_| first) {
        Some(letter) => letter.to_uppercase().chain(letters).collect(),
        None => text.to_owned(),
    }
}
