//! A machine that has no time to measure, and a run that took too little.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::stage::{compared_over, may_link, scripted, told, told_of};
use crate::support::tokenlag;

/// Does `work` while more threads spin than there are cores for, so that everybody else waits for one.
fn beside_spinning<T>(work: impl FnOnce() -> T) -> T {
    /// Ends the spinning where the work does, however it does.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let over = AtomicBool::new(false);
    let cores = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..2 * cores {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let _end = End(&over);
        work()
    })
}

#[test]
fn threads_that_wait_for_a_core() {
    let backend = scripted("ttft=2ms,gap=1ms");
    let busy = beside_spinning(|| compared_over(&backend, |listen| format!("http://{listen}")));
    let figures = [
        "threads waited",
        " ms for a core",
        "above a tenth of the smallest",
    ];
    busy.assert_warns("run_queue_delay", &figures);
}

#[test]
fn a_link_whose_relay_waits_for_a_core() {
    if !may_link() {
        return;
    }
    let backend = scripted("ttft=2ms,gap=1ms");
    let url = backend.url();
    let words = "compare --link rtt=2ms --no-direct --channels http --state full --blocks 3 --turns 4 --isl 48 --osl 24 \
                 --model m --url";
    let words: Vec<&str> = words.split(' ').chain([url.as_str()]).collect();
    let plain = tokenlag(&words);
    // Without CAP_SYS_NICE the relay goes before nobody.
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-sys_nice"]);
    command.arg(plain.get_program()).args(plain.get_args());
    for (variable, _) in plain.get_envs().filter(|(_, value)| value.is_none()) {
        command.env_remove(variable);
    }
    let late = beside_spinning(|| told_of(command));
    let figures = ["the emulated link released packets", "late at p99"];
    late.assert_warns("link_late", &figures);
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
