//! The rules of the house that a compiler does not know: who depends on whom, where `unsafe` is, whose code comes in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Which of our crates each may depend on; `dev` adds what only its tests and benches may.
const EDGES: [(&str, &[&str], &[&str]); 8] = [
    ("tokenlag-probes", &[], &[]),
    ("tokenlag-dialect", &["tokenlag-probes"], &[]),
    (
        "tokenlag-channel",
        &["tokenlag-dialect", "tokenlag-probes"],
        &[],
    ),
    (
        "tokenlag-proxy",
        &["tokenlag-channel", "tokenlag-dialect", "tokenlag-probes"],
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
    (
        "tokenlag-scripted",
        &["tokenlag-dialect", "tokenlag-probes"],
        &[],
    ),
    (
        "tokenlag",
        &[
            "tokenlag-backend",
            "tokenlag-channel",
            "tokenlag-dialect",
            "tokenlag-loadgen",
            "tokenlag-probes",
            "tokenlag-proxy",
        ],
        &["tokenlag-scripted"],
    ),
];

/// Files that may hold `unsafe`: each says why, and each block what makes it sound.
const UNSAFE: [&str; 1] = ["backend/src/kernel.rs"];

/// Licences that we may build upon.
const LICENCES: [&str; 13] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that are there in several versions, and why that is so.
const DUPLICATES: [(&str, &str); 2] = [
    (
        "base64",
        "hdrhistogram writes its logs with 0.22, and pem (of rcgen) reads keys with 0.23",
    ),
    (
        "getrandom",
        "ring seeds its keys with 0.2, the rest of the world with 0.4",
    ),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What is built for Linux: other systems' crates are in the lock file and never compiled.
fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

fn packages(metadata: &Value) -> &Vec<Value> {
    metadata["packages"].as_array().expect("a list of packages")
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_default()
}

fn is_ours(package: &Value) -> bool {
    package["source"].is_null()
}

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

#[test]
fn licences_are_ones_that_we_may_build_upon() {
    let metadata = metadata();
    for package in packages(&metadata) {
        let licence = text(package, "license");
        assert!(
            is_allowed(licence),
            "{}: licence '{licence}'",
            text(package, "name")
        );
    }
}

/// An SPDX expression of `OR`, `AND` and parentheses; `/` is an older way to write `OR`.
fn is_allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let expression = expression.trim();
    let mut depth = 0;
    for (operator, all) in [(" OR ", false), (" AND ", true)] {
        let mut parts = Vec::new();
        let mut start = 0;
        for (at, character) in expression.char_indices() {
            match character {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            if depth == 0 && expression[at..].starts_with(operator) {
                parts.push(&expression[start..at]);
                start = at + operator.len();
            }
        }
        if !parts.is_empty() {
            parts.push(&expression[start..]);
            return match all {
                true => parts.into_iter().all(is_allowed),
                false => parts.into_iter().any(is_allowed),
            };
        }
    }
    match expression
        .strip_prefix('(')
        .and_then(|inner| inner.strip_suffix(')'))
    {
        Some(inner) => is_allowed(inner),
        None => LICENCES.contains(&expression),
    }
}

#[test]
fn licence_expressions_are_read_as_spdx_says() {
    for (expression, allowed) in [
        ("MIT", true),
        ("MIT OR Apache-2.0", true),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0", false),
        ("", false),
        ("MIT/Apache-2.0", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("(GPL-2.0 OR LGPL-3.0) AND MIT", false),
        ("MIT AND GPL-3.0", false),
    ] {
        assert_eq!(is_allowed(expression), allowed, "{expression}");
    }
}

#[test]
fn all_foreign_code_comes_from_the_registry() {
    let metadata = metadata();
    for package in packages(&metadata)
        .iter()
        .filter(|package| !is_ours(package))
    {
        let source = text(package, "source");
        assert_eq!(
            source,
            "registry+https://github.com/rust-lang/crates.io-index",
            "{}",
            text(package, "name")
        );
    }
}

#[test]
fn no_crate_is_there_twice_without_a_reason() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in tree().lines() {
        let mut words = line.split(' ');
        if let (Some(name), Some(version)) = (words.next(), words.next()) {
            versions
                .entry(name.to_owned())
                .or_default()
                .insert(version.to_owned());
        }
    }
    let known = |name: &str| DUPLICATES.iter().any(|(known, _)| *known == name);
    let twice: Vec<_> = versions
        .iter()
        .filter(|(name, versions)| versions.len() > 1 && !known(name))
        .collect();
    assert!(
        twice.is_empty(),
        "several versions: {twice:?}; find a way without, or name the reason"
    );
    for (name, _) in DUPLICATES {
        let count = versions.get(name).map_or(0, BTreeSet::len);
        assert!(
            count > 1,
            "{name} is there {count} times: take it off the list"
        );
    }
}

/// Every package that is built, tests included, one a line.
fn tree() -> String {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--workspace",
            "--locked",
            "--offline",
            "--prefix=none",
            "--format={p}",
        ])
        .args([
            "--edges=normal,build,dev",
            "--target=x86_64-unknown-linux-gnu",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
