//! Folders written, interrupted, damaged and read back.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::exchange::{Exchange, FailureKind, HopExchange, Outcome};
use crate::join::JoinedExchange;
use crate::row::{State, Transport};
use crate::samples::{RowSketch, book, cell, cell_exchanges, exchange, hop, run};

const WS: Row = Row::events(Transport::Ws, State::Incremental);

fn sketches() -> [RowSketch; 2] {
    [(Row::HTTP_FULL, 200), (WS, 100)].map(|(row, request)| RowSketch {
        row,
        request,
        delta: 40,
        model: (5_000, 1_000),
    })
}

fn append(folder: &mut RunFolder, cell: &Cell, recorder: &Recorder) {
    let [start, duration] = [cell.started_ns, cell.duration_ns].map(Duration::from_nanos);
    folder
        .append_interval(cell.row, start, duration, recorder)
        .unwrap();
}

/// Writes a run of `blocks` blocks cell by cell, checkpointed after each block; the caller decides how it ends.
fn write(path: &Path, blocks: u32) -> (RunFolder, RunRecord, Recorders) {
    let (mut record, recorders) = run(&sketches(), blocks);
    let cells = std::mem::take(&mut record.cells);
    let mut folder = RunFolder::create(path, &record, TokenStamps::Drop).unwrap();
    for done in cells {
        let sketch = sketches().into_iter().find(|s| s.row == done.row).unwrap();
        let mut recorder = Recorder::new();
        book(&mut recorder, &sketch, done.block);
        folder
            .append_exchanges(done.row, &cell_exchanges(&sketch, done.block))
            .unwrap();
        append(&mut folder, &done, &recorder);
        record.cells.push(done);
        folder.checkpoint(&record).unwrap();
    }
    (folder, record, recorders)
}

#[test]
fn a_report_made_again_offline_is_the_one_of_the_time() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("runs/one");
    let (folder, record, recorders) = write(&path, 5);
    let report = folder.finish(&record, &recorders).unwrap();

    let back = RunFolder::open(&path).unwrap();
    assert_eq!(back.record, record);
    assert_eq!(back.report(), report);
    let written: Report =
        serde_json::from_slice(&fs::read(path.join("report.json")).unwrap()).unwrap();
    assert_eq!(written, report);
}

#[test]
fn negative_and_saturated_values_survive() {
    let dir = TempDir::new().unwrap();
    let (mut record, _) = run(&sketches(), 0);
    let mut folder =
        RunFolder::create(&dir.path().join("run"), &record, TokenStamps::Drop).unwrap();
    let mut odd = cell(&sketches()[1], 0, 0);
    let mut recorder = Recorder::new();
    book(&mut recorder, &sketches()[1], 0);
    for nanos in [-1, -5_000_000, 0, i64::MAX] {
        recorder.record(Metric::TokenOverhead, nanos);
    }
    odd.tallies = recorder.tallies().clone();
    odd.statistics = Default::default();
    odd.logged = Metric::ALL
        .map(|metric| (metric, recorder.histogram(metric).count()))
        .into();
    append(&mut folder, &odd, &recorder);
    record.cells.push(odd);
    let recorders = Recorders::from([(WS, recorder)]);
    let report = folder.finish(&record, &recorders).unwrap();

    let summary = report.row(WS).unwrap().metrics[&Metric::TokenOverhead];
    assert_eq!((summary.negatives, summary.saturated), (2, 1));
    let back = RunFolder::open(&dir.path().join("run")).unwrap();
    assert_eq!(back.report(), report);
}

#[test]
fn an_interrupted_run_reads_back_to_its_last_checkpoint() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("run");
    let (mut folder, record, recorders) = write(&path, 3);
    // One cell came after the checkpoint, and the line of another was cut.
    let late = cell(&sketches()[0], 7, 0);
    let mut recorder = Recorder::new();
    book(&mut recorder, &sketches()[0], 7);
    append(&mut folder, &late, &recorder);
    drop(folder);
    let log = path.join("ttft.hlog");
    let mut text = fs::read(&log).unwrap();
    text.extend(b"Tag=ws/incremental,9.000,1.0");
    fs::write(&log, text).unwrap();

    let back = RunFolder::open(&path).unwrap();
    assert_eq!(back.record.cells.len(), 6);
    assert_eq!(back.record, record);
    assert_eq!(back.report(), Report::build(&record, &recorders));
    assert!(!path.join("report.json").exists());
}

