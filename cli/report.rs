//! `tokenlag report`: a recorded run, shown or exported again.

use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;
use tokenlag_probes::folder::{INCOMPLETE_LOG, RecordedRun};
use tokenlag_probes::sweep::SWEEP_SCHEMA;
use tokenlag_probes::{Row, RunFolder, Sweep, csv};

use crate::args::report::{Format, ReportCommand};
use crate::exit::{Exit, Usage};
use crate::output;
use crate::rows::RowName;
use crate::sweep::INDEX;

/// Runs the command. It shows what is there; whether it may be trusted is said, and is no exit code.
pub fn run(command: ReportCommand) -> anyhow::Result<Exit> {
    match command {
        ReportCommand::Show {
            folder,
            baseline,
            output: form,
            legs,
        } => {
            if let Some(sweep) = sweep(&folder)? {
                if legs {
                    return Err(of_one("--legs", &sweep, &folder).into());
                }
                if !baseline.is_empty() {
                    return Err(of_one("--baseline", &sweep, &folder).into());
                }
                output::sweep(&sweep, &folder, form)?;
                return Ok(Exit::Good);
            }
            let mut run = open(&folder)?;
            if !baseline.is_empty() {
                run.record.baselines = baselines(&baseline, &run.record.rows)?;
            }
            output::report(&run.report(), form, legs)?;
        }
        ReportCommand::Turns { folder, figure } => {
            output::turns(&RunFolder::turns(&folder, figure)?)?;
        }
        ReportCommand::Export { folder, format } => export(&folder, format)?,
    }
    Ok(Exit::Good)
}

fn export(folder: &Path, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => {
            let report = open(folder)?.report();
            let json = serde_json::to_string_pretty(&report).context("cannot write the report")?;
            output::result(&(json + "\n"))
        }
        Format::Csv => output::result(&csv(&open(folder)?.report())),
        Format::Hgrm => output::result(&percentiles(folder)?),
    }
}

/// The rows that were named, all of which must have run.
fn baselines(named: &[RowName], ran: &[Row]) -> Result<Vec<Row>, Usage> {
    let missing = named.iter().find(|name| !ran.contains(&name.0));
    match missing {
        None => Ok(named.iter().map(|name| name.0).collect()),
        Some(name) => {
            let ran: Vec<String> = ran.iter().map(Row::to_string).collect();
            let (name, ran) = (name.0, ran.join(", "));
            Err(Usage(format!(
                "--baseline {name}: the run has no such row; it has {ran}"
            )))
        }
    }
}

/// The percentiles of each row and figure, under the name of their file.
fn percentiles(folder: &Path) -> anyhow::Result<String> {
    let files = open(folder)?.percentiles();
    if files.is_empty() {
        bail!("{} has no figures: nothing completed", folder.display());
    }
    let mut text = String::new();
    for (name, body) in files {
        let name = name.trim_end_matches(".hgrm");
        text.push_str(&format!("#[{name}]\n{body}\n"));
    }
    Ok(text)
}

/// The sweep that the folder is of, if it is one's.
fn sweep(folder: &Path) -> anyhow::Result<Option<Sweep>> {
    let path = folder.join(INDEX);
    let Ok(text) = std::fs::read(&path) else {
        return Ok(None);
    };
    let unreadable = || format!("{} cannot be read as a sweep", path.display());
    // Another version's shape may be another: its name is looked at before the rest.
    let Named { schema } = serde_json::from_slice(&text).with_context(unreadable)?;
    if schema != SWEEP_SCHEMA {
        bail!(
            "{}: its schema is '{schema}', this version reads '{SWEEP_SCHEMA}'",
            unreadable()
        );
    }
    let sweep = serde_json::from_slice(&text).with_context(unreadable)?;
    Ok(Some(sweep))
}

/// The part of `sweep.json` that names its shape.
#[derive(Deserialize)]
struct Named {
    schema: String,
}

/// The tables of a sweep have a column for each comparison: no room for legs, and one baseline for all.
fn of_one(flag: &str, sweep: &Sweep, folder: &Path) -> Usage {
    let with_report = sweep.cases.iter().find(|case| case.found.is_some());
    let such = with_report.map_or_else(String::new, |case| {
        format!(", as in {}", folder.join(&case.folder).display())
    });
    Usage(format!(
        "{flag} is of one comparison, and {} is a sweep of them; name the folder of one{such}",
        folder.display()
    ))
}

/// Reads a run back, and says where it is not whole.
fn open(folder: &Path) -> anyhow::Result<RecordedRun> {
    let run = RunFolder::open(folder)?;
    for warning in &run.record.warnings {
        if warning.code == INCOMPLETE_LOG {
            output::note(&format!("warning: {}", warning.message));
        }
    }
    Ok(run)
}
