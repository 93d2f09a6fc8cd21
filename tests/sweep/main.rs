//! A plan's sweep end to end: every combination in a folder of its own, one report of all, and what ends it early.

mod course;
mod plans;
mod report;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};

/// Two rows of a few tokens, in clear and over TLS, with shorter and longer answers.
const PLAN: &str = r#"
channels = ["http", "ws"]
state = ["full"]
blocks = 2
turns = 2
isl = 48
later-isl = 8
no-direct = true
allow-untrusted = true
ui = "none"

[sweep]
tls = [false, true]
osl = [3, 6]
"#;

fn planned(folder: &Path, text: &str) -> (String, PathBuf) {
    let plan = folder.join("plan.toml");
    fs::write(&plan, text).expect("there is room for files");
    let out = folder.join("sweep");
    (plan.to_str().expect("text").to_owned(), out)
}
