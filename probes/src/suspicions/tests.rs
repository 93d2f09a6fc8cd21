//! Each condition that costs a run its trust, and a run that has none.

mod tokens;

use super::*;
use crate::counters::RunQueue;
use crate::exchange::{FailureKind, Outcome};
use crate::join::Unjoined;
use crate::metric::Metric;
use crate::row::{State, Transport};
use crate::samples::{RowSketch, exchange, run};
use crate::verdict::Verdict;

const WS: Row = Row::events(Transport::Ws, State::Incremental);

fn sound() -> (RunRecord, Recorders) {
    let sketch = |row, request, delta| RowSketch {
        row,
        request,
        delta,
        model: (5_000, 1_000),
    };
    run(
        &[
            sketch(Row::HTTP_COLD_FULL, 400, 60),
            sketch(Row::HTTP_FULL, 200, 50),
            sketch(WS, 150, 40),
        ],
        24,
    )
}

/// Spoils a sound run and looks for exactly this warning, whose message holds `figure`.
#[track_caller]
fn check(code: &str, figure: &str, spoil: impl FnOnce(&mut RunRecord, &mut Recorders)) {
    let (mut record, mut recorders) = sound();
    spoil(&mut record, &mut recorders);
    let verdict = Verdict::reach(&record, &recorders);
    let codes: Vec<&str> = verdict.warnings.iter().map(|w| w.code.as_str()).collect();
    assert_eq!(codes, [code]);
    assert!(!verdict.trusted);
    let warning = &verdict.warnings[0];
    assert!(warning.message.contains(figure), "{}", warning.message);
    assert!(!warning.remedy.is_empty());
    let page = include_str!("../../../docs/verdict.md");
    assert!(
        page.contains(&format!("### `{code}`")),
        "{code} is documented"
    );
}

fn spoil_ws(recorders: &mut Recorders, spoil: impl FnOnce(&mut Recorder)) {
    spoil(recorders.get_mut(&WS).expect("the sound run has this row"));
}

#[test]
fn a_sound_run_is_trusted() {
    let (record, recorders) = sound();
    let verdict = Verdict::reach(&record, &recorders);
    assert_eq!(verdict.warnings, []);
    assert!(verdict.trusted);
}

#[test]
fn a_row_in_which_nothing_completed() {
    check(
        "nothing_completed",
        "none of the 2 exchanges of ws/incremental completed (2 connect)",
        |record, recorders| {
            // Cells of a row that failed throughout have no statistics, but they ran.
            for cell in record.cells.iter_mut().filter(|cell| cell.row == WS) {
                cell.statistics = Default::default();
            }
            let mut recorder = Recorder::new();
            for trace in 0..2 {
                let mut failed = exchange(trace, &[]);
                failed.outcome = Outcome::Failed(FailureKind::Connect);
                recorder.finish(&failed, None);
            }
            recorders.insert(WS, recorder);
        },
    );
}

#[test]
fn a_row_that_never_ran() {
    check(
        "nothing_completed",
        "none of the 0 exchanges",
        |_, recorders| {
            recorders.remove(&WS);
        },
    );
}

#[test]
fn errors_above_a_hundredth() {
    let fail = |recorders: &mut Recorders| {
        spoil_ws(recorders, |recorder| {
            let mut failed = exchange(1, &[]);
            failed.outcome = Outcome::Failed(FailureKind::Timeout);
            recorder.finish(&failed, None);
        });
    };
    check(
        "errors",
        "2 of 98 exchanges of ws/incremental went wrong (2.0 %)",
        |_, recorders| {
            fail(recorders);
            let mut truncated = exchange(1, &[]);
            truncated.outcome = Outcome::Truncated;
            spoil_ws(recorders, |recorder| recorder.finish(&truncated, None));
        },
    );
}

#[test]
fn unjoined_above_a_hundredth() {
    check(
        "unjoined",
        "5 of 96 exchanges of ws/incremental have no partner",
        |_, recorders| {
            spoil_ws(recorders, |recorder| {
                recorder.note_unjoined(&Unjoined {
                    no_hop_record: 5,
                    evicted: 9,
                    ..Unjoined::default()
                });
            });
        },
    );
}

#[test]
fn a_generator_that_was_late() {
    check(
        "dispatch_lag",
        "dispatch lag p99 of ws/incremental is 2.",
        |record, recorders| {
            record.open_loop = true;
            spoil_ws(recorders, |recorder| {
                recorder.record(Metric::DispatchLag, 2_000_000);
            });
        },
    );
}

#[test]
fn lag_is_no_matter_in_a_closed_loop() {
    let (record, mut recorders) = sound();
    spoil_ws(&mut recorders, |recorder| {
        recorder.record(Metric::DispatchLag, 2_000_000);
    });
    assert!(Verdict::reach(&record, &recorders).trusted);
}

#[test]
fn too_few_blocks() {
    check(
        "few_blocks",
        "ws/incremental ran in 19 blocks",
        |record, _| {
            record
                .cells
                .retain(|cell| cell.row != WS || cell.block < 19);
        },
    );
}

#[test]
fn blocks_in_which_something_is_missing_do_not_count() {
    check(
        "few_blocks",
        "ws/incremental ran in 19 blocks",
        |record, _| {
            let of_ws = record.cells.iter_mut().filter(|cell| cell.row == WS);
            for cell in of_ws.skip(19) {
                cell.statistics.0.clear();
            }
        },
    );
}

#[test]
fn one_row_alone_needs_no_blocks() {
    let (record, recorders) = run(
        &[RowSketch {
            row: WS,
            request: 100,
            delta: 20,
            model: (5_000, 1_000),
        }],
        1,
    );
    assert!(Verdict::reach(&record, &recorders).trusted);
}

#[test]
fn threads_that_waited_for_a_core() {
    check(
        "run_queue_delay",
        "the proxy's threads waited 0.010 ms",
        |record, _| {
            record.cells[2].counters.proxy_run_queue = Some(RunQueue {
                delay_ns: 1_000_000,
                timeslices: 100,
            });
        },
    );
}

#[test]
fn threads_that_waited_where_there_is_no_proxy_to_compare_with() {
    let (mut record, mut recorders) = run(
        &[RowSketch {
            row: WS,
            request: 100,
            delta: 20,
            model: (5_000, 1_000),
        }],
        1,
    );
    let mut alone = Recorder::new();
    alone.finish(&exchange(1, &[8_000_000, 9_000_000]), None);
    recorders.insert(WS, alone);
    let mut waited = |delay_ns| {
        record.cells[0].counters.client_run_queue = Some(RunQueue {
            delay_ns,
            timeslices: 100,
        });
        Verdict::reach(&record, &recorders)
    };
    assert!(waited(70_000_000).trusted);
    let verdict = waited(90_000_000);
    assert_eq!(verdict.warnings[0].code, "run_queue_delay");
    let message = &verdict.warnings[0].message;
    assert!(
        message.contains("the ttft p50 of ws/incremental: 7.999 ms"),
        "{message}"
    );
}

#[test]
fn what_only_the_caller_sees_comes_last() {
    check("topology", "the compared leg is loopback", |record, _| {
        record.warnings.push(Warning {
            code: "topology".to_owned(),
            message: "the compared leg is loopback".to_owned(),
            remedy: "put the proxy at the backend".to_owned(),
        });
    });
}
