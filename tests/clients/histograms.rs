//! HdrHistogram's own tools read our histogram files: its Python package, the counts and percentiles of a run's logs.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use tokenlag_probes::folder::recorder_log;
use tokenlag_probes::{
    Metric, Recorder, Recorders, Row, RunFolder, RunRecord, SignedHistogram, TokenStamps,
};

use crate::client::{run, said};
use crate::install::{self, source};
use crate::support::stdout;

/// 5,000 values from 100 ns to some seconds, every fifth below zero, and one above the hour. Percentiles of such round
/// numbers are whole ranks, and nobody has to round.
fn record(recorder: &mut Recorder, metric: Metric, salt: u64) {
    recorder.record(metric, i64::MAX);
    for k in 0..4_999u64 {
        let noise = (k ^ salt << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let value = 100 + (noise >> (64 - 7 - k % 26)) as i64;
        recorder.record(metric, if k % 5 == 0 { -value } else { value });
    }
}

/// A run's folder with two intervals of each figure, and all of them together.
fn write(folder: &Path, row: Row) -> Recorder {
    let manifest = RunRecord::begin("load", UNIX_EPOCH, vec![row]);
    let mut run = RunFolder::create(folder, &manifest, TokenStamps::Drop).expect("there is room");
    let mut whole = Recorder::new();
    for part in 0..2 {
        let mut recorder = Recorder::new();
        for metric in Metric::ALL {
            record(&mut recorder, metric, part + 2 * metric as u64);
        }
        let start = Duration::from_secs(part);
        run.append_interval(row, start, Duration::from_secs(1), &recorder)
            .expect("the disk takes it");
        whole.merge(&recorder);
    }
    let recorders = Recorders::from([(row, whole.clone())]);
    run.finish(&manifest, &recorders)
        .expect("the disk takes it");
    whole
}

/// What the package read of a file: by tag, the count and the values at the quantiles that the script asks for.
fn read(python: &Path, file: &Path) -> BTreeMap<String, Value> {
    let mut command = Command::new(python);
    command.arg(source("python/read_histograms.py")).arg(file);
    let output = run(&mut command, "the virtual environment is broken");
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_str(&stdout(&output)).expect("the script prints JSON")
}

/// The same of ours: of the values below zero, or of the others.
fn ours(histogram: &SignedHistogram, negative: bool) -> Value {
    let part = match negative {
        true => histogram.negative(),
        false => histogram.positive(),
    };
    let values = part.expect("it has values");
    let mut one = SignedHistogram::default();
    for step in values.iter_recorded() {
        for _ in 0..step.count_at_value() {
            one.record(step.value_iterated_to() as i64);
        }
    }
    let at = |percent: f64| one.value_at_quantile(percent / 100.0);
    json!({
        "count": values.len(),
        "max": values.max(),
        "percentiles": [at(0.0), at(50.0), at(90.0), at(99.0), at(99.9), at(100.0)],
    })
}

#[test]
fn python_reads_the_logs_of_a_run_and_of_a_proxy() {
    let Some(python) = install::hdrhistogram() else {
        println!("skipped: python3 has no pip here");
        return;
    };
    let place = tempfile::tempdir().expect("there is room");
    let folder = place.path().join("run");
    let row: Row = "ws/incremental".parse().expect("a row");
    let whole = write(&folder, row);
    for metric in Metric::ALL {
        let log = read(&python, &folder.join(format!("{metric}.hlog")));
        let histogram = whole.histogram(metric);
        let expected = BTreeMap::from([
            (row.to_string(), ours(histogram, false)),
            (format!("{row}:negative"), ours(histogram, true)),
        ]);
        assert_eq!(log, expected, "{metric}");
    }

    let of_proxy = place.path().join("proxy.hlog");
    let rows = [("ws", &whole)];
    let log = recorder_log(UNIX_EPOCH, Duration::from_secs(2), rows.into_iter())
        .expect("it is serialised");
    std::fs::write(&of_proxy, log).expect("there is room");
    let log = read(&python, &of_proxy);
    assert_eq!(log.len(), 2 * Metric::ALL.len());
    for metric in Metric::ALL {
        let name = format!("ws.{metric}");
        assert_eq!(log[&name], ours(whole.histogram(metric), false), "{name}");
        let name = format!("{name}:negative");
        assert_eq!(log[&name], ours(whole.histogram(metric), true), "{name}");
    }
}

#[test]
fn percentile_files_say_what_python_counts() {
    let Some(python) = install::hdrhistogram() else {
        println!("skipped: python3 has no pip here");
        return;
    };
    let place = tempfile::tempdir().expect("there is room");
    let folder = place.path().join("run");
    let row: Row = "ws/incremental".parse().expect("a row");
    write(&folder, row);
    let mut command = Command::new(&python);
    command
        .arg(source("python/read_histograms.py"))
        .args(["--hgrm", &row.to_string()])
        .arg(folder.join("ttft.hlog"))
        .arg(folder.join("ws-incremental.ttft.hgrm"));
    let output = run(&mut command, "the virtual environment is broken");
    assert!(output.status.success(), "{}", said(&output));
    let lines: usize = stdout(&output).trim().parse().expect("a number");
    assert!(lines > 20, "{lines}");
}
