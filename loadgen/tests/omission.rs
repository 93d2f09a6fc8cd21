//! Coordinated omission: a server that stands still for three twentieths of an open-loop run shows in the percentiles from the
//! schedule's moments as arithmetic says, and the twins from the dispatch show what tools say that stamp only that.

#[path = "support/frozen.rs"]
mod frozen;
mod support;

use std::time::{Duration, UNIX_EPOCH};

use support::{lane, run, shared};
use tokenlag_loadgen::{Arrivals, CellEnd, CellPlan, Connections, Rate};
use tokenlag_probes::{
    Clock, Metric, MonoClock, Recorder, Recorders, Row, RunRecord, Stamp, State, Transport, Verdict,
};
use tokenlag_scripted::ScriptedBackend;
use tokio::sync::Mutex;

/// Arrivals per second, equally spaced.
const RATE: f64 = 100.0;
/// The run, and how long the server stands still in it.
const RUN: Duration = Duration::from_secs(10);
const STALL: Duration = Duration::from_millis(1_500);
/// From the run's beginning to the stall's.
const BEFORE: Duration = Duration::from_secs(3);
/// What the backend does: the first token, and the last.
const SCRIPT: &str = "ttft=5ms,gap=1ms,tokens=4";
const FIRST_MS: f64 = 5.0;
const LAST_MS: f64 = 8.0;
/// What a busy host may add to the median, for which half of all exchanges must be slower.
const USUAL_MS: f64 = 10.0;
/// What it may add to one exchange of a hundred, and to when the server goes on: a twentieth of the stall.
const LATE_MS: f64 = 75.0;
/// What it may add for each exchange of those that wait for one another once the server goes on.
const EACH_MS: f64 = 2.0;
/// What a histogram may take off a value: it keeps one part in 512.
const KEPT: f64 = 1.0 - 1.0 / 256.0;
/// One run at a time: each takes a core, and two would be late by one another.
static ALONE: Mutex<()> = Mutex::const_new(());

/// An exchange as it must be, in milliseconds since the run's start.
struct Computed {
    due: f64,
    dispatched: f64,
    first: f64,
    last: f64,
}

/// A figure, and how it follows from what is computed.
type Figure = (Metric, fn(&Computed) -> f64);

fn arrivals() -> u32 {
    (RUN.as_secs_f64() * RATE) as u32
}

/// Every arrival in turn through so many places, by arithmetic alone: whoever finds none waits for the first that is free,
/// and nothing passes between client and server while it stands still.
fn computed(places: usize, frozen: [f64; 2]) -> Vec<Computed> {
    let passes = |at: f64| match frozen {
        [from, to] if (from..to).contains(&at) => to,
        _ => at,
    };
    let mut free = vec![0.0f64; places];
    (0..arrivals())
        .map(|k| {
            let due = f64::from(k) * 1e3 / RATE;
            let place = free.iter_mut().min_by(|a, b| a.total_cmp(b)).unwrap();
            let dispatched = due.max(*place);
            let asked = passes(dispatched);
            let (first, last) = (passes(asked + FIRST_MS), passes(asked + LAST_MS));
            *place = last;
            Computed {
                due,
                dispatched,
                first,
                last,
            }
        })
        .collect()
}

/// The nearest-rank percentile.
fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(share * values.len() as f64).ceil() as usize - 1]
}

async fn measured(places: usize) -> (CellEnd, Stamp) {
    let backend = ScriptedBackend::start(SCRIPT.parse().unwrap()).unwrap();
    let from = MonoClock.now() + BEFORE;
    let way = frozen::way_to(backend.address(), from..from + STALL);
    let base = format!("http://{way}").parse().unwrap();
    let lane = lane(0, Transport::Http, State::Full, &base);
    let plan = CellPlan {
        arrivals: Arrivals::Constant {
            rate: Rate::new(RATE).unwrap(),
        },
        concurrency: places,
        sessions: Some(arrivals().into()),
        duration: None,
        turns: 1,
        connections: Connections::Pooled,
    };
    let (shared, _stopper) = shared(1, Duration::from_secs(10));
    (run(&shared, &lane, plan).await, from)
}

