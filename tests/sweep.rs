//! A plan's sweep end to end: every combination in a folder of its own, one report of all, and what ends it early.

mod support;

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{
    assert_code, assert_tells, children_of_rig, json, run, signal, stderr, stdout, tokenlag,
    wait_until,
};

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

#[test]
fn every_combination_has_a_folder_and_all_have_one_report() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, out) = planned(folder.path(), PLAN);
    let place = out.to_str().unwrap();
    let output = run(&[
        "compare", "--plan", &plan, "--out", place, "--output", "json",
    ]);
    assert_code(&output, 0);
    let printed: Value =
        serde_json::from_slice(&output.stdout).expect("standard output is the index alone");
    let index = json(&out.join("sweep.json"));
    assert_eq!(printed, index);
    assert_eq!(index["schema"], "tokenlag.sweep/1");
    assert!(index["ended_at"].is_string(), "{index}");
    let cases = index["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for (case, (osl, tls)) in cases
        .iter()
        .zip([(3, "off"), (3, "on"), (6, "off"), (6, "on")])
    {
        assert_eq!(case["exit"], 0, "{case}");
        let values = serde_json::json!({"osl": osl.to_string(), "tls": tls});
        assert_eq!(case["values"], values);
        let run = out.join(case["folder"].as_str().unwrap());
        let report = json(&run.join("report.json"));
        assert_eq!(report["conditions"]["tls"], tls == "on", "{case}");
        assert_eq!(report["plan"]["workload"]["output"], osl);
        // It can be run again alone.
        let words = report["command_line"].to_string();
        assert!(
            words.contains("--case=") && !words.contains("die-with-parent"),
            "{words}"
        );
        check_floor(&report, &case["found"]);
    }

    let shown = run(&["report", "show", place]);
    assert_code(&shown, 0);
    let shown = stdout(&shown);
    assert!(shown.contains("The sweep's 4 comparisons"), "{shown}");
    assert!(shown.contains("3/off") && shown.contains("6/on"), "{shown}");

    let legs = run(&["report", "show", "--legs", place]);
    assert_code(&legs, 2);
    assert_tells(&legs, "01-osl-3-tls-off");

    let again = run(&["compare", "--plan", &plan, "--out", place]);
    assert_code(&again, 2);
    assert_tells(&again, "already holds a run");

    let newer = index.to_string().replace("sweep/1", "sweep/2");
    fs::write(out.join("sweep.json"), newer).unwrap();
    let unknown = run(&["report", "show", place]);
    assert_code(&unknown, 1);
    assert_tells(&unknown, "its schema is 'tokenlag.sweep/2'");
}

/// What physics leaves was measured once, stands beside the overheads, and is what the net figures are less by.
#[track_caller]
fn check_floor(report: &Value, found: &Value) {
    let floor = &report["floor"];
    assert_eq!(floor["source"], "connect", "{floor}");
    let round_trip = floor["round_trip_ns"].as_i64().unwrap();
    assert!(round_trip > 0);
    assert_eq!(&found["floor"], floor);
    let rows = report["channels"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for (row, short) in rows.iter().zip(found["channels"].as_array().unwrap()) {
        let whole = row["metrics"]["roundtrip_overhead"]["p50"]
            .as_i64()
            .unwrap();
        let net = row["net_of_floor"]["roundtrip_overhead"]["p50"].as_i64();
        assert_eq!(net, Some(whole - round_trip));
        assert_eq!(short["p50_ns"]["roundtrip_overhead"], whole);
        assert_eq!(short["net_p50_ns"]["roundtrip_overhead"].as_i64(), net);
        assert_eq!(
            row["net_of_floor"]["setup"]["p50"],
            row["metrics"]["setup"]["p50"]
        );
    }
}

#[test]
fn flags_leave_out_what_they_say_and_one_case_can_run_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, out) = planned(folder.path(), PLAN);
    let place = out.to_str().unwrap();
    let output = run(&["compare", "--plan", &plan, "--osl", "4", "--out", place]);
    assert_code(&output, 0);
    let index = json(&out.join("sweep.json"));
    let cases = index["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 2);
    assert!(cases.iter().all(|case| case["values"]["osl"].is_null()));
    let text = stdout(&output);
    assert!(text.contains("case 2 of 2: tls on"), "{text}");
    assert!(text.contains("roundtrip overhead, p50 in"), "{text}");

    // Where they leave nothing to vary it is one comparison as any other.
    let one = folder.path().join("one");
    let fixed = ["--osl", "4", "--tls", "--out", one.to_str().unwrap()];
    let output = run(&[&["compare", "--plan", &plan], fixed.as_slice()].concat());
    assert_code(&output, 0);
    assert!(one.join("report.json").exists());

    let alone = folder.path().join("alone");
    let alone = alone.to_str().unwrap();
    let legs = ["--case", "4", "--legs", "--out", alone];
    let output = run(&[&["compare", "--plan", &plan], legs.as_slice()].concat());
    assert_code(&output, 0);
    let report = json(&Path::new(alone).join("report.json"));
    assert_eq!(report["conditions"]["tls"], true);
    assert_eq!(report["plan"]["workload"]["output"], 6);
    let text = stdout(&output);
    assert!(
        text.contains("its legs") && text.contains("beyond its floor"),
        "{text}"
    );
    let again = run(&["report", "show", "--legs", alone]);
    assert!(stdout(&again).contains("its legs"), "{}", stdout(&again));

    let turns = stdout(&run(&["report", "turns", alone]));
    assert!(
        turns.starts_with("request_transfer at each turn"),
        "{turns}"
    );
    let lines: Vec<&str> = turns.lines().skip(3).collect();
    assert_eq!(lines.len(), 2, "{turns}");
    assert!(
        lines[1].starts_with("2 ") && !lines[1].contains('-'),
        "{turns}"
    );
    let refused = run(&["report", "turns", alone, "--figure", "ttfb"]);
    assert_code(&refused, 2);

    for (flags, says) in [
        (["--case", "5"], "the plan's sweep has 4 comparisons"),
        (["--case", "0"], "the plan's sweep has 4 comparisons"),
        (
            ["--zero-rtt", "--no-direct"],
            "--zero-rtt needs --resumption on",
        ),
    ] {
        let refused = run(&[&["compare", "--plan", &plan], flags.as_slice()].concat());
        assert_code(&refused, 2);
        assert_tells(&refused, says);
    }
}

