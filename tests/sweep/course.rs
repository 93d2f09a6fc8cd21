//! What may happen while a sweep runs, and what it leaves behind then.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{
    assert_code, assert_tells, children_of_rig, closed_port, json, run, signal, stderr, stdout,
    tokenlag, wait_until,
};
use crate::{PLAN, planned};

/// The comparisons of a sweep that is done: the answers' lengths that their reports have, in order.
#[track_caller]
fn lengths(out: &Path) -> Vec<Value> {
    let index = json(&out.join("sweep.json"));
    let length = |case: &Value| {
        assert_eq!(case["exit"], 0, "{case}");
        let run = out.join(case["folder"].as_str().unwrap());
        let report = json(&run.join("report.json"));
        report["plan"]["workload"]["output"].clone()
    };
    index["cases"]
        .as_array()
        .unwrap()
        .iter()
        .map(length)
        .collect()
}

/// Starts the sweep of `plan` by a file of the program that is the test's own.
fn started(program: &Path, plan: &str, out: &Path) -> Child {
    Command::new(program)
        .args(["compare", "--plan", plan, "--out", out.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn what_becomes_of_the_plan_and_the_program_meanwhile_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let text = PLAN.replace("tls = [false, true]\n", "");
    let (plan, out) = planned(folder.path(), &text);
    let program = folder.path().join("tokenlag");
    let built = env!("CARGO_BIN_EXE_tokenlag");
    if fs::hard_link(built, &program).is_err() {
        fs::copy(built, &program).expect("there is room for the program");
    }
    let child = started(&program, &plan, &out);
    let first = out.join("01-osl-3");
    let begun = || first.exists();
    wait_until(
        "the first comparison begins",
        Duration::from_secs(60),
        begun,
    );
    fs::write(&plan, text.replace("[3, 6]", "[4, 5, 7]")).unwrap();
    fs::remove_file(&program).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_code(&output, 0);
    assert_eq!(lengths(&out), [3, 6]);

    // A case that is repeated finds the plan as it was.
    let kept = out.join("sweep.plan.toml");
    assert_eq!(fs::read_to_string(&kept).unwrap(), text);
    let report = json(&first.join("report.json")).to_string();
    assert!(report.contains("sweep.plan.toml"), "{report}");
    assert!(!report.contains("plan-on-stdin"), "{report}");
    let again = folder.path().join("again");
    let kept = ["compare", "--plan", kept.to_str().unwrap(), "--case", "2"];
    let again = ["--out", again.to_str().unwrap()];
    assert_code(&run(&[kept.as_slice(), &again].concat()), 0);
}

#[test]
fn a_comparison_that_cannot_be_started_is_one_that_did_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let text = PLAN.replace("tls = [false, true]\n", "");
    let (plan, out) = planned(folder.path(), &text.replace("blocks = 2", "blocks = 10"));
    let program = folder.path().join("tokenlag");
    fs::copy(env!("CARGO_BIN_EXE_tokenlag"), &program).expect("there is room for the program");
    let child = started(&program, &plan, &out);
    let log = out.join("01-osl-3").join("exchanges.jsonl");
    let measured = || fs::metadata(&log).is_ok_and(|file| file.len() > 0);
    wait_until(
        "the first comparison measures",
        Duration::from_secs(60),
        measured,
    );
    // Nobody may execute it any more, not even root.
    fs::set_permissions(&program, Permissions::from_mode(0o600)).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_code(&output, 1);
    assert_tells(&output, "case 2: cannot start a comparison of the sweep");
    let index = json(&out.join("sweep.json"));
    assert!(index["ended_at"].is_string(), "{index}");
    assert_eq!(index["cases"][0]["exit"], 0);
    assert!(index["cases"][1]["exit"].is_null());
    let text = stdout(&output);
    assert!(text.contains("roundtrip overhead, p50 in"), "{text}");
    assert!(
        text.contains("6 (02-osl-6): did not run to its end"),
        "{text}"
    );
}

#[test]
fn a_plan_may_come_from_a_pipe_and_its_secrets_are_not_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let text = PLAN.replace("tls = [false, true]\n", "");
    let secrets =
        "api-key = \"sk-secret-1\"\nheader = [\"X-One: sk-secret-2\", \"X-Two: sk-secret-3\"]\n";
    let out = folder.path().join("sweep");
    let mut child = tokenlag(&["compare", "--plan", "/dev/stdin"])
        .args(["--out", out.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(format!("{secrets}{text}").as_bytes())
        .unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_code(&output, 0);
    assert_eq!(lengths(&out), [3, 6]);
    let report = json(&out.join("01-osl-3").join("report.json"));
    let headers = &report["plan"]["headers"];
    assert_eq!(
        headers,
        &serde_json::json!(["authorization", "X-One", "X-Two"])
    );
    assert_open(&output.stdout);
    assert_open(&output.stderr);
    assert!(out.join("sweep.plan.toml").exists());
    assert_all_open(&out);
}

#[track_caller]
fn assert_open(written: &[u8]) {
    let text = String::from_utf8_lossy(written);
    assert!(!text.contains("sk-secret"), "{text}");
}

#[track_caller]
fn assert_all_open(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.path() {
            path if path.is_dir() => assert_all_open(&path),
            path => assert_open(&fs::read(path).unwrap()),
        }
    }
}

#[test]
fn one_that_fails_is_named_and_the_others_run() {
    let folder = tempfile::tempdir().unwrap();
    let closed = closed_port();
    let text = format!(
        "{}url = [\"http://{closed}\"]\nmodel = [\"m\"]\n",
        PLAN.replace("osl = [3, 6]", "osl = [3]")
    );
    let (plan, out) = planned(folder.path(), &text);
    let output = run(&["compare", "--plan", &plan, "--out", out.to_str().unwrap()]);
    assert_code(&output, 1);
    let index = json(&out.join("sweep.json"));
    for case in index["cases"].as_array().unwrap() {
        assert_eq!(case["exit"], 1, "{case}");
        assert!(case["found"].is_null(), "{case}");
    }
    let text = stdout(&output);
    let words: Vec<&str> = text.split_whitespace().collect();
    let told = words.join(" ");
    assert_eq!(
        told.matches("found nothing (exit code 1)").count(),
        2,
        "{text}"
    );
}

#[test]
fn an_interrupted_sweep_keeps_what_it_has_and_leaves_no_process() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, out) = planned(
        folder.path(),
        &PLAN.replace("blocks = 2", "blocks = 100000"),
    );
    let place = out.to_str().unwrap();
    let child = tokenlag(&["compare", "--plan", &plan, "--out", place])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let log = out.join("01-osl-3-tls-off").join("exchanges.jsonl");
    let measured = || fs::metadata(&log).is_ok_and(|file| file.len() > 0);
    wait_until(
        "the first comparison measures",
        Duration::from_secs(60),
        measured,
    );
    let comparison = children_of_rig(child.id());
    assert_eq!(comparison.len(), 1, "{comparison:?}");
    signal(pid, Signal::SIGINT);
    let output = child.wait_with_output().unwrap();
    assert_code(&output, 1);
    assert!(
        stderr(&output).contains("interrupted"),
        "{}",
        stderr(&output)
    );
    let index = json(&out.join("sweep.json"));
    assert!(index["ended_at"].is_null());
    let cases = index["cases"].as_array().unwrap();
    assert_eq!(cases[0]["exit"], 1);
    assert!(cases[0]["found"]["channels"].is_array(), "{index}");
    assert!(cases[1]["exit"].is_null());
    let (_, comparison) = &comparison[0];
    assert_eq!(children_of_rig(u32::try_from(*comparison).unwrap()), []);
    assert_eq!(children_of_rig(u32::try_from(pid).unwrap()), []);
}
