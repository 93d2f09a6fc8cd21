//! What goes to standard output and to standard error. Standard output carries the result and nothing else.

use std::io::{self, IsTerminal, Write};

use anyhow::Context;
use tokenlag_probes::table::{self, Style};
use tokenlag_probes::{Report, csv};

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

/// Says on standard error why the command cannot go on.
pub fn error(text: &str) {
    note(&format!("error: {text}"));
}

/// A report in the form that was asked for.
pub fn report(report: &Report, form: Output) -> anyhow::Result<()> {
    result(&match form {
        Output::Table => tables(report),
        Output::Csv => csv(report),
        Output::Json => {
            let json = serde_json::to_string_pretty(report).context("cannot write the report")?;
            json + "\n"
        }
    })
}

fn tables(report: &Report) -> String {
    if report.command == "load" {
        table::load(report, style())
    } else {
        table::compare(report, style())
    }
}

fn style() -> Style {
    let columns = std::env::var("COLUMNS")
        .ok()
        .and_then(|columns| columns.parse().ok());
    Style {
        width: columns.unwrap_or(Style::default().width),
        colour: io::stdout().is_terminal() && colours_are_welcome(),
    }
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