#[test]
fn a_cell_in_parts_reads_back_to_the_last_one_that_the_manifest_knows() {
    let dir = TempDir::new().unwrap();
    let (mut record, _) = run(&sketches(), 0);
    let mut folder = RunFolder::create(dir.path(), &record, TokenStamps::Drop).unwrap();
    let mut whole = Recorder::new();
    let mut long = cell(&sketches()[1], 0, 0);
    long.statistics = Default::default();
    let second = Duration::from_secs(1);
    for part in 0..3 {
        let mut recorder = Recorder::new();
        book(&mut recorder, &sketches()[1], part);
        let start = second * part;
        folder
            .append_interval(WS, start, second, &recorder)
            .unwrap();
        // The third part comes after the last checkpoint.
        if part < 2 {
            whole.merge(&recorder);
            long.tallies = whole.tallies().clone();
            long.parts = Some(Parts {
                first_ms: 0,
                last_ms: start.as_millis() as u64,
            });
            record.cells = vec![long.clone()];
            folder.checkpoint(&record).unwrap();
        }
    }
    drop(folder);
    let back = RunFolder::open(dir.path()).unwrap();
    let expected = Recorders::from([(WS, whole)]);
    assert_eq!(back.report(), Report::build(&record, &expected));
    assert_eq!(back.report().row(WS).unwrap().completed, 8);
}

#[test]
fn a_run_that_never_got_to_a_cell_reads_back_empty() {
    let dir = TempDir::new().unwrap();
    let (record, _) = run(&sketches(), 0);
    RunFolder::create(dir.path(), &record, TokenStamps::Drop).unwrap();
    let back = RunFolder::open(dir.path()).unwrap();
    assert!(back.recorders.is_empty());
    assert!(!back.report().verdict.trusted);
}

#[test]
fn a_run_is_never_overwritten() {
    let dir = TempDir::new().unwrap();
    let (record, _) = run(&sketches(), 0);
    RunFolder::create(dir.path(), &record, TokenStamps::Drop).unwrap();
    let error = RunFolder::create(dir.path(), &record, TokenStamps::Drop).unwrap_err();
    assert!(matches!(error, FolderError::Occupied(_)), "{error}");
    assert!(error.to_string().contains("--out"), "{error}");
}

#[test]
fn what_is_booked_in_one_go_is_what_each_books_alone() {
    let mut exchanges = cell_exchanges(&sketches()[0], 3);
    let late = exchange(9, &[2_000, 2_110, 2_120]);
    exchanges.push(JoinedExchange {
        exchange: late,
        hop: Some(hop(9, &[1_900, 2_050, 2_130])),
    });
    let mut alone = exchange(10, &[2_000, 2_500]);
    alone.outcome = Outcome::Failed(FailureKind::Timeout);
    exchanges.push(JoinedExchange {
        exchange: alone,
        hop: None,
    });
    let dir = TempDir::new().unwrap();
    let (record, _) = run(&sketches(), 0);
    let new = |name: &str| {
        let path = dir.path().join(name);
        let folder = RunFolder::create(&path, &record, TokenStamps::Drop).unwrap();
        (folder, path.join(EXCHANGES))
    };
    let ((mut each, each_path), (mut at_once, at_once_path)) = (new("each"), new("at-once"));
    let (mut recorder, mut sample) = (Recorder::new(), CellSample::default());
    for joined in &exchanges {
        recorder.finish(&joined.exchange, joined.hop.as_ref());
        sample.finish(&joined.exchange, joined.hop.as_ref());
    }
    each.append_exchanges(WS, &exchanges).unwrap();

    let (mut booking, mut sampling) = (Recorder::new(), CellSample::default());
    let booked = at_once.book_exchanges(WS, &exchanges, &mut booking, &mut sampling);
    booked.unwrap();
    each.flush().unwrap();
    at_once.flush().unwrap();
    let texts = [each_path, at_once_path].map(|path| fs::read_to_string(path).unwrap());
    assert_eq!(texts[0].lines().count(), exchanges.len());
    assert_eq!(texts[0], texts[1]);
    assert_eq!(sampling.statistics(), sample.statistics());
    assert_eq!(booking.tallies(), recorder.tallies());
    for metric in Metric::ALL {
        assert_eq!(
            booking.summary(metric),
            recorder.summary(metric),
            "{metric}"
        );
    }
}

