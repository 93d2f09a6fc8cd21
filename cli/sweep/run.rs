//! Running a sweep: a process of this program for each comparison, one after another, and one report of all.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokenlag_probes::sweep::{Found, SWEEP_SCHEMA, SweepCase};
use tokenlag_probes::{Report, Sweep as Index, clock};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{Case, INDEX, PLAN};
use crate::args::values::Output;
use crate::command_line::Swept;
use crate::exit::Exit;
use crate::plan::Plan;
use crate::rig::Alarm;
use crate::{alarm, command_line, measure, output, plan_file, program};

/// Exit codes of a comparison that ran to its end.
const UNTRUSTED: i32 = 3;
const CROSSED: i32 = 99;

/// Runs every case. What goes wrong in one does not keep the others from running.
///
/// # Errors
/// Some case makes no sense, or the sweep's folder cannot be written: then none is run.
pub fn run(swept: &Swept) -> anyhow::Result<Exit> {
    // None varies in what goes to standard output, and where to.
    let Some(output) = swept.cases.first().map(|(_, args)| &args.output) else {
        return Ok(Exit::Good);
    };
    for (case, args) in &swept.cases {
        // Hours later is too late to be told of a slip of the pen.
        Plan::of_compare(args).with_context(|| format!("case {}: {}", case.number, case.told()))?;
    }
    let place = measure::claim(output.out.as_deref(), "sweep")?;
    keep(&swept.plan, &place)?;
    let cases = swept.cases.iter().map(|(case, _)| case);
    let mut index = Index {
        schema: SWEEP_SCHEMA.to_owned(),
        command_line: command_line::without_secrets(),
        started_at: now(),
        ended_at: None,
        cases: cases.map(planned).collect(),
    };
    write(&place, &index)?;
    let tables = output.output == Output::Table;
    let whole = alarm::block_on(all(swept, tables, &place, &mut index))?;
    if whole {
        index.ended_at = Some(now());
    }
    write(&place, &index)?;
    if tables {
        output::result("\n")?;
    }
    output::sweep(&index, &place, output.output)?;
    output::note(&format!("the sweep is in {}", place.display()));
    if !whole {
        output::error("interrupted: this is what was measured until then");
        return Ok(Exit::Failed);
    }
    Ok(exit(&index))
}

/// Writes the plan into the sweep's folder: what each comparison's record says of itself leads there.
fn keep(plan: &plan_file::Plan, place: &Path) -> anyhow::Result<()> {
    let path = place.join(PLAN);
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .and_then(|mut file| file.write_all(plan.without_secrets.as_bytes()));
    written.with_context(|| {
        format!(
            "cannot write the plan to {}; choose another folder with --out",
            path.display()
        )
    })
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
async fn all(swept: &Swept, tables: bool, place: &Path, index: &mut Index) -> anyhow::Result<bool> {
    let (alarm, interrupted) = alarm::alarm();
    let count = swept.cases.len();
    for (at, (case, _)) in swept.cases.iter().enumerate() {
        let known = &mut index.cases[at];
        let folder = place.join(&known.folder);
        let told = format!("case {} of {count}: {}", case.number, case.told());
        output::note(&told);
        if tables {
            output::result(&format!("{}{told}\n\n", if at > 0 { "\n" } else { "" }))?;
        }
        match one(case, swept, place, &folder, tables, &alarm).await {
            Ok(code) => known.exit = code,
            Err(error) => output::error(&format!("case {}: {error:#}", case.number)),
        }
        known.found = found(&folder);
        write(place, index)?;
        if interrupted.is_set() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Runs one to its end; its exit code, `None` where a signal ended it.
async fn one(
    case: &Case,
    swept: &Swept,
    place: &Path,
    folder: &Path,
    tables: bool,
    alarm: &Alarm,
) -> anyhow::Result<Option<i32>> {
    let start = |program: &Path| command(program, case, place, folder, tables).spawn();
    let mut child = program::again(start).context("cannot start a comparison of the sweep")?;
    if let Some(mut stdin) = child.stdin.take() {
        // It reads this before anything else. One that is gone by now has its exit code to say why.
        let _ = stdin.write_all(swept.plan.text.as_bytes()).await;
    }
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
    Ok(status.context("cannot wait for a comparison")?.code())
}

/// This program once more, with what the user said, the plan as it was read, and the case's number.
fn command(program: &Path, case: &Case, place: &Path, folder: &Path, tables: bool) -> Command {
    let given = std::env::args_os().skip(1);
    let mut command = Command::new(program);
    command
        .args(without(&["--out", "--plan"], given))
        .arg(flag("--plan=", place.join(PLAN).into()))
        .arg("--plan-on-stdin")
        .arg(format!("--case={}", case.number))
        .arg(flag("--out=", folder.as_os_str().to_owned()))
        .arg(format!("--die-with-parent={}", std::process::id()))
        .stdin(Stdio::piped())
        .kill_on_drop(true);
    if !tables {
        // Standard output carries one result: the sweep's.
        command.stdout(Stdio::null());
    }
    command
}

fn flag(name: &str, value: OsString) -> OsString {
    let mut word = OsString::from(name);
    word.push(value);
    word
}

/// The words without some flags and their values: each comparison has its own.
fn without(flags: &[&str], words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut is_value = false;
    let kept = words.filter(|word| {
        let was_value = std::mem::take(&mut is_value);
        let word = word.to_string_lossy();
        let rests: Vec<&str> = (flags.iter())
            .filter_map(|flag| word.strip_prefix(flag))
            .collect();
        is_value = !was_value && rests.contains(&"");
        !was_value && !is_value && !rests.iter().any(|rest| rest.starts_with('='))
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
    fn a_case_is_told_a_folder_and_a_plan_of_its_own() {
        let words =
            "compare --out a --turns 2 --output json --out=b --outer --plan=c --legs --plan d";
        let words = words.split(' ').map(OsString::from);
        assert_eq!(
            without(&["--out", "--plan"], words),
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