fn recorder(end: &CellEnd) -> Recorder {
    let mut recorder = Recorder::new();
    for exchange in &end.exchanges {
        recorder.finish(exchange, None);
    }
    recorder
}

/// How much more than was computed a percentile may be. Once the server goes on, who waited is served: in turn, where places are
/// few, so that what each takes too long adds up until it is the turn of the exchange that stands at this share; else all at once,
/// and each waits for all.
fn tolerance(share: f64, places: usize) -> f64 {
    if share <= 0.5 {
        return USUAL_MS;
    }
    let waited = STALL.as_secs_f64() * RATE;
    let before = match places as f64 {
        places if places < waited => (1.0 - share) * f64::from(arrivals()) / places,
        _ => waited,
    };
    LATE_MS + EACH_MS * before
}

/// Fails unless the percentiles of a figure are those computed. None is less, however busy the host is: nothing comes before its time.
#[track_caller]
fn check((metric, value): Figure, found: &Recorder, computed: &[Computed], places: usize) {
    for share in [0.5, 0.9, 0.95, 0.99] {
        let expected = percentile(computed.iter().map(value).collect(), share);
        let found = found.histogram(metric).value_at_quantile(share).unwrap() as f64 / 1e6;
        let told =
            format!("{metric} at {share}: computed {expected:.1} ms, measured {found:.1} ms");
        println!("{told}");
        assert!(found >= expected * KEPT, "{told}");
        assert!(found <= expected + tolerance(share, places), "{told}");
    }
}

async fn check_run(places: usize) -> (Recorder, Vec<Computed>) {
    let _alone = ALONE.lock().await;
    let (end, from) = measured(places).await;
    let begins = from.since(end.started) as f64 / 1e6;
    let frozen = [begins, begins + STALL.as_secs_f64() * 1e3];
    let computed = computed(places, frozen);
    assert_eq!(end.completed(), computed.len(), "{:?}", end.troubles);
    assert_eq!(end.not_started, 0, "no arrival is dropped");
    let recorder = recorder(&end);
    let figures: [Figure; 4] = [
        (Metric::Ttft, |it| it.first - it.due),
        (Metric::TtftDispatched, |it| it.first - it.dispatched),
        (Metric::Roundtrip, |it| it.last - it.due),
        (Metric::RoundtripDispatched, |it| it.last - it.dispatched),
    ];
    for figure in figures {
        check(figure, &recorder, &computed, places);
    }
    (recorder, computed)
}

#[tokio::test(flavor = "current_thread")]
async fn a_stall_shows_from_the_schedule_and_hides_from_the_dispatch() {
    let (recorder, computed) = check_run(3).await;
    // What makes the difference: of the arrivals within the stall three were under way at most, so that a tool that stamps the
    // dispatch alone finds less than one reply of a hundred late.
    let late = |value: fn(&Computed) -> f64| computed.iter().filter(|it| value(it) > 50.0).count();
    assert!(late(|it| it.first - it.due) > 150);
    assert_eq!(late(|it| it.first - it.dispatched), 3);
    let p99 = |metric| recorder.summary(metric).unwrap().p99;
    assert!(p99(Metric::Ttft) > 8 * p99(Metric::TtftDispatched));

    // The generator was late itself, and the run says so.
    let mut record = RunRecord::begin("load", UNIX_EPOCH, vec![Row::HTTP_FULL]);
    record.open_loop = true;
    let verdict = Verdict::reach(&record, &Recorders::from([(Row::HTTP_FULL, recorder)]));
    let codes: Vec<&str> = verdict.warnings.iter().map(|it| &*it.code).collect();
    assert!(codes.contains(&"dispatch_lag"), "{codes:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn with_places_for_all_both_anchors_show_the_stall() {
    let (recorder, _) = check_run(400).await;
    let p99 = |metric| recorder.summary(metric).unwrap().p99;
    assert!(p99(Metric::TtftDispatched) > 1_200_000_000);
}
