//! A backend with known token times, a proxy before it, and runs between them whose verdict is looked at.

use std::process::{Command, Output};

use nix::unistd::geteuid;
use serde_json::Value;
use tokenlag_scripted::ScriptedBackend;

use crate::support::{Proxy, assert_code, json, not_checked, run, stderr, stdout, tokenlag};

/// What a run left.
pub struct Told {
    /// How it ended, and what it said.
    pub output: Output,
    /// Its report.
    pub report: Value,
}

impl Told {
    /// The codes of its verdict's warnings.
    pub fn codes(&self) -> Vec<&str> {
        let code = |warning: &'_ Value| warning["code"].as_str().map(str::len);
        let warnings = self.warnings();
        assert!(warnings.iter().all(|it| code(it).is_some()), "{warnings:?}");
        warnings
            .iter()
            .filter_map(|it| it["code"].as_str())
            .collect()
    }

    /// Fails unless the verdict warns so, in a message with all of `figures`, and says what to do; and unless tables and exit
    /// code agree. Gives the message.
    #[track_caller]
    pub fn assert_warns(&self, code: &str, figures: &[&str]) -> &str {
        let mut named = self.warnings().iter().filter(|it| it["code"] == code);
        let warning = named.find(|warning| {
            let message = warning["message"].as_str().unwrap_or_default();
            figures.iter().all(|figure| message.contains(figure))
        });
        let Some(warning) = warning else {
            panic!("no {code} with {figures:?} in {:#?}", self.warnings());
        };
        assert!(warning["remedy"].as_str().is_some_and(|it| !it.is_empty()));
        let page = include_str!("../../docs/verdict.md");
        assert!(page.contains(&format!("### `{code}`")), "it is documented");
        assert_eq!(self.report["verdict"]["trusted"], false);
        assert!(
            stdout(&self.output).contains(code),
            "{}",
            stdout(&self.output)
        );
        assert_code(&self.output, 3);
        warning["message"].as_str().unwrap_or_default()
    }

    /// Fails if the verdict warns so.
    #[track_caller]
    pub fn assert_silent(&self, code: &str) {
        assert!(!self.codes().contains(&code), "{:#?}", self.warnings());
    }

    fn warnings(&self) -> &[Value] {
        let warnings = self.report["verdict"]["warnings"].as_array();
        warnings.expect("there is a verdict")
    }
}

/// Runs the command with these words (separated by blanks), then `more`, and reads its report.
#[track_caller]
pub fn told(words: &str, more: &[&str]) -> Told {
    told_by(&[], words, more)
}

/// The same where the command is told to run another one: `before` ends where that one's words begin.
#[track_caller]
pub fn told_by(before: &[&str], words: &str, more: &[&str]) -> Told {
    let words = words.split(' ').chain(more.iter().copied());
    let args: Vec<&str> = before.iter().copied().chain(words).collect();
    told_of(tokenlag(&args))
}

/// The same of a command that lacks nothing but where to leave its run.
#[track_caller]
pub fn told_of(mut command: Command) -> Told {
    let folder = tempfile::tempdir().expect("there is room for files");
    let out = folder.path().join("run");
    command.args(["--ui", "none", "--out"]).arg(&out);
    let output = command.output().expect("the command starts");
    let report = out.join("report.json");
    assert!(report.exists(), "{}\n{}", stdout(&output), stderr(&output));
    Told {
        report: json(&report),
        output,
    }
}

/// Whether links can be made here that the host's own processes are reached over; says why where they cannot.
pub fn may_link() -> bool {
    let probe = run(&["link", "--rtt", "1ms", "--", "true"]);
    if !probe.status.success() {
        let why = stderr(&probe);
        assert!(why.contains("CAP_NET_ADMIN"), "{why}");
        not_checked(why.trim());
    }
    probe.status.success() && geteuid().is_root()
}

/// A backend with this script.
#[track_caller]
pub fn scripted(script: &str) -> ScriptedBackend {
    let script = script.parse().expect("the script can be read");
    ScriptedBackend::start(script).expect("the backend starts")
}

/// A small comparison of HTTP alone with the control, over a proxy that is there.
#[track_caller]
pub fn compared(backend: &str, listen: &str, admin: &str) -> Told {
    let words = "compare --channels http --state full --blocks 3 --turns 4 --isl 48 --later-isl 8 --osl 24 --model m";
    told(
        words,
        &["--url", backend, "--proxy", listen, "--proxy-admin", admin],
    )
}

/// The same, over a proxy of its own that `before` stands before.
#[track_caller]
pub fn compared_over(backend: &ScriptedBackend, before: impl FnOnce(&str) -> String) -> Told {
    let proxy = Proxy::start(&backend.url());
    compared(&backend.url(), &before(&proxy.listen), &proxy.admin)
}
