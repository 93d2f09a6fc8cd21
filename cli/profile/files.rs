//! The files of a run's profiles, in `profiles/` of its folder.

use std::fs;
use std::path::Path;

use anyhow::Context;
use tokenlag_profiling::{Title, flamegraph, folded, protobuf};

use super::summary::{Profile, Summary};

/// Where they are in the run's folder.
pub const FOLDER: &str = "profiles";
/// What is shown, as JSON.
const SHOWN: &str = "profile.json";

/// Writes them all.
///
/// # Errors
/// The folder cannot be written.
pub fn write(run: &Path, summary: &Summary) -> anyhow::Result<()> {
    let folder = run.join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for profile in &summary.profiles {
        if profile.stacks.total() > 0 {
            one(&folder, profile)?;
        }
    }
    for (first, other) in summary.pairs() {
        let title = Title {
            title: format!("{}, {}: against {}", other.row, other.end.name(), first.row),
            subtitle:
                "CPU time a token; red: with what it calls it costs more than there, blue: less"
                    .to_owned(),
        };
        let svg = flamegraph::difference_svg(&summary.side(first), &summary.side(other), &title)?;
        put(&folder, &other.difference_file(), &svg)?;
    }
    let shown =
        serde_json::to_string_pretty(&summary.shown()).context("cannot write the profile")?;
    put(run, SHOWN, (shown + "\n").as_bytes())
}

fn one(folder: &Path, profile: &Profile) -> anyhow::Result<()> {
    let title = Title {
        title: format!("{}, {}", profile.row, profile.end.name()),
        subtitle: format!("{} samples of CPU time", profile.stacks.total()),
    };
    let [svg, text, packed] = profile.files();
    put(folder, &svg, &flamegraph::svg(&profile.stacks, &title)?)?;
    put(folder, &text, folded::text(&profile.stacks).as_bytes())?;
    put(
        folder,
        &packed,
        &protobuf::encode(&profile.stacks, profile.hertz()),
    )
}

fn put(folder: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let path = folder.join(name);
    fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
