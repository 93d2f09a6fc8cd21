//! How fast the engine is: `cargo bench -p tokenlag-backend --bench decode [-- MODEL.gguf]`.
//!
//! Everything runs on one thread, pinned to one core where the system allows. Each line is the best of five runs: other
//! work on the machine only ever makes a run slower.

use std::{env, path::Path, sync::Arc};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use tokenlag_backend::{Engine, EngineOptions, Job, Model, Output, Sampling};
use tokenlag_probes::{Clock, MonoClock};

const RUNS: usize = 5;

fn main() {
    pin();
    // Cargo passes `--bench`; anything else is a file.
    let file = env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let model = match &file {
        Some(path) => Model::open(Path::new(path)),
        None => Model::embedded(),
    };
    let model = match model {
        Ok(model) => Arc::new(model),
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    };
    let megas = model.parameters() as f64 / 1e6;
    println!(
        "{}: {megas:.2} M parameters, window {}",
        model.name(),
        model.window()
    );

    for streams in [1, 4, 8] {
        report(
            &format!("decode, {streams} streams, short history"),
            decode(&model, streams, 16, 200),
        );
    }
    let window = model.window().min(4096);
    for streams in [1, 8] {
        report(
            &format!("decode, {streams} streams, full window"),
            decode(&model, streams, window, 200),
        );
    }
    report(
        "decode, 1 stream, position 100,000",
        decode(&model, 1, 100_000, 200),
    );
    for length in [64, window / 2, window] {
        report(&format!("prompt of {length}"), prefill(&model, length));
    }
    // Only what the last token can see is computed.
    let per_second = prefill(&model, 100_000);
    println!(
        "prompt of 100,000, up to its first token: {:.1} ms",
        1e8 / per_second
    );
}

fn report(what: &str, per_second: f64) {
    println!("{what:<40} {per_second:>9.0} tokens/s");
}

/// The last core: the first one serves most interrupts.
fn pin() {
    let core = std::thread::available_parallelism().map_or(0, |cores| cores.get() - 1);
    let mut set = CpuSet::new();
    if set.set(core).is_ok() && sched_setaffinity(Pid::from_raw(0), &set).is_ok() {
        println!("pinned to core {core}");
    }
}

fn prompt(model: &Model, length: usize, seed: usize) -> Vec<u32> {
    let vocabulary = model.tokenizer().vocabulary();
    (0..length)
        .map(|i| ((i + 1) * (seed + 7) * 7919 % vocabulary) as u32)
        .collect()
}

/// Tokens a second of all streams together, once all their prompts are done.
fn decode(model: &Arc<Model>, streams: usize, length: usize, count: usize) -> f64 {
    let sampling = Sampling {
        ignore_eos: true,
        ..Sampling::default()
    };
    let best = (0..RUNS).map(|_| {
        let mut engine = Engine::new(model.clone(), EngineOptions::default());
        for seed in 0..streams {
            let job = Job {
                prompt: prompt(model, length, seed),
                max_tokens: None,
                sampling: sampling.clone(),
            };
            engine.submit(job).expect("eight jobs fit");
        }
        let mut begun = 0;
        while begun < streams {
            begun = 0;
            engine.step(&mut |_, output| begun += usize::from(matches!(output, Output::Token(_))));
        }
        let start = MonoClock.now();
        for _ in 0..count {
            engine.step(&mut |_, _| {});
        }
        MonoClock.now().since(start)
    });
    (streams * count) as f64 * 1e9 / best.min().unwrap_or(1) as f64
}

/// Prompt tokens a second, up to the first token of the answer.
fn prefill(model: &Arc<Model>, length: usize) -> f64 {
    let best = (0..RUNS).map(|_| {
        let mut engine = Engine::new(model.clone(), EngineOptions::default());
        let job = Job {
            prompt: prompt(model, length, 1),
            max_tokens: Some(1),
            sampling: Sampling::default(),
        };
        engine.submit(job).expect("one job fits");
        let start = MonoClock.now();
        while engine.step(&mut |_, _| {}) {}
        MonoClock.now().since(start)
    });
    length as f64 * 1e9 / best.min().unwrap_or(1) as f64
}
