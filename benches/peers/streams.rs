//! The client of the rows about streams: tokenlag's own load generator on a thread of its own, and how late each token came
//! after the scripted backend had stamped it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokenlag_channel::tls::ClientTls;
use tokenlag_dialect::Dialect;
use tokenlag_loadgen::{
    Arrivals, BaseUrl, CellEnd, CellName, CellPlan, Connections, Endpoint, Lane, Limits, Phase,
    cell, stop,
};
use tokenlag_probes::{Row, State, Transport};
use tokenlag_scripted::{Script, ScriptedBackend};

use crate::asking;
use crate::cores;
use crate::process::Process;
use crate::quantile::quantile;

const SEED: u64 = 4;
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(20),
    exchange: Duration::from_secs(60),
};
/// Between two looks at the memory of what is tested.
const LOOK: Duration = Duration::from_millis(50);

/// Streams side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    pub count: u32,
    pub gap: Duration,
    pub tokens: u32,
    /// Replies of each, one after the other.
    pub turns: u32,
}

/// Where they go.
#[derive(Clone)]
pub struct Door {
    pub transport: Transport,
    pub address: SocketAddr,
    /// Whom to trust there, where it is encrypted.
    pub trust: Option<ClientTls>,
}

/// What came of them.
#[derive(Clone, Copy, Debug)]
pub struct Delays {
    /// Of `token - emission`, in nanoseconds.
    pub p50: f64,
    pub p99: f64,
    /// CPU time of what is tested per token, in nanoseconds.
    pub cpu: f64,
    /// The most memory of it that was resident, in bytes.
    pub resident: f64,
}

impl Streams {
    pub fn script(self) -> Script {
        Script {
            ttft: Duration::from_millis(20),
            gap: self.gap,
            tokens: Some(self.tokens),
            ..Script::default()
        }
    }

    pub fn all_tokens(self) -> u64 {
        u64::from(self.count) * u64::from(self.turns) * u64::from(self.tokens)
    }

    /// Runs them through `door`, on `core`.
    ///
    /// # Errors
    /// Not every token came.
    pub fn run(
        self,
        backend: &ScriptedBackend,
        door: &Door,
        tested: Option<&Process>,
        core: usize,
    ) -> Result<Delays, String> {
        backend.set_script(self.script());
        backend.take_emissions();
        backend.take_requests();
        let spent = tested.map_or(0, Process::cpu);
        let lane = door.lane();
        let generator = std::thread::Builder::new()
            .name("generator".to_owned())
            .spawn(move || {
                cores::bind(core)?;
                self.load(lane)
            })
            .map_err(|error| error.to_string())?;
        let mut resident = 0;
        while !generator.is_finished() {
            resident = resident.max(tested.map_or(0, Process::resident));
            std::thread::sleep(LOOK);
        }
        let end = generator
            .join()
            .map_err(|_| "the generator panicked".to_owned())??;
        let spent = tested.map_or(0, Process::cpu).saturating_sub(spent);
        let emissions = backend.take_emissions();
        let mut late = Vec::with_capacity(self.all_tokens() as usize);
        for exchange in &end.exchanges {
            let emitted = emissions.get(&exchange.trace).into_iter().flatten();
            let pairs = exchange.tokens.iter().zip(emitted);
            late.extend(pairs.map(|(token, emission)| token.at.since(*emission) as f64));
        }
        if late.len() as u64 != self.all_tokens() {
            let trouble = end.troubles.keys().next();
            return Err(format!(
                "{} of {} tokens came over {}: {}",
                late.len(),
                self.all_tokens(),
                door.transport,
                trouble.map_or("no trouble was told", |words| words)
            ));
        }
        Ok(Delays {
            p50: quantile(&mut late, 0.5),
            p99: quantile(&mut late, 0.99),
            cpu: spent as f64 / self.all_tokens() as f64,
            resident: resident as f64,
        })
    }

    fn load(self, lane: Lane) -> Result<CellEnd, String> {
        /// Exchanges are told apart over the whole bench.
        static CELLS: AtomicU32 = AtomicU32::new(1);
        let number = CELLS.fetch_add(1, Ordering::Relaxed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let (_stopper, stop) = stop();
        let shared = asking::shared(
            SEED,
            lane_dialect(lane.row.transport),
            (self.turns, self.tokens),
            LIMITS,
            stop,
        );
        let plan = CellPlan {
            arrivals: Arrivals::Closed,
            concurrency: self.count as usize,
            sessions: Some(self.count.into()),
            duration: None,
            turns: self.turns,
            connections: Connections::PerSession,
        };
        let name = CellName {
            phase: Phase::Measured,
            block: number,
            order: 0,
            first_serial: u64::from(number) * 10_000,
        };
        Ok(runtime.block_on(cell::run(Rc::new(shared), Rc::new(lane), plan, name)))
    }
}

/// Every channel carries the Responses API, plain HTTP what most upstreams speak.
fn lane_dialect(transport: Transport) -> Dialect {
    match transport {
        Transport::Http => Dialect::Chat,
        _ => Dialect::Responses,
    }
}

impl Door {
    /// Plain HTTP/1.1.
    pub fn http(address: SocketAddr) -> Self {
        Self {
            transport: Transport::Http,
            address,
            trust: None,
        }
    }

    fn lane(&self) -> Lane {
        let base = BaseUrl::of(self.address.ip().to_string(), self.address.port());
        let dialect = lane_dialect(self.transport);
        let mut endpoint = Endpoint::new(&base, dialect, Vec::new(), LIMITS);
        if let Some(trust) = &self.trust {
            endpoint = endpoint.over_tls(trust.clone());
        }
        Lane {
            row: Row::events(self.transport, State::Full),
            index: 0,
            endpoint,
        }
    }
}
