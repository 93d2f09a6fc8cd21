//! What a run will do, as one value: made once from flags, checked once, and kept in the run's manifest.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use tokenlag_dialect::Dialect;
use tokenlag_loadgen::{
    Arrivals, Asking, BaseUrl, Burstiness, CellPlan, Connections, Limits, Preset, Workload,
};
use tokenlag_probes::{Row, State, Transport, clock};

use crate::args::compare::CompareArgs;
use crate::args::load::LoadArgs;
use crate::args::shared::{TargetArgs, WorkArgs};
use crate::args::values::{Pattern, Pin};
use crate::exit::Usage;
use crate::rows;

/// Turns that each row takes where nothing else is said.
const BLOCKS: u32 = 24;
/// The same with `--quick`: the fewest from which intervals can be told.
const QUICK_BLOCKS: u32 = 20;
/// What `compare` asks where nothing else is said: a short tool loop that the embedded model answers quickly.
const COMPARE_WORKLOAD: Workload = Workload {
    turns: 4,
    first_input: 256,
    later_input: 24,
    output: 48,
};
const QUICK_WORKLOAD: Workload = Workload {
    turns: 3,
    first_input: 192,
    later_input: 24,
    output: 32,
};
/// Exchanges of `load` where neither their number nor a duration is said.
const LOAD_EXCHANGES: u64 = 100;
/// Sessions that an open loop may have open at the same time where nothing else is said.
const OPEN_LOOP_SESSIONS: usize = 4_096;
/// How long an open loop's cell of a comparison takes where nothing else is said.
const OPEN_LOOP_CELL: Duration = Duration::from_secs(1);

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
    /// Further members of every request's body.
    pub extra_body: Map<String, Value>,
    /// Ask for output to the full length.
    pub ignore_eos: bool,
    /// The rows.
    pub rows: Vec<String>,
    /// Rows that the others are compared with.
    pub baselines: Vec<String>,
    /// The sessions' shape.
    pub workload: Workload,
    /// When sessions start.
    pub arrivals: Arrivals,
    /// Sessions side by side.
    pub concurrency: usize,
    /// Turns that each row takes, at most.
    pub blocks: u32,
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
    /// The plan of `compare`.
    pub fn of_compare(args: &CompareArgs) -> anyhow::Result<Self> {
        let rows = rows::select(&args.channels, &args.state, &args.baseline, !args.no_direct);
        let rows = rows.map_err(Usage)?;
        let baselines = if args.baseline.is_empty() {
            vec![Row::HTTP_COLD_FULL, Row::HTTP_FULL]
        } else {
            args.baseline.iter().map(|name| name.0).collect()
        };
        let (workload, blocks) = if args.quick {
            (QUICK_WORKLOAD, QUICK_BLOCKS)
        } else {
            (COMPARE_WORKLOAD, BLOCKS)
        };
        let work = &args.work;
        let workload = shape(work, workload);
        let arrivals = arrivals(work);
        let concurrency = concurrency(work);
        let sessions = work
            .num_prompts
            .map(|count| count.div_ceil(workload.turns.into()));
        let blocks = match (args.blocks, work.duration, sessions) {
            (Some(blocks), ..) => blocks,
            (None, Some(_), None) if !arrivals.is_open() => u32::MAX,
            (None, _, Some(sessions)) => blocks.min(u32::try_from(sessions).unwrap_or(blocks)),
            (None, _, None) => blocks,
        };
        let cells = u64::from(blocks) * rows.len() as u64;
        let cell_duration = match work.duration {
            Some(duration) if arrivals.is_open() => Some(duration.div_f64(cells as f64)),
            None if arrivals.is_open() && sessions.is_none() => Some(OPEN_LOOP_CELL),
            _ => None,
        };
        let cell = CellPlan {
            arrivals,
            concurrency,
            sessions: match (sessions, cell_duration) {
                (Some(sessions), _) => Some(sessions.div_ceil(blocks.into())),
                (None, Some(_)) => None,
                (None, None) => Some(concurrency as u64),
            },
            duration: cell_duration,
            turns: workload.turns,
            connections: Connections::PerSession,
        };
        let duration = work.duration.filter(|_| !arrivals.is_open());
        let mut plan = Self::new(&args.target, work, Dialect::Responses, workload, cell)?;
        plan.set_rows(rows, baselines);
        plan.proxy = args.proxy.as_ref().map(BaseUrl::to_string);
        plan.blocks = blocks;
        plan.duration_s = work.duration.map(|span| span.as_secs_f64());
        plan.work.duration = duration;
        plan.pin = args.pin;
        Ok(plan)
    }

    /// The plan of `load`.
    pub fn of_load(args: &LoadArgs) -> anyhow::Result<Self> {
        if args.target.url.is_none() {
            let what = "load needs the address of a server: --url http://127.0.0.1:8080";
            return Err(Usage(what.to_owned()).into());
        }
        if args.state == State::Incremental && args.api != Dialect::Responses {
            let what = "only the Responses API has --state incremental; add --api responses";
            return Err(Usage(what.to_owned()).into());
        }
        let message_based = matches!(args.channel, Transport::Ws | Transport::Quic);
        if message_based && args.api != Dialect::Responses {
            let what = format!(
                "{} carries the Responses API; add --api responses",
                args.channel
            );
            return Err(Usage(what).into());
        }
        let work = &args.work;
        let workload = shape(work, Preset::Chat.workload());
        let arrivals = arrivals(work);
        let exchanges = match (work.num_prompts, work.duration) {
            (Some(count), _) => Some(count),
            (None, Some(_)) => None,
            (None, None) => Some(LOAD_EXCHANGES),
        };
        let cell = CellPlan {
            arrivals,
            concurrency: concurrency(work),
            sessions: exchanges.map(|count| count.div_ceil(workload.turns.into())),
            duration: work.duration,
            turns: workload.turns,
            connections: Connections::Pooled,
        };
        let mut plan = Self::new(&args.target, work, args.api, workload, cell)?;
        plan.set_rows(vec![Row::events(args.channel, args.state)], Vec::new());
        plan.duration_s = work.duration.map(|span| span.as_secs_f64());
        plan.pin = Pin::None;
        Ok(plan)
    }

    fn new(
        target: &TargetArgs,
        work: &WorkArgs,
        dialect: Dialect,
        workload: Workload,
        cell: CellPlan,
    ) -> anyhow::Result<Self> {
        let headers = headers(target);
        let limits = Limits {
            connect: Limits::default().connect.min(target.timeout),
            exchange: target.timeout,
        };
        Ok(Self {
            url: target.url.as_ref().map(BaseUrl::to_string),
            proxy: None,
            api: dialect.name(),
            model: target.model.clone(),
            headers: headers.iter().map(|(name, _)| name.clone()).collect(),
            extra_body: extra_body(target)?,
            ignore_eos: target.ignore_eos,
            rows: Vec::new(),
            baselines: Vec::new(),
            workload,
            arrivals: cell.arrivals,
            concurrency: cell.concurrency,
            blocks: 1,
            sessions_per_cell: cell.sessions,
            duration_s: None,
            cell_duration_s: cell.duration.map(|span| span.as_secs_f64()),
            warmups: work.num_warmups.unwrap_or(match cell.arrivals.is_open() {
                true => 1,
                false => cell.concurrency as u64,
            }),
            timeout_s: target.timeout.as_secs_f64(),
            seed: work.random_seed.unwrap_or_else(fresh_seed),
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

    /// What every request asks of `model`.
    pub fn asking(&self, model: String) -> Asking {
        Asking {
            dialect: self.work.dialect,
            model,
            output: self.workload.output,
            // The sampling seed is 32 bits wide in several servers.
            seed: self.seed & u64::from(u32::MAX),
            ignore_eos: self.ignore_eos,
            extra: self.extra_body.clone(),
        }
    }

    /// Exchanges that the run will make, warm-ups included, where that is known.
    pub fn exchanges(&self) -> Option<u64> {
        if self.work.duration.is_some() {
            return None;
        }
        let sessions = u64::from(self.blocks) * self.work.cell.sessions? + self.warmups;
        Some(sessions * u64::from(self.workload.turns) * self.rows.len() as u64)
    }
}

fn shape(work: &WorkArgs, default: Workload) -> Workload {
    let preset = work.workload.map_or(default, Preset::workload);
    Workload {
        turns: work.turns.unwrap_or(preset.turns),
        first_input: work.isl.unwrap_or(preset.first_input),
        later_input: work.later_isl.unwrap_or(preset.later_input.max(1)),
        output: work.osl.unwrap_or(preset.output),
    }
}

fn arrivals(work: &WorkArgs) -> Arrivals {
    let Some(rate) = work.request_rate else {
        return Arrivals::Closed;
    };
    let burstiness = work.burstiness.or_else(|| Burstiness::new(1.0));
    match (work.arrival_pattern, burstiness) {
        (Some(Pattern::Constant), _) => Arrivals::Constant { rate },
        (Some(Pattern::Gamma), Some(burstiness)) => Arrivals::Gamma { rate, burstiness },
        _ => Arrivals::Poisson { rate },
    }
}

fn concurrency(work: &WorkArgs) -> usize {
    match (work.concurrency, work.request_rate) {
        (Some(sessions), _) => sessions as usize,
        (None, Some(_)) => OPEN_LOOP_SESSIONS,
        (None, None) => 1,
    }
}

fn headers(target: &TargetArgs) -> Vec<(String, String)> {
    let from_environment = || {
        std::env::var("OPENAI_API_KEY")
            .ok()
            .filter(|key| !key.is_empty())
    };
    let key = target
        .api_key
        .as_ref()
        .map(|key| key.0.clone())
        .or_else(from_environment);
    let authorization = key.map(|key| ("authorization".to_owned(), format!("Bearer {key}")));
    let given = target
        .header
        .iter()
        .map(|header| (header.name.clone(), header.value.clone()));
    authorization.into_iter().chain(given).collect()
}

fn extra_body(target: &TargetArgs) -> anyhow::Result<Map<String, Value>> {
    let Some(text) = &target.extra_body else {
        return Ok(Map::new());
    };
    let parsed = serde_json::from_str(text);
    Ok(parsed.map_err(|error| Usage(format!("--extra-body must be a JSON object: {error}")))?)
}

/// Another seed for each run, so that a backend that saw an earlier run finds none of its prompts cached.
fn fresh_seed() -> u64 {
    let since = clock::wall_clock()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    // Kept below 2^53: the manifest is read by programs that know no larger whole numbers.
    (since.as_nanos() as u64 ^ u64::from(std::process::id()) << 20) & ((1 << 53) - 1)
}
