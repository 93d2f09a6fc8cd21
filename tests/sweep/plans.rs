//! Which comparisons a plan and the command line make, and what makes no sense.

use std::path::Path;

use crate::support::{assert_code, assert_tells, json, run, stdout};
use crate::{PLAN, planned};

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
