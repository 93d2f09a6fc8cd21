//! What came out of a comparison, in one plain sentence.

use crate::floor::Floor;
use crate::metric::Metric;
use crate::report::{Report, RowReport};
use crate::row::{Row, State, Transport};
use crate::stats::{Change, Statistic, Withheld};

use super::quantity::{TimeUnit, percent, three_digits};

const SAID: [(Metric, &str); 3] = [
    (Metric::RoundtripOverhead, "the roundtrip overhead"),
    (Metric::TokenOverhead, "the per-token overhead"),
    (Metric::Ttft, "the time to first token"),
];

/// One sentence that says what came out (medians, with 95 % intervals), and what could not be told from no change.
///
/// It speaks of one row, chosen before the figures are known: `ws/incremental`, which is the mode that OpenAI's figures are
/// about; else the first incremental row of another channel than `http-cold` and `http`, else the first of any, else the last
/// row; a baseline only where there is nothing else. Choosing the best row afterwards would flatter it.
pub fn sentence(report: &Report) -> String {
    let baselines = baselines(report);
    // Behind a long link nearly all of a delta's lateness is the way: what can be saved is beyond it.
    let far = report.floor.as_ref().is_some_and(Floor::is_of_a_link);
    let clauses = headline_row(report, &baselines)
        .map(|row| clauses(row, &baselines, far))
        .unwrap_or_default();
    match clauses.as_slice() {
        [_, ..] => {
            let caution = match report.verdict.trusted {
                true => "",
                false => "Not to be trusted, for the reasons below: ",
            };
            let text = clauses.join("; ");
            format!("{caution}{}.", capitalised(&text, caution.is_empty()))
        }
        [] if report.channels.iter().filter(|row| !is_control(row)).count() < 2 => {
            "Nothing was compared: no two rows ran but the control; name a further one with --channels or --baseline."
                .to_owned()
        }
        [] => "Nothing was compared: no row completed beside a baseline.".to_owned(),
    }
}

fn is_control(row: &RowReport) -> bool {
    row.row.transport == Transport::Direct
}

/// The rows that others were compared with, the usual ones first. The control is none: it tells what the proxy adds.
fn baselines(report: &Report) -> Vec<String> {
    let mut named = vec![Row::HTTP_COLD_FULL.to_string(), Row::HTTP_FULL.to_string()];
    for versus in report.channels.iter().flat_map(|row| &row.versus) {
        let control = Transport::Direct.to_string();
        if !versus.baseline.starts_with(&control) && !named.contains(&versus.baseline) {
            named.push(versus.baseline.clone());
        }
    }
    named
}

fn headline_row<'a>(report: &'a Report, baselines: &[String]) -> Option<&'a RowReport> {
    let is_candidate =
        |row: &&RowReport| !is_control(row) && !baselines.contains(&row.row.to_string());
    let candidates = || report.channels.iter().filter(is_candidate);
    let incremental = || candidates().filter(|row| row.row.state == State::Incremental);
    let usual = [Transport::HttpCold, Transport::Http];
    candidates()
        .find(|row| row.row == Row::events(Transport::Ws, State::Incremental))
        .or_else(|| incremental().find(|row| !usual.contains(&row.row.transport)))
        .or_else(|| incremental().next())
        .or_else(|| candidates().next_back())
        .or_else(|| report.row(Row::HTTP_FULL))
}

/// One clause per baseline that the row was compared with; the first names the row.
fn clauses(row: &RowReport, baselines: &[String], far: bool) -> Vec<String> {
    let outcomes = baselines.iter().filter_map(|baseline| {
        let outcomes = outcomes(row, baseline, far)?;
        let against = if *baseline == Row::HTTP_COLD_FULL.to_string() {
            "HTTP per request (http-cold/full)"
        } else if *baseline == Row::HTTP_FULL.to_string() {
            "keep-alive HTTP (http/full)"
        } else {
            baseline
        };
        Some((format!("against {against}"), outcomes))
    });
    outcomes
        .enumerate()
        .map(|(at, (against, listed))| match at {
            0 => format!("{against}, {} {listed}", row.row),
            _ => format!("{against}, it {listed}"),
        })
        .collect()
}

fn outcomes(row: &RowReport, baseline: &str, far: bool) -> Option<String> {
    let one = |(metric, what): (Metric, &str)| {
        let whole = || outcome(row.versus(baseline, metric, Statistic::P50)?, what);
        let net = row.net_versus(baseline, metric, Statistic::P50);
        match net.filter(|_| far && metric == Metric::TokenOverhead) {
            Some(net) => outcome(net, &format!("{what} beyond the link's delay")),
            None => whole(),
        }
    };
    let said: Vec<String> = SAID.into_iter().filter_map(one).collect();
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
                let why = match change.withheld {
                    Some(Withheld::Clocks) => "the two ends have clocks of their own",
                    Some(Withheld::Floor) => "the baseline's reaches zero",
                    None => "some blocks are not above zero",
                };
                format!("changes {what} by {amount} (no ratio: {why})")
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
