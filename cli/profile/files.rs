//! The files of a run's profiles, in `profiles/` of its folder.

use std::fs;
use std::path::Path;

use anyhow::Context;
use tokenlag_profiling::flamegraph::FlamegraphError;
use tokenlag_profiling::{Title, flamegraph, folded, protobuf};

use super::summary::{Profile, Summary};

/// Where they are in the run's folder.
pub const FOLDER: &str = "profiles";
/// What is shown, as JSON.
const SHOWN: &str = "profile.json";

/// Writes them all: what is shown first, and each of the others whatever becomes of those before it.
///
/// # Errors
/// Some cannot be written: the first of them, and how many more.
pub fn write(run: &Path, summary: &Summary) -> anyhow::Result<()> {
    let mut failures = vec![shown(run, summary)];
    let folder = run.join(FOLDER);
    match fs::create_dir_all(&folder) {
        Ok(()) => pictures(&folder, summary, &mut failures),
        Err(error) => {
            let why = format!("cannot make {}", folder.display());
            failures.push(Err(error).context(why));
        }
    }
    let mut failures = failures.into_iter().filter_map(Result::err);
    match (failures.next(), failures.count()) {
        (None, _) => Ok(()),
        (Some(first), 0) => Err(first),
        (Some(first), more) => {
            Err(first.context(format!("{} files of the profiles are missing", more + 1)))
        }
    }
}

/// The table, as it is printed.
fn shown(run: &Path, summary: &Summary) -> anyhow::Result<()> {
    let shown =
        serde_json::to_string_pretty(&summary.shown()).context("cannot write the profile")?;
    put(run, SHOWN, (shown + "\n").as_bytes())
}

/// What is in the folder of the profiles; into `failures` goes how each went.
fn pictures(folder: &Path, summary: &Summary, failures: &mut Vec<anyhow::Result<()>>) {
    for profile in &summary.profiles {
        if profile.stacks.total() > 0 {
            failures.extend(one(folder, profile));
        }
    }
    for (first, other) in summary.pairs() {
        failures.push(difference(folder, summary, first, other));
    }
}

fn difference(
    folder: &Path,
    summary: &Summary,
    first: &Profile,
    other: &Profile,
) -> anyhow::Result<()> {
    let title = Title {
        title: format!("{}, {}: against {}", other.row, other.end.name(), first.row),
        subtitle: "CPU time a token; red: with what it calls it costs more than there, blue: less"
            .to_owned(),
    };
    let file = other.difference_file();
    let svg = flamegraph::difference_svg(&summary.side(first), &summary.side(other), &title);
    put(folder, &file, &drawn(&file, svg)?)
}

fn drawn(file: &str, svg: Result<Vec<u8>, FlamegraphError>) -> anyhow::Result<Vec<u8>> {
    svg.with_context(|| format!("cannot draw {file}"))
}

/// A profile's three files, each by itself.
fn one(folder: &Path, profile: &Profile) -> [anyhow::Result<()>; 3] {
    let title = Title {
        title: format!("{}, {}", profile.row, profile.end.name()),
        subtitle: format!("{} samples of CPU time", profile.stacks.total()),
    };
    let [svg, text, packed] = profile.files();
    let picture = drawn(&svg, flamegraph::svg(&profile.stacks, &title));
    [
        picture.and_then(|picture| put(folder, &svg, &picture)),
        put(folder, &text, folded::text(&profile.stacks).as_bytes()),
        put(
            folder,
            &packed,
            &protobuf::encode(&profile.stacks, profile.hertz()),
        ),
    ]
}

fn put(folder: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let path = folder.join(name);
    fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