#[test]
fn a_flag_may_need_one_that_varies() {
    let folder = tempfile::tempdir().unwrap();
    let text = PLAN.replace(
        "tls = [false, true]\nosl = [3, 6]",
        "request-rate = [20, 40]",
    );
    let text = format!("arrival-pattern = \"constant\"\nosl = 3\nnum-prompts = 4\n{text}");
    let text = text.replace("blocks = 2\n", "blocks = 1\n");
    let (plan, out) = planned(folder.path(), &text);
    let place = out.to_str().unwrap();
    let output = run(&["compare", "--plan", &plan, "--out", place]);
    assert_code(&output, 0);
    let index = json(&out.join("sweep.json"));
    let cases = index["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 2);
    for (case, rate) in cases.iter().zip(["20", "40"]) {
        assert_eq!(case["values"]["request-rate"], rate);
        assert_eq!(case["exit"], 0, "{case}");
    }
}

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
    let child = Command::new(&program)
        .args(["compare", "--plan", &plan, "--out", out.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
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
    let child = Command::new(&program)
        .args(["compare", "--plan", &plan, "--out", out.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
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
fn links_may_vary() {
    let folder = tempfile::tempdir().unwrap();
    let links = "link = [\"rtt=2ms\", \"rtt=5ms\"]\nosl = [3]\n";
    let text = PLAN.replace("tls = [false, true]\nosl = [3, 6]\n", links);
    let (plan, out) = planned(folder.path(), &text);
    let output = run(&["compare", "--plan", &plan, "--out", out.to_str().unwrap()]);
    let index = json(&out.join("sweep.json"));
    let cases = index["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 2);
    if stderr(&output).contains("an emulated link needs CAP_SYS_ADMIN and CAP_NET_ADMIN") {
        assert_code(&output, 1);
        assert!(cases.iter().all(|case| case["exit"] == 1), "{index}");
        eprintln!("not checked: this process may make no links");
        return;
    }
    assert_code(&output, 0);
    for (case, (link, round_trip)) in cases
        .iter()
        .zip([("rtt=2ms", 2_000_000), ("rtt=5ms", 5_000_000)])
    {
        assert_eq!(case["values"]["link"], link);
        let found = &case["found"];
        assert_eq!(found["floor"]["source"], "link", "{case}");
        assert_eq!(found["floor"]["round_trip_ns"], round_trip);
        // It was the link that was measured, and not only its settings that were noted.
        for row in found["channels"].as_array().unwrap() {
            let overhead = row["p50_ns"]["roundtrip_overhead"].as_i64().unwrap();
            assert!(overhead >= round_trip, "{row}");
        }
    }
    let text = stdout(&output);
    assert!(
        text.contains("rtt=2ms/3") && text.contains("rtt=5ms/3"),
        "{text}"
    );
    assert!(text.contains("(floor)"), "{text}");
    assert!(
        text.contains("per-token overhead beyond the floor"),
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
fn a_sweep_that_makes_no_sense_is_refused_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    for (sweep, says) in [
        ("tls = true", "sweep.tls must be a list"),
        ("tlss = [true]", "does not know: tlss"),
        ("api-key = [\"a\", \"b\"]", "sweep.api-key: what varies"),
        ("header = [\"X: a\", \"Y: b\"]", "sweep.header: what varies"),
        ("osl = [3, 0]", "invalid value '0' for '--osl"),
        ("workload = [\"edits\"]", "unknown workload 'edits'"),
        ("resumption = [\"off\", \"on\"]", "case 2: resumption on"),
    ] {
        let text = format!("channels = [\"http\"]\n[sweep]\n{sweep}\n");
        let (plan, out) = planned(folder.path(), &text);
        let output = run(&["compare", "--plan", &plan, "--out", out.to_str().unwrap()]);
        assert_code(&output, 2);
        assert_tells(&output, says);
        assert!(!out.exists(), "{sweep}");
    }
    let (plan, _) = planned(
        folder.path(),
        "url = \"http://127.0.0.1:9\"\n[sweep]\nosl = [1]\n",
    );
    let output = run(&["load", "--plan", &plan]);
    assert_code(&output, 2);
    assert_tells(&output, "does not know: sweep");
}

#[test]
fn the_plans_that_are_here_are_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans");
    for (name, count) in [("spark.toml", 12), ("spark-quick.toml", 4)] {
        let plan = root.join(name);
        let plan = plan.to_str().unwrap();
        let beyond = run(&["compare", "--plan", plan, "--case", "100"]);
        assert_code(&beyond, 2);
        assert_tells(&beyond, &format!("has {count} comparisons"));
        // All values are read before the flags are found to make no sense together.
        let refused = run(&["compare", "--plan", plan, "--zero-rtt"]);
        assert_code(&refused, 2);
        assert_tells(&refused, "case 1: ");
    }
}

#[test]
fn one_that_fails_is_named_and_the_others_run() {
    let folder = tempfile::tempdir().unwrap();
    let closed = support::closed_port();
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
