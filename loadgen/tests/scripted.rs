//! Cells against a backend whose token times are known: stamps, failures, connections, schedules, the stop.

mod support;

use std::time::Duration;

use support::{FIRST, backend, check_order, closed, direct, run, shared};
use tokenlag_loadgen::cell::run_into;
use tokenlag_loadgen::{Arrivals, CellPlan, Connections, Rate, Sink};
use tokenlag_probes::{Clock, Exchange, FailureKind, MonoClock, Outcome, Transport};

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "current_thread")]
async fn marks_follow_the_writes_of_the_backend() {
    let backend = backend();
    for transport in [Transport::Direct, Transport::HttpCold, Transport::Http] {
        let (shared, _stopper) = shared(2, PATIENCE);
        let end = run(&shared, &direct(&backend, transport), closed(2, 2)).await;
        assert_eq!(end.completed(), 4, "{:?}", end.troubles);
        let mut late = Vec::new();
        for exchange in &end.exchanges {
            check_order(exchange);
            assert_eq!(exchange.tokens.len(), 20);
            assert_eq!(exchange.usage.map(|usage| usage.output), Some(20));
            let emitted = backend
                .emissions(exchange.trace)
                .expect("the backend saw it");
            late.extend(
                exchange
                    .tokens
                    .iter()
                    .zip(emitted)
                    .map(|(mark, at)| mark.at.since(at)),
            );
        }
        late.sort_unstable();
        assert!(
            late[0] >= 0,
            "{transport}: no token is read before it is written: {late:?}"
        );
        // The median, since a busy host may delay any single read.
        assert!(late[late.len() / 2] < 2_000_000, "{transport}: {late:?}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn failures_are_told_apart_and_end_their_session() {
    for (script, outcome, says) in [
        (
            "status=503",
            Outcome::Failed(FailureKind::ServerError),
            "status 503",
        ),
        (
            "status=429",
            Outcome::Failed(FailureKind::ClientError),
            "status 429",
        ),
        (
            "reset=5",
            Outcome::Failed(FailureKind::ConnectionLost),
            "closed the connection",
        ),
        (
            "close=5",
            Outcome::Failed(FailureKind::ConnectionLost),
            "closed the connection",
        ),
        (
            "truncate=5",
            Outcome::Truncated,
            "without its terminal event",
        ),
        (
            "stall=5:3s",
            Outcome::Failed(FailureKind::Timeout),
            "not finished within",
        ),
    ] {
        let backend = backend();
        backend.set_script(script.parse().unwrap());
        let (shared, _stopper) = shared(3, Duration::from_millis(500));
        let end = run(&shared, &direct(&backend, Transport::Http), closed(1, 3)).await;
        assert_eq!(end.exchanges.len(), 1, "{script}");
        assert_eq!(
            end.exchanges[0].outcome, outcome,
            "{script}: {:?}",
            end.troubles
        );
        assert_eq!(end.skipped, 2, "{script}");
        let trouble = end.troubles.keys().next().expect("it is said in words");
        assert!(trouble.contains(says), "{script}: {trouble}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn connections_belong_to_sessions_or_to_a_pool() {
    for (transport, connections, made) in [
        (Transport::Http, Connections::PerSession, 6),
        (Transport::Http, Connections::Pooled, 2),
        (Transport::Http, Connections::Shared, 2),
        (Transport::HttpCold, Connections::Pooled, 12),
        (Transport::HttpCold, Connections::Shared, 12),
    ] {
        let backend = backend();
        let (shared, _stopper) = shared(2, PATIENCE);
        let plan = CellPlan {
            connections,
            ..closed(6, 2)
        };
        let end = run(&shared, &direct(&backend, transport), plan).await;
        assert_eq!(end.completed(), 12);
        assert_eq!(backend.connections(), made, "{transport} {connections:?}");
        assert_eq!(end.counters.connections_opened, made);
        assert_eq!(shared.progress.complete(), 12);
    }
}

/// How many exchanges came each time.
#[derive(Default)]
struct Calls {
    counts: Vec<usize>,
    spent: Vec<Exchange>,
    given_back: usize,
}

impl Sink for Calls {
    fn finished(&mut self, exchanges: Vec<Exchange>) {
        self.counts.push(exchanges.len());
        for exchange in &exchanges {
            check_order(exchange);
            assert_eq!(exchange.tokens.len(), 20);
            assert_eq!(exchange.handling.len(), 20);
        }
        self.spent = exchanges;
    }

    fn spent(&mut self) -> Vec<Exchange> {
        self.given_back += self.spent.len();
        std::mem::take(&mut self.spent)
    }
}

#[tokio::test(flavor = "current_thread")]
async fn sessions_that_end_together_come_home_together_and_leave_their_memory_to_others() {
    let backend = backend();
    let lane = direct(&backend, Transport::Http);
    let (shared, _stopper) = shared(1, PATIENCE);
    for (concurrency, sessions) in [(40, 200), (1, 4)] {
        let plan = CellPlan {
            concurrency,
            connections: Connections::Pooled,
            ..closed(sessions, 1)
        };
        let mut calls = Calls::default();
        let end = run_into(shared.clone(), lane.clone(), plan, FIRST, &mut calls).await;
        assert_eq!(end.sessions, sessions);
        assert_eq!(calls.counts.iter().sum::<usize>() as u64, sessions);
        assert!(calls.given_back > 0, "{:?}", calls.counts);
        match concurrency {
            // A reply takes longer than one that is there waits for others.
            1 => assert!(calls.counts.len() > 1, "{:?}", calls.counts),
            _ => assert!(calls.counts.len() < sessions as usize, "{:?}", calls.counts),
        }
    }
}

fn open(
    rate: f64,
    concurrency: usize,
    sessions: Option<u64>,
    duration: Option<Duration>,
) -> CellPlan {
    CellPlan {
        arrivals: Arrivals::Constant {
            rate: Rate::new(rate).unwrap(),
        },
        concurrency,
        sessions,
        duration,
        turns: 1,
        connections: Connections::Pooled,
    }
}

#[tokio::test(flavor = "current_thread")]
async fn an_open_loop_keeps_its_schedule_whatever_the_replies_do() {
    let backend = backend();
    let (shared, _stopper) = shared(1, PATIENCE);
    let lane = direct(&backend, Transport::Http);
    // A reply takes 25 ms: each session but the first finds the connection of an earlier one.
    let mut end = run(&shared, &lane, open(20.0, 64, Some(10), None)).await;
    end.exchanges.sort_by_key(|exchange| exchange.intended);
    assert_eq!(end.completed(), 10);
    // A busy host may hold one reply back beyond the next arrival; a connection for each session is another matter.
    assert!(
        end.counters.connections_opened <= 3,
        "{}",
        end.counters.connections_opened
    );
    for pair in end.exchanges.windows(2) {
        assert_eq!(pair[1].intended.since(pair[0].intended), 50_000_000);
    }
    assert!(
        end.exchanges
            .iter()
            .all(|exchange| exchange.dispatched >= exchange.intended)
    );
}

#[tokio::test(flavor = "current_thread")]
async fn waiting_for_a_place_is_measured_and_what_never_started_is_counted() {
    let backend = backend();
    let (shared, _stopper) = shared(1, PATIENCE);
    // A reply takes 25 ms, and one is due every 5 ms.
    let plan = open(200.0, 1, None, Some(Duration::from_millis(250)));
    let end = run(&shared, &direct(&backend, Transport::Http), plan).await;
    let lag = |exchange: &Exchange| exchange.dispatched.since(exchange.intended);
    assert_eq!(
        end.exchanges.len() as u64 + end.not_started,
        50,
        "every arrival is accounted for"
    );
    assert!(end.not_started > 10, "{}", end.not_started);
    assert!(end.exchanges.iter().map(lag).max() > Some(50_000_000));
}

#[tokio::test(flavor = "current_thread")]
async fn a_stop_is_heeded_at_once_and_finished_exchanges_stay() {
    let backend = backend();
    let (shared, stopper) = shared(1, PATIENCE);
    let lane = direct(&backend, Transport::Http);
    let stopping = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stopper.stop();
        MonoClock.now()
    };
    let (end, stopped) = tokio::join!(run(&shared, &lane, closed(u64::MAX, 1)), stopping);
    assert!(MonoClock.now().since(stopped) < 1_000_000_000);
    assert!(end.completed() > 0);
    assert_eq!(
        end.completed(),
        end.exchanges.len(),
        "what was under way is given up, not recorded"
    );
    assert!(end.cancelled <= 2);
}