/// The line of one exchange, read as JSON.
fn line(exchange: Exchange, hop: Option<HopExchange>, tokens: TokenStamps) -> Value {
    let dir = TempDir::new().unwrap();
    let (record, _) = run(&sketches(), 0);
    let mut folder = RunFolder::create(dir.path(), &record, tokens).unwrap();
    folder
        .append_exchanges(WS, &[JoinedExchange { exchange, hop }])
        .unwrap();
    folder.flush().unwrap();
    let text = fs::read_to_string(dir.path().join("exchanges.jsonl")).unwrap();
    assert_eq!(text.lines().count(), 1);
    serde_json::from_str(&text).unwrap()
}

#[test]
fn an_exchange_is_a_line_with_stamps_relative_to_its_start() {
    let ours = exchange(1, &[2_000, 2_110]);
    let line = line(ours, Some(hop(1, &[1_900, 2_000])), TokenStamps::Drop);
    assert_eq!(line["row"], "ws/incremental");
    assert_eq!(line["outcome"], "complete");
    assert_eq!(line["dispatched"], 1_000);
    assert_eq!(line["stamps"]["intended"], 0);
    assert_eq!(line["stamps"]["first_token"], 1_000);
    assert_eq!(line["stamps"]["up_written"], 230);
    assert_eq!(line["figures"]["first_token_overhead"], 330);
    assert_eq!(line["means"]["token_overhead"], 110.0);
    assert_eq!(line["usage"]["output"], 2);
    assert_eq!(line["joined"], true);
    assert!(line.get("tokens").is_none() && line.get("failure").is_none());
}

#[test]
fn each_deltas_stamps_are_kept_only_where_asked() {
    let ours = exchange(1, &[2_000, 2_110]);
    let line = line(ours, Some(hop(1, &[1_900, 2_000])), TokenStamps::Keep);
    let second = &line["tokens"][1];
    assert_eq!(
        second,
        &serde_json::json!({"at": 1_110, "chunk": 1, "kind": "content", "up": 1_000, "out": 1_010})
    );
}

#[test]
fn a_failure_is_a_line_without_figures() {
    let mut failed = exchange(1, &[2_000]);
    failed.outcome = Outcome::Failed(FailureKind::Timeout);
    let line = line(failed, None, TokenStamps::Drop);
    assert_eq!(line["outcome"], "failed");
    assert_eq!(line["failure"], "timeout");
    assert_eq!(line["figures"], serde_json::json!({}));
}

#[test]
fn percentile_files_are_named_by_row_and_figure() {
    let dir = TempDir::new().unwrap();
    let (folder, record, recorders) = write(&dir.path().join("run"), 1);
    folder.finish(&record, &recorders).unwrap();
    let path = dir.path().join("run/ws-incremental.token_overhead.hgrm");
    let text = fs::read_to_string(path).unwrap();
    assert!(text.starts_with("       Value     Percentile TotalCount"));
}

#[test]
fn logs_are_headed_and_tagged_as_hdrhistograms_tools_expect() {
    let dir = TempDir::new().unwrap();
    let (folder, ..) = write(dir.path(), 2);
    drop(folder);
    let text = fs::read_to_string(dir.path().join("ttft.hlog")).unwrap();
    assert!(text.contains("#[StartTime: 1750000000.000 (seconds since epoch)]\n"));
    assert!(text.contains("#[BaseTime: 1750000000.000 (seconds since epoch)]\n"));
    assert!(text.contains("\"StartTimestamp\",\"Interval_Length\""));
    assert!(text.contains("\nTag=ws/incremental,1.010,0.009,"), "{text}");
    // The base64 of the compressed V2 cookie.
    assert_eq!(text.matches(",HISTFAA").count(), 4, "{text}");
}

