//! `tokenlag link --check`: links that measure themselves, and the table.

use serde::Serialize;
use tokenlag_link::{Finding, Link, LinkSpec, check};

use super::CLOCK;
use crate::args::values::Output;
use crate::exit::Exit;
use crate::output;

/// What is checked where no link is given: one with everything, the bare relay, and one that loses.
const CHECKED: [&str; 3] = [
    "rtt=40ms,rate=100mbit",
    "rtt=0",
    "rtt=10ms,jitter=1ms,loss=1%",
];

#[derive(Serialize)]
struct Checked {
    link: String,
    findings: Vec<Finding>,
}

/// Runs the command.
pub fn run(given: Option<LinkSpec>, form: Output) -> anyhow::Result<Exit> {
    let specs = match given {
        Some(spec) => vec![spec],
        None => CHECKED
            .into_iter()
            .map(super::parse)
            .collect::<Result<_, _>>()?,
    };
    let mut all = Vec::new();
    for spec in specs {
        let link = spec.to_string();
        output::note(&format!("link {link}"));
        let up = Link::up(spec, CLOCK)?;
        let findings = check(&up, CLOCK, &mut |stage| output::note(&format!("  {stage}")));
        all.push(Checked { link, findings });
    }
    output::result(&match form {
        Output::Json => serde_json::to_string_pretty(&all)? + "\n",
        Output::Csv => csv(&all),
        Output::Table => all.iter().map(table).collect::<Vec<_>>().join("\n"),
    })?;
    let is_bad = |finding: &Finding| finding.good == Some(false);
    match all.iter().flat_map(|checked| &checked.findings).any(is_bad) {
        true => Ok(Exit::Untrusted),
        false => Ok(Exit::Good),
    }
}

fn word(good: Option<bool>) -> &'static str {
    match good {
        Some(true) => "good",
        Some(false) => "BAD",
        None => "",
    }
}

fn table(checked: &Checked) -> String {
    let heads = ["", "asked", "found", ""].map(str::to_owned);
    let rows = checked.findings.iter().map(|finding| {
        [
            finding.what.clone(),
            finding.asked.clone(),
            finding.found.clone(),
            word(finding.good).to_owned(),
        ]
    });
    let rows: Vec<[String; 4]> = [heads].into_iter().chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..4).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = format!("link {}\n", checked.link);
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn csv(all: &[Checked]) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let mut text = "link,what,asked,found,good\n".to_owned();
    for Checked { link, findings } in all {
        for finding in findings {
            let cells = [link, &finding.what, &finding.asked, &finding.found];
            let cells = cells.map(|cell| quoted(cell));
            text.push_str(&format!("{},{}\n", cells.join(","), word(finding.good)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_finding() {
        let finding = |what: &str, good| Finding {
            what: what.to_owned(),
            asked: "40ms".to_owned(),
            found: "p50 40.1 ms".to_owned(),
            good,
        };
        let checked = Checked {
            link: "rtt=40ms".to_owned(),
            findings: vec![
                finding("TCP connect", Some(true)),
                finding("x", Some(false)),
            ],
        };
        let text = table(&checked);
        assert_eq!(text.lines().count(), 4);
        assert!(
            text.contains("TCP connect  40ms   p50 40.1 ms  good\n"),
            "{text}"
        );
        assert!(csv(&[checked]).ends_with("\"x\",\"40ms\",\"p50 40.1 ms\",BAD\n"));
    }

    #[test]
    fn what_is_checked_by_itself_can_be_read() {
        for text in CHECKED {
            assert!(super::super::parse(text).is_ok());
        }
    }
}
