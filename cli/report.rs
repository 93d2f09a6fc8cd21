//! `tokenlag report`: a recorded run, shown or exported again.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use tokenlag_probes::{RunFolder, csv};

use crate::args::report::{Format, ReportCommand};
use crate::exit::Exit;
use crate::output;

/// Runs the command. It shows what is there; whether it may be trusted is said, and is no exit code.
pub fn run(command: ReportCommand) -> anyhow::Result<Exit> {
    match command {
        ReportCommand::Show {
            folder,
            output: form,
        } => {
            let run = RunFolder::open(&folder)?;
            output::report(&run.report(), form)?;
        }
        ReportCommand::Export { folder, format } => export(&folder, format)?,
    }
    Ok(Exit::Good)
}

fn export(folder: &Path, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => {
            let report = RunFolder::open(folder)?.report();
            let json = serde_json::to_string_pretty(&report).context("cannot write the report")?;
            output::result(&(json + "\n"))
        }
        Format::Csv => output::result(&csv(&RunFolder::open(folder)?.report())),
        Format::Hgrm => output::result(&percentiles(folder)?),
    }
}

/// All percentile files of the folder, each under its name.
fn percentiles(folder: &Path) -> anyhow::Result<String> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "hgrm")
        })
        .collect();
    files.sort();
    if files.is_empty() {
        bail!(
            "{} has no percentile files: the run did not end, or nothing completed",
            folder.display()
        );
    }
    let mut text = String::new();
    for path in files {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let body =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        text.push_str(&format!("#[{name}]\n{body}\n"));
    }
    Ok(text)
}