/// Opens a folder after `spoil` and looks for the words in the error.
#[track_caller]
fn check_damage(spoil: impl FnOnce(&Path), words: &[&str]) {
    let dir = TempDir::new().unwrap();
    let (folder, ..) = write(dir.path(), 1);
    drop(folder);
    spoil(dir.path());
    let message = RunFolder::open(dir.path()).unwrap_err().to_string();
    for word in words {
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn errors_name_the_file_and_what_to_do() {
    check_damage(
        |path| fs::remove_file(path.join("run.json")).unwrap(),
        &["cannot read", "run.json", "is this the folder of a run"],
    );
    check_damage(
        |path| fs::write(path.join("run.json"), "{}").unwrap(),
        &["run.json is damaged", "missing field"],
    );
    check_damage(
        |path| {
            let text = fs::read_to_string(path.join("run.json")).unwrap();
            fs::write(path.join("run.json"), text.replace("run/1", "run/9")).unwrap();
        },
        &["tokenlag.run/9", "tokenlag.run/1"],
    );
    check_damage(
        |path| fs::write(path.join("itl.hlog"), "nonsense\n").unwrap(),
        &["itl.hlog is damaged", "line 1 is no interval"],
    );
    check_damage(
        |path| fs::write(path.join("itl.hlog"), "Tag=x,0.000,1.000,1.0,HISTF!!\n").unwrap(),
        &["itl.hlog is damaged", "interval of 'x'"],
    );
}

/// Takes the last line off a log.
fn cut(log: &Path) {
    let text = fs::read_to_string(log).unwrap();
    let kept: Vec<&str> = text.lines().collect();
    fs::write(log, kept[..kept.len() - 1].join("\n") + "\n").unwrap();
}

#[test]
fn a_log_that_is_cut_or_lost_is_damage_and_no_other_figure() {
    let counted = "holds 0 values of token_overhead of";
    check_damage(
        |path| cut(&path.join("token_overhead.hlog")),
        &["token_overhead.hlog", counted, "run.json counted 28"],
    );
    check_damage(
        |path| fs::remove_file(path.join("token_overhead.hlog")).unwrap(),
        &["token_overhead.hlog", counted, "http/full in block 0"],
    );
}

#[test]
fn an_interrupted_run_may_lack_its_last_lines_and_says_so() {
    let dir = TempDir::new().unwrap();
    let (mut folder, mut record, _) = write(dir.path(), 2);
    record.ended_at = None;
    folder.checkpoint(&record).unwrap();
    drop(folder);
    let log = dir.path().join("ttft.hlog");
    cut(&log);
    let verdict = RunFolder::open(dir.path()).unwrap().report().verdict;
    let codes: Vec<&str> = verdict.warnings.iter().map(|w| w.code.as_str()).collect();
    assert!(codes.contains(&INCOMPLETE_LOG), "{codes:?}");
    // What is missing before the end was not lost with the process.
    cut(&log);
    let error = RunFolder::open(dir.path()).unwrap_err();
    assert!(matches!(error, FolderError::Count { .. }), "{error}");
}

#[test]
fn a_value_that_no_histogram_of_ours_holds_is_damage() {
    check_damage(
        |path| {
            let mut values = hdrhistogram::Histogram::new_with_bounds(1, u64::MAX / 2, 3).unwrap();
            values.record(2 * crate::histogram::HIGHEST_NANOS).unwrap();
            let row = Row::HTTP_FULL.to_string();
            let line = histogram_log::line(&row, false, 0, Duration::ZERO, &values).unwrap();
            fs::write(path.join("itl.hlog"), line).unwrap();
        },
        &["itl.hlog is damaged", "interval of 'http/full'"],
    );
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_with_a_remedy() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let (record, _) = run(&sketches(), 0);
    let error = RunFolder::create(&file.join("run"), &record, TokenStamps::Drop).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("cannot write"), "{message}");
    assert!(
        message.contains("choose another folder with --out"),
        "{message}"
    );
}

#[test]
fn a_full_disk_is_named() {
    let full = Path::new("/dev/full");
    if !full.exists() {
        return;
    }
    let cause = fs::write(full, "x").unwrap_err();
    let message = writing(full)(cause).to_string();
    assert!(message.contains("/dev/full"), "{message}");
    assert!(message.contains("free some space"), "{message}");
}
