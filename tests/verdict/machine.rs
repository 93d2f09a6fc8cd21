//! A machine that has no time to measure, and a run that took too little.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::stage::{compared_over, scripted, told};

#[test]
fn threads_that_wait_for_a_core() {
    let backend = scripted("ttft=2ms,gap=1ms");
    let over = AtomicBool::new(false);
    let cores = thread::available_parallelism().map_or(2, usize::from);
    let busy = thread::scope(|scope| {
        // More than there are cores for, so that everybody else waits for one.
        for _ in 0..2 * cores {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let busy = compared_over(&backend, |listen| format!("http://{listen}"));
        over.store(true, Ordering::Relaxed);
        busy
    });
    let figures = [
        "threads waited",
        " ms for a core",
        "above a tenth of the smallest",
    ];
    busy.assert_warns("run_queue_delay", &figures);
}

#[test]
fn more_arrivals_than_the_generator_can_start() {
    let backend = scripted("ttft=1ms,gap=0,tokens=1");
    let words = "load --request-rate 50000 --arrival-pattern constant --num-prompts 2000 --concurrency 256 --model m --url";
    let late = told(words, &[&backend.url()]);
    let figures = [
        "dispatch lag p99 of http/full is",
        " ms, above a tenth of its ttft p50 of",
    ];
    late.assert_warns("dispatch_lag", &figures);
    // Every arrival counts, however late it was.
    assert_eq!(late.report["calibration"]["dispatch_lag"]["count"], 2_000);
}

#[test]
fn blocks_that_are_too_few_for_an_interval() {
    let backend = scripted("ttft=2ms,gap=1ms");
    let short = compared_over(&backend, |listen| format!("http://{listen}"));
    short.assert_warns("few_blocks", &["ran in 3 blocks", "with fewer than 20"]);
}
