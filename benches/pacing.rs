//! How late arrivals leave, and what waiting for them costs: `cargo bench --bench pacing [-- RATE [SECONDS]]`.
//!
//! The generator has one core to itself, the scripted backend the others; the exchanges are real, over kept HTTP/1.1
//! connections. Printed for each arrival pattern is the dispatch lag, which is what runs report as `dispatch_lag`, with the
//! generator's CPU; and for the pacer alone, without any traffic, how late it returns.

use std::rc::Rc;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use tokenlag_dialect::Dialect;
use tokenlag_loadgen::{
    Arrivals, Asking, Burstiness, CellName, CellPlan, Connections, Endpoint, Lane, Limits, Phase,
    Progress, Prompts, Rate, Shared, WordCount, Workload, cell, pacing::Pacer, stop,
};
use tokenlag_probes::{Clock, Metric, MonoClock, Recorder, Row, SignedHistogram, State, Transport};
use tokenlag_scripted::ScriptedBackend;

/// The seed of the random patterns.
const SEED: u64 = 1;
/// What the backend does: few tokens, soon, since arrivals are what is measured.
const SCRIPT: &str = "ttft=1ms,gap=500us,tokens=2";

fn main() {
    let numbers: Vec<f64> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .map(|word| word.parse().expect("a rate, and seconds"))
        .collect();
    let per_second = numbers.first().copied().unwrap_or(1_000.0);
    let rate = Rate::new(per_second).expect("a rate above zero");
    let span = Duration::from_secs_f64(numbers.get(1).copied().unwrap_or(5.0));

    let cores = cores();
    let (own, others) = cores.split_first().expect("there is a core");
    // Its threads inherit the cores of the one that starts them.
    bind(if others.is_empty() { &cores } else { others });
    let backend = ScriptedBackend::start(SCRIPT.parse().expect("a script")).expect("a free port");
    bind(&[*own]);

    println!(
        "{per_second} arrivals a second for {span:?}; the generator on core {own} of {cores:?}"
    );
    println!(
        "{:<10} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8}  {:>6}",
        "arrivals", "count", "p50 us", "p90", "p99", "p99.9", "max", "CPU %"
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made");
    runtime.block_on(async {
        pacer_alone(per_second, span).await;
        let shape = Burstiness::new(0.5).expect("a shape above zero");
        for (name, arrivals) in [
            ("constant", Arrivals::Constant { rate }),
            ("poisson", Arrivals::Poisson { rate }),
            (
                "gamma 0.5",
                Arrivals::Gamma {
                    rate,
                    burstiness: shape,
                },
            ),
        ] {
            with_traffic(name, arrivals, span, &backend).await;
        }
    });
}

/// Waits for equally spaced moments, and does nothing at them.
async fn pacer_alone(per_second: f64, span: Duration) {
    let clock = MonoClock;
    let pacer = Pacer::new();
    let mut late = SignedHistogram::default();
    let (start, cpu) = (clock.now(), cpu_time());
    for k in 1..=(per_second * span.as_secs_f64()) as u32 {
        let moment = start + Duration::from_secs_f64(f64::from(k) / per_second);
        pacer.until(&clock, moment).await;
        late.record(clock.now().since(moment));
    }
    print("no traffic", &late, 0, cpu_time() - cpu, start);
}

async fn with_traffic(name: &str, arrivals: Arrivals, span: Duration, backend: &ScriptedBackend) {
    let (_stopper, stop) = stop();
    let shared = Rc::new(Shared {
        asking: Asking {
            dialect: Dialect::Responses,
            model: "scripted".to_owned(),
            tool_calls: false,
            seed: SEED,
            ignore_eos: true,
            store: false,
            extra: serde_json::Map::new(),
        },
        prompts: Prompts {
            seed: SEED,
            workload: Workload {
                turns: 1,
                first_input: 64,
                later_input: 16,
                output: 2,
                least_output: None,
                tool_calls: false,
            },
            count: WordCount::GUESS,
        },
        limits: Limits::default(),
        stop,
        progress: Rc::new(Progress::default()),
    });
    let base = backend.url().parse().expect("the backend's address");
    let lane = Rc::new(Lane {
        row: Row::events(Transport::Http, State::Full),
        index: 0,
        endpoint: Endpoint::new(&base, Dialect::Responses, Vec::new(), Limits::default()),
    });
    let plan = CellPlan {
        arrivals,
        concurrency: 4_096,
        sessions: None,
        duration: Some(span),
        turns: 1,
        connections: Connections::Pooled,
    };
    let name_of_cell = CellName {
        phase: Phase::Measured,
        block: 0,
        order: 0,
        first_serial: 0,
    };
    let (start, cpu) = (MonoClock.now(), cpu_time());
    let end = cell::run(shared, lane, plan, name_of_cell).await;
    let mut recorder = Recorder::new();
    for exchange in &end.exchanges {
        recorder.finish(exchange, None);
    }
    let spent = cpu_time() - cpu;
    let missing = end.exchanges.len() - end.completed();
    let lag = recorder.histogram(Metric::DispatchLag);
    print(name, lag, missing as u64 + end.not_started, spent, start);
    for (trouble, count) in end.troubles {
        println!("  {count} times: {trouble}");
    }
}

fn print(
    name: &str,
    late: &SignedHistogram,
    missing: u64,
    cpu: Duration,
    start: tokenlag_probes::Stamp,
) {
    let took = MonoClock.now().since(start) as f64 / 1e9;
    let at = |share| late.value_at_quantile(share).unwrap_or(0) as f64 / 1e3;
    print!("{name:<10} {:>9}", late.count());
    for share in [0.5, 0.9, 0.99, 0.999, 1.0] {
        print!(" {:>8.1}", at(share));
    }
    print!("  {:>6.1}", cpu.as_secs_f64() / took * 100.0);
    match missing {
        0 => println!(),
        missing => println!("  ({missing} did not complete)"),
    }
}

fn cores() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).expect("the cores of this process");
    (0..CpuSet::count())
        .filter(|core| set.is_set(*core).unwrap_or(false))
        .collect()
}

fn bind(cores: &[usize]) {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core).expect("a core that exists");
    }
    sched_setaffinity(Pid::from_raw(0), &set).expect("this thread may be bound");
}

#[expect(
    clippy::disallowed_methods,
    reason = "the thread's CPU time, which is no moment"
)]
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("threads have a clock");
    Duration::from(time)
}
