//! The rules of the house that a compiler does not know: who depends on whom, and where `unsafe` is.

mod workspace;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use workspace::{is_ours, metadata, packages, root, text};

/// Which of our crates each may depend on; `dev` adds what only its tests and benches may.
const EDGES: [(&str, &[&str], &[&str]); 11] = [
    ("tokenlag-probes", &[], &[]),
    ("tokenlag-dialect", &["tokenlag-probes"], &[]),
    (
        "tokenlag-channel",
        &["tokenlag-dialect", "tokenlag-probes"],
        &[],
    ),
    (
        "tokenlag-proxy",
        &[
            "tokenlag-channel",
            "tokenlag-dialect",
            "tokenlag-probes",
            "tokenlag-profiling",
        ],
        &["tokenlag-scripted", "tokenlag-loadgen"],
    ),
    (
        "tokenlag-loadgen",
        &["tokenlag-channel", "tokenlag-dialect", "tokenlag-probes"],
        &["tokenlag-scripted", "tokenlag-proxy"],
    ),
    (
        "tokenlag-backend",
        &["tokenlag-dialect", "tokenlag-probes"],
        &[],
    ),
    ("tokenlag-link", &[], &["tokenlag-probes"]),
    ("tokenlag-profiling", &[], &[]),
    (
        "tokenlag-scripted",
        &["tokenlag-channel", "tokenlag-dialect", "tokenlag-probes"],
        &[],
    ),
    (
        "tokenlag-instructions",
        &[
            "tokenlag-channel",
            "tokenlag-dialect",
            "tokenlag-probes",
            "tokenlag-proxy",
        ],
        &[],
    ),
    (
        "tokenlag",
        &[
            "tokenlag-backend",
            "tokenlag-channel",
            "tokenlag-dialect",
            "tokenlag-link",
            "tokenlag-loadgen",
            "tokenlag-probes",
            "tokenlag-profiling",
            "tokenlag-proxy",
        ],
        &["tokenlag-instructions", "tokenlag-scripted"],
    ),
];

/// Files that may hold `unsafe`: each says why, and each block what makes it sound.
const UNSAFE: [&str; 1] = ["backend/src/kernel.rs"];

#[test]
fn our_crates_depend_on_each_other_as_the_picture_says() {
    let metadata = metadata();
    let ours: BTreeSet<&str> = packages(&metadata)
        .iter()
        .filter(|package| is_ours(package))
        .map(|package| text(package, "name"))
        .collect();
    for package in packages(&metadata)
        .iter()
        .filter(|package| is_ours(package))
    {
        let name = text(package, "name");
        let (_, always, dev) = EDGES
            .iter()
            .find(|(known, ..)| *known == name)
            .unwrap_or_else(|| {
                panic!("{name} is not in the picture: add it to ARCHITECTURE.md and here")
            });
        for dependency in package["dependencies"].as_array().expect("a list") {
            let on = text(dependency, "name");
            if !ours.contains(on) {
                continue;
            }
            let is_dev = dependency["kind"] == "dev";
            let allowed = always.contains(&on) || (is_dev && dev.contains(&on));
            assert!(allowed, "{name} must not depend on {on}");
        }
    }
}

#[test]
fn unsafe_code_is_where_it_is_said_to_be() {
    let mut found = BTreeSet::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)
            .expect("the folder is readable")
            .flatten()
        {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() && name != "target" && name != ".git" && name != "runs" {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && has_unsafe(&path)
            {
                found.insert(path);
            }
        }
    }
    let allowed: BTreeSet<PathBuf> = UNSAFE.iter().map(|file| root().join(file)).collect();
    assert!(
        found.is_subset(&allowed),
        "unsafe code in {:?}",
        found.difference(&allowed)
    );
}

/// The keyword in code, not in a comment, an attribute or a string.
fn has_unsafe(path: &Path) -> bool {
    let keyword = concat!("un", "safe");
    let starts = ["{", "fn", "impl", "extern", "trait"];
    let source = fs::read_to_string(path).expect("the file is readable");
    source
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.starts_with("//"))
        .any(|line| {
            line.match_indices(keyword).any(|(at, _)| {
                let rest = line[at + keyword.len()..].trim_start();
                line[at + keyword.len()..].starts_with(' ')
                    && starts.iter().any(|start| rest.starts_with(start))
            })
        })
}
