//! Running a sweep: a process of this program for each comparison, one after another, and one report of all.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokenlag_probes::sweep::{Found, SWEEP_SCHEMA, SweepCase};
use tokenlag_probes::{Report, Sweep as Index, clock};
use tokio::process::Command;

use super::{Case, INDEX};
use crate::args::compare::CompareArgs;
use crate::args::values::Output;
use crate::exit::Exit;
use crate::plan::Plan;
use crate::{alarm, command_line, measure, output};

/// Exit codes of a comparison that ran to its end.
const UNTRUSTED: i32 = 3;
const CROSSED: i32 = 99;

/// Runs every case; each has its flags beside it. What goes wrong in one does not keep the others from running.
///
/// # Errors
/// Some case makes no sense, or the sweep's folder cannot be written: then none is run.
pub fn run(cases: &[(Case, Box<CompareArgs>)]) -> anyhow::Result<Exit> {
    // None varies in what goes to standard output.
    let Some(args) = cases.first().map(|(_, args)| args) else {
        return Ok(Exit::Good);
    };
    for (case, args) in cases {
        // Hours later is too late to be told of a slip of the pen.
        Plan::of_compare(args).with_context(|| format!("case {}: {}", case.number, case.told()))?;
    }
    let place = measure::claim(args.output.out.as_deref(), "sweep")?;
    let mut index = Index {
        schema: SWEEP_SCHEMA.to_owned(),
        command_line: command_line::without_secrets(),
        started_at: now(),
        ended_at: None,
        cases: cases.iter().map(|(case, _)| planned(case)).collect(),
    };
    write(&place, &index)?;
    let whole = alarm::block_on(all(args, cases, &place, &mut index))?;
    if whole {
        index.ended_at = Some(now());
    }
    write(&place, &index)?;
    show(args, &place, &index)?;
    output::note(&format!("the sweep is in {}", place.display()));
    if !whole {
        output::error("interrupted: this is what was measured until then");
        return Ok(Exit::Failed);
    }
    Ok(exit(&index))
}

fn planned(case: &Case) -> SweepCase {
    SweepCase {
        number: case.number,
        values: case.values.clone(),
        folder: case.folder(),
        exit: None,
        found: None,
    }
}

/// Runs them; whether all had their turn.
async fn all(
    args: &CompareArgs,
    cases: &[(Case, Box<CompareArgs>)],
    place: &Path,
    index: &mut Index,
) -> anyhow::Result<bool> {
    let (alarm, interrupted) = alarm::alarm();
    let tables = args.output.output == Output::Table;
    for (at, (case, _)) in cases.iter().enumerate() {
        let known = &mut index.cases[at];
        let folder = place.join(&known.folder);
        let told = format!("case {} of {}: {}", case.number, cases.len(), case.told());
        output::note(&told);
        if tables {
            output::result(&format!("{}{told}\n\n", if at > 0 { "\n" } else { "" }))?;
        }
        let mut child = command(case, &folder, tables)?
            .spawn()
            .context("cannot start a comparison of the sweep")?;
        let pid = child.id();
        let status = match alarm.stop.or(child.wait()).await {
            Some(status) => status,
            None => {
                // A terminal's Ctrl-C reached it too: it takes both for one.
                if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()) {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
                }
                child.wait().await
            }
        };
        known.exit = status.context("cannot wait for a comparison")?.code();
        known.found = found(&folder);
        write(place, index)?;
        if interrupted.is_set() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// This program once more, with what the user said and the case's number.
fn command(case: &Case, folder: &Path, tables: bool) -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(program);
    command
        .args(without_out(std::env::args_os().skip(1)))
        .arg(format!("--case={}", case.number))
        .arg(flag("--out=", folder.as_os_str().to_owned()))
        .arg(format!("--die-with-parent={}", std::process::id()))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if !tables {
        // Standard output carries one result: the sweep's.
        command.stdout(Stdio::null());
    }
    Ok(command)
}

fn flag(name: &str, value: OsString) -> OsString {
    let mut word = OsString::from(name);
    word.push(value);
    word
}

/// The words without `--out`: each comparison has a folder of its own.
fn without_out(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut is_value = false;
    let kept = words.filter(|word| {
        let was_value = std::mem::take(&mut is_value);
        is_value = !was_value && word == "--out";
        !was_value && !is_value && !word.as_encoded_bytes().starts_with(b"--out=")
    });
    kept.collect()
}

fn found(folder: &Path) -> Option<Found> {
    let text = fs::read(folder.join("report.json")).ok()?;
    let report: Report = serde_json::from_slice(&text).ok()?;
    Some(Found::of(&report))
}

fn write(place: &Path, index: &Index) -> anyhow::Result<()> {
    let path = place.join(INDEX);
    let fresh = place.join(format!("{INDEX}.new"));
    let json = serde_json::to_string_pretty(index).context("cannot write the sweep")?;
    // Whoever reads it meanwhile finds a whole one.
    fs::write(&fresh, json + "\n")
        .and_then(|()| fs::rename(&fresh, &path))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn show(args: &CompareArgs, place: &Path, index: &Index) -> anyhow::Result<()> {
    match args.output.output {
        Output::Table => output::result("\n")?,
        Output::Json | Output::Csv => {}
    }
    output::sweep(index, place, args.output.output)
}

fn now() -> String {
    humantime::format_rfc3339_millis(clock::wall_clock()).to_string()
}

/// How a sweep ends: as the worst of its comparisons.
fn exit(index: &Index) -> Exit {
    let ends = index.cases.iter().map(|case| match case.exit {
        Some(0) => Exit::Good,
        Some(UNTRUSTED) => Exit::Untrusted,
        Some(CROSSED) => Exit::Crossed,
        // Wrong usage too: what one flag made impossible, the others' figures do not stand for.
        _ => Exit::Failed,
    });
    let ends: Vec<Exit> = ends.collect();
    let worst = [Exit::Failed, Exit::Crossed, Exit::Untrusted];
    let found = worst.into_iter().find(|exit| ends.contains(exit));
    found.unwrap_or(Exit::Good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_told_a_folder_of_its_own() {
        let words = "compare --out a --turns 2 --output json --out=b --outer --legs";
        let words = words.split(' ').map(OsString::from);
        assert_eq!(
            without_out(words),
            [
                "compare", "--turns", "2", "--output", "json", "--outer", "--legs"
            ]
        );
    }

    #[test]
    fn a_sweep_ends_as_its_worst_case() {
        let ended = |codes: &[Option<i32>]| {
            let case = |exit: &Option<i32>| SweepCase {
                number: 1,
                values: Default::default(),
                folder: String::new(),
                exit: *exit,
                found: None,
            };
            exit(&Index {
                schema: String::new(),
                command_line: Vec::new(),
                started_at: String::new(),
                ended_at: None,
                cases: codes.iter().map(case).collect(),
            })
        };
        assert_eq!(ended(&[Some(0), Some(0)]), Exit::Good);
        assert_eq!(ended(&[Some(0), Some(3)]), Exit::Untrusted);
        assert_eq!(ended(&[Some(99), Some(3)]), Exit::Crossed);
        assert_eq!(ended(&[Some(99), Some(1)]), Exit::Failed);
        assert_eq!(ended(&[Some(2), Some(0)]), Exit::Failed);
        assert_eq!(ended(&[None, Some(0)]), Exit::Failed);
    }
}
