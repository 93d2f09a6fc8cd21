//! What goes to standard output and to standard error. Standard output carries the result and nothing else.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use anyhow::Context;
use terminal_size::terminal_size_of;
use tokenlag_probes::folder::Turns;
use tokenlag_probes::table::{self, Style};
use tokenlag_probes::{Report, Sweep, Verdict, csv};

use crate::args::values::Output;
use crate::exit::Exit;

/// Writes a result. A reader that has gone away (`| head`) is no failure.
pub fn result(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Says something on standard error, in a line of its own.
pub fn note(text: &str) {
    // Nobody is left to be told that nobody listens.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Says on standard error of what the command failed.
pub fn failure(failed: &anyhow::Error) {
    error(&chain(failed));
}

/// The error and its causes in one line. Many of ours name their cause in their own words: it is not said twice.
fn chain(failed: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in failed.chain().map(ToString::to_string) {
        if told.is_empty() {
            told = cause;
        } else if !told.contains(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told
}

/// Says on standard error why the command cannot go on.
pub fn error(text: &str) {
    note(&format!("error: {text}"));
}

/// A report in the form that was asked for; `legs`: its tables have those too.
pub fn report(report: &Report, form: Output, legs: bool) -> anyhow::Result<()> {
    result(&match form {
        Output::Table => tables(report, legs),
        Output::Csv => csv(report),
        Output::Json => {
            let json = serde_json::to_string_pretty(report).context("cannot write the report")?;
            json + "\n"
        }
    })
}

/// A figure by turn, as a table.
pub fn turns(turns: &Turns) -> anyhow::Result<()> {
    result(&table::turns(turns, style()))
}

/// A sweep in the form that was asked for; `place` is its folder.
pub fn sweep(sweep: &Sweep, place: &Path, form: Output) -> anyhow::Result<()> {
    result(&match form {
        Output::Table => table::sweep(sweep, style()),
        Output::Csv => sweep_csv(sweep, place),
        Output::Json => {
            let json = serde_json::to_string_pretty(sweep).context("cannot write the sweep")?;
            json + "\n"
        }
    })
}

/// The lines of each comparison, with its folder's name before them. One without a report has none.
fn sweep_csv(sweep: &Sweep, place: &Path) -> String {
    let mut text = String::new();
    for case in &sweep.cases {
        let Ok(json) = fs::read(place.join(&case.folder).join("report.json")) else {
            continue;
        };
        let Ok(report) = serde_json::from_slice::<Report>(&json) else {
            continue;
        };
        for (at, line) in csv(&report).split_inclusive("\r\n").enumerate() {
            match (at, text.is_empty()) {
                (0, true) => text.push_str(&format!("case,{line}")),
                (0, false) => {}
                _ => text.push_str(&format!("{},{line}", case.folder)),
            }
        }
    }
    text
}

fn tables(report: &Report, legs: bool) -> String {
    let style = Style { legs, ..style() };
    if report.command == "load" {
        table::load(report, style)
    } else {
        table::compare(report, style)
    }
}

/// A verdict, as tables end with it.
pub fn verdict(verdict: &Verdict) -> String {
    table::verdict(verdict, style())
}

fn style() -> Style {
    let widest = Style::default().width;
    Style {
        width: columns().map_or(widest, |columns| columns.min(widest)),
        colour: io::stdout().is_terminal() && colours_are_welcome(),
        legs: false,
    }
}

/// Columns of the terminal on standard output; `COLUMNS` says it for those who have none.
fn columns() -> Option<usize> {
    let told = std::env::var("COLUMNS").ok();
    told.and_then(|columns| columns.parse().ok())
        .or_else(|| Some(terminal_size_of(io::stdout())?.0.0.into()))
}

/// <https://no-color.org>
fn colours_are_welcome() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// How a run ends that was measured: by its failures, then its thresholds, then its verdict.
pub fn exit(
    report: &Report,
    thresholds: &[crate::threshold::Threshold],
    allow_untrusted: bool,
) -> Exit {
    if report.channels.iter().all(|row| row.completed == 0) {
        error("not one exchange completed");
        return Exit::Failed;
    }
    let crossed: Vec<_> = thresholds
        .iter()
        .flat_map(|condition| condition.crossed(report))
        .collect();
    for crossed in &crossed {
        note(&format!("threshold crossed: {crossed}"));
    }
    match report.verdict.trusted || allow_untrusted {
        _ if !crossed.is_empty() => Exit::Crossed,
        true => Exit::Good,
        false => Exit::Untrusted,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let refused = || anyhow!("connection refused");
        let named = refused().context("cannot connect: connection refused; is it up?");
        assert_eq!(
            chain(&named.context("cannot ask the backend")),
            "cannot ask the backend: cannot connect: connection refused; is it up?"
        );
        let apart = refused().context("cannot connect");
        assert_eq!(chain(&apart), "cannot connect: connection refused");
    }
}
