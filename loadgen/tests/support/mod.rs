//! What the tests of the load generator share: a run against a backend whose times are known.

#![allow(dead_code, reason = "each test binary uses a part of what they share")]

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokenlag_dialect::Dialect;
use tokenlag_loadgen::{
    Arrivals, Asking, BaseUrl, CellEnd, CellName, CellPlan, Connections, Endpoint, Form, Lane,
    Limits, Phase, Progress, Prompts, Shared, Stop, Stopper, WordCount, Workload, cell, stop,
};
use tokenlag_probes::{Exchange, Row, State, Transport};
use tokenlag_proxy::{Addresses, Proxy, ProxyOptions, UpstreamApi};
use tokenlag_scripted::{Script, ScriptedBackend};

/// The seed of all of these runs.
pub const SEED: u64 = 11;

/// A backend that waits 5 ms, then says a token each millisecond.
pub fn backend() -> ScriptedBackend {
    ScriptedBackend::start("ttft=5ms,gap=1ms".parse::<Script>().unwrap()).unwrap()
}

/// Starts a proxy in front of `backend` within the current local set; it ends with it. Gives where it listens, and its
/// certificate.
pub fn proxy(backend: &ScriptedBackend) -> (Addresses, Vec<u8>) {
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let mut options = ProxyOptions::new(any, backend.url().parse().unwrap());
    options.admin = any;
    options.grace = Duration::ZERO;
    // What it speaks is said, so that every request that the backend sees is one of the rows'.
    options.upstream_api = UpstreamApi::Responses;
    let proxy = Proxy::bind(options).unwrap();
    let (addresses, certificate) = (proxy.addresses(), proxy.certificate().as_bytes().to_vec());
    tokio::task::spawn_local(proxy.run(std::future::pending()));
    (addresses, certificate)
}

/// A run of `turns` turns of 20 tokens each, and the one who can stop it.
pub fn shared(turns: u32, exchange: Duration) -> (Rc<Shared>, Stopper) {
    let (stopper, stop) = stop();
    (Rc::new(shared_with(turns, exchange, stop)), stopper)
}

/// The same in one turn whose prompt has so many tokens.
pub fn shared_asking(input: u32, exchange: Duration) -> (Rc<Shared>, Stopper) {
    let (stopper, stop) = stop();
    let mut shared = shared_with(1, exchange, stop);
    shared.prompts.workload.first_input = input;
    (Rc::new(shared), stopper)
}

fn shared_with(turns: u32, exchange: Duration, stop: Stop) -> Shared {
    Shared {
        form: Form::of(Asking {
            dialect: Dialect::Responses,
            model: "scripted".to_owned(),
            tool_calls: false,
            seed: SEED,
            ignore_eos: true,
            store: true,
            extra: serde_json::Map::new(),
        }),
        prompts: Prompts {
            seed: SEED,
            workload: Workload {
                turns,
                first_input: 64,
                later_input: 16,
                output: 20,
                least_output: None,
                tool_calls: false,
            },
            count: WordCount::GUESS,
        },
        limits: Limits {
            exchange,
            ..Limits::default()
        },
        stop,
        progress: Rc::new(Progress::default()),
    }
}

/// A lane of `row` to `base`.
pub fn lane(index: u32, transport: Transport, state: State, base: &BaseUrl) -> Rc<Lane> {
    Rc::new(Lane {
        row: Row::events(transport, state),
        index,
        endpoint: Endpoint::new(base, Dialect::Responses, Vec::new(), Limits::default()),
    })
}

/// A lane straight to the scripted backend.
pub fn direct(backend: &ScriptedBackend, transport: Transport) -> Rc<Lane> {
    lane(0, transport, State::Full, &backend.url().parse().unwrap())
}

/// A closed loop of `sessions` sessions, two at a time.
pub fn closed(sessions: u64, turns: u32) -> CellPlan {
    CellPlan {
        arrivals: Arrivals::Closed,
        concurrency: 2,
        sessions: Some(sessions),
        duration: None,
        turns,
        connections: Connections::PerSession,
    }
}

/// The first cell.
pub const FIRST: CellName = CellName {
    phase: Phase::Measured,
    block: 0,
    order: 0,
    first_serial: 0,
};

/// Runs one cell.
pub async fn run(shared: &Rc<Shared>, lane: &Rc<Lane>, plan: CellPlan) -> CellEnd {
    cell::run(shared.clone(), lane.clone(), plan, FIRST).await
}

/// Fails unless every stamp was taken, and in order.
#[track_caller]
pub fn check_order(exchange: &Exchange) {
    let tokens = exchange.tokens.iter().map(|mark| Some(mark.at));
    let early = [
        Some(exchange.intended),
        Some(exchange.dispatched),
        exchange.connected,
        exchange.written,
        exchange.head,
    ];
    let stamps: Vec<_> = early
        .into_iter()
        .chain(tokens)
        .chain([exchange.end])
        .collect();
    assert!(stamps.iter().all(Option::is_some), "{exchange:?}");
    assert!(stamps.is_sorted(), "{exchange:?}");
}
