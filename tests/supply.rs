//! Whose code comes in: licences, the registry, and crates that are there twice.

mod workspace;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use workspace::{is_ours, metadata, packages, root, text};

/// Licences that we may build upon.
const LICENCES: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    // It binds file by file, and ours are none of those: inferno, which draws flamegraphs, is taken as it is.
    "CDDL-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that are there in several versions, and why that is so.
const DUPLICATES: [(&str, &str); 5] = [
    (
        "base64",
        "hdrhistogram writes its logs with 0.22, and pem (of rcgen) reads keys with 0.23",
    ),
    (
        "bitflags",
        "nix 0.26 (of pprof) has 1, the rest of the world 2",
    ),
    (
        "getrandom",
        "ring seeds its keys with 0.2, the rest of the world with 0.4",
    ),
    ("nix", "pprof sets its signal with 0.26, we with 0.31"),
    (
        "syn",
        "prost (for pprof's files) and zerocopy (of inferno's hashes) derive with 2, the rest of the world with 3",
    ),
];

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
