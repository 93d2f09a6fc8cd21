//! What a run will do, as one value: made once from flags, checked once, and kept in the run's manifest.

mod compare;
mod flags;
mod load;
mod profile;
mod wire;

use std::num::NonZeroU32;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use tokenlag_dialect::Dialect;
use tokenlag_loadgen::warmup::WARMUP_TURNS;
use tokenlag_loadgen::{Arrivals, Asking, BaseUrl, CellPlan, Limits, Workload};
use tokenlag_probes::{Row, State, StateAt, Until};

use crate::args::shared::{TargetArgs, WorkArgs};
use crate::args::values::Pin;
use crate::link::LinkPlan;
pub use wire::Wire;

/// What a run will do.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// The backend; `None`: the embedded model is started.
    pub url: Option<String>,
    /// The proxy that is already running; `None`: one is started, if any row needs it.
    pub proxy: Option<String>,
    /// The API of all requests.
    pub api: &'static str,
    /// The model's name; `None`: the only one that the backend lists.
    pub model: Option<String>,
    /// Names of the headers that every request carries.
    pub headers: Vec<String>,
    /// Most tokens a second of each answer of the embedded model; `None`: as fast as it computes them.
    pub tokens_per_second: Option<NonZeroU32>,
    /// Further members of every request's body.
    pub extra_body: Map<String, Value>,
    /// Ask for output to the full length.
    pub ignore_eos: bool,
    /// The rows.
    pub rows: Vec<String>,
    /// Rows that the others are compared with.
    pub baselines: Vec<String>,
    /// How channels are encrypted and shared.
    #[serde(flatten)]
    pub wire: Wire,
    /// The emulated link that the rows' traffic goes over; `None`: the host's own way.
    pub link: Option<LinkPlan>,
    /// Where conversations are kept; `None`: nobody said.
    pub state_at: Option<StateAt>,
    /// The sessions' shape.
    pub workload: Workload,
    /// When sessions start.
    pub arrivals: Arrivals,
    /// Sessions side by side.
    pub concurrency: usize,
    /// Turns that each row takes, at most.
    pub blocks: u32,
    /// How narrow the intervals are to become, where that ends the run.
    pub until: Option<Until>,
    /// Sessions of each turn; `None`: as many as its time allows.
    pub sessions_per_cell: Option<u64>,
    /// Seconds after which no turn begins.
    pub duration_s: Option<f64>,
    /// Seconds that each turn takes, in an open loop.
    pub cell_duration_s: Option<f64>,
    /// Unrecorded sessions of each row.
    pub warmups: u64,
    /// The longest that an exchange may take, in seconds.
    pub timeout_s: f64,
    /// The seed of everything random.
    pub seed: u64,
    /// Whether processes are bound to cores.
    pub pin: Pin,
    /// The typed values behind the ones above, and secrets.
    #[serde(skip)]
    pub work: Work,
}

/// The parts of a plan that are values of other crates.
#[derive(Debug)]
pub struct Work {
    pub rows: Vec<Row>,
    pub baselines: Vec<Row>,
    pub url: Option<BaseUrl>,
    pub dialect: Dialect,
    pub headers: Vec<(String, String)>,
    pub cell: CellPlan,
    pub duration: Option<Duration>,
    pub limits: Limits,
}

impl Plan {
    fn new(
        target: &TargetArgs,
        work: &WorkArgs,
        dialect: Dialect,
        workload: Workload,
        cell: CellPlan,
    ) -> anyhow::Result<Self> {
        let headers = flags::headers(target)?;
        let limits = Limits {
            connect: Limits::default().connect.min(target.timeout),
            exchange: target.timeout,
        };
        Ok(Self {
            url: target.url.as_ref().map(BaseUrl::to_string),
            proxy: None,
            api: dialect.name(),
            model: target.model.clone(),
            tokens_per_second: None,
            headers: headers.iter().map(|(name, _)| name.clone()).collect(),
            extra_body: flags::extra_body(target)?,
            ignore_eos: target.ignore_eos,
            rows: Vec::new(),
            baselines: Vec::new(),
            wire: Wire::default(),
            link: None,
            state_at: None,
            workload,
            arrivals: cell.arrivals,
            concurrency: cell.concurrency,
            blocks: 1,
            until: None,
            sessions_per_cell: cell.sessions,
            duration_s: None,
            cell_duration_s: cell.duration.map(|span| span.as_secs_f64()),
            warmups: work.num_warmups.unwrap_or(match cell.arrivals.is_open() {
                true => 1,
                false => cell.concurrency as u64,
            }),
            timeout_s: target.timeout.as_secs_f64(),
            seed: work.random_seed.unwrap_or_else(flags::fresh_seed),
            pin: Pin::default(),
            work: Work {
                rows: Vec::new(),
                baselines: Vec::new(),
                url: target.url.clone(),
                dialect,
                headers,
                cell,
                duration: None,
                limits,
            },
        })
    }

    fn set_rows(&mut self, rows: Vec<Row>, baselines: Vec<Row>) {
        self.rows = rows.iter().map(Row::to_string).collect();
        self.baselines = baselines.iter().map(Row::to_string).collect();
        self.work.rows = rows;
        self.work.baselines = baselines;
    }

    /// Some row goes on from what is kept of its conversation.
    pub fn is_incremental(&self) -> bool {
        let incremental = |row: &Row| row.state == State::Incremental;
        self.work.rows.iter().any(incremental)
    }

    /// What every request asks of `model`.
    pub fn asking(&self, model: String) -> Asking {
        Asking {
            dialect: self.work.dialect,
            model,
            tool_calls: self.workload.tool_calls,
            // The sampling seed is 32 bits wide in several servers.
            seed: self.seed & u64::from(u32::MAX),
            ignore_eos: self.ignore_eos,
            store: self.is_incremental(),
            extra: self.extra_body.clone(),
        }
    }

    /// Exchanges that the run will make, warm-ups included, where that is known.
    pub fn exchanges(&self) -> Option<u64> {
        if self.blocks == u32::MAX {
            return None;
        }
        let turns = u64::from(self.workload.turns);
        let measured = u64::from(self.blocks) * self.work.cell.sessions? * turns;
        let warmups = self.warmups * turns.min(WARMUP_TURNS.into());
        Some((measured + warmups) * self.rows.len() as u64)
    }
}
