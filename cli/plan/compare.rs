//! The plan of `compare`.

use std::time::Duration;

use tokenlag_dialect::Dialect;
use tokenlag_loadgen::{BaseUrl, CellPlan, Connections, Workload};
use tokenlag_probes::{Until, precision};

use super::{Plan, Wire, flags};
use crate::args::compare::CompareArgs;
use crate::exit::Usage;
use crate::rows::{self, Wanted};

/// Turns that each row takes where nothing else is said: enough for narrow intervals, in about half a minute of load.
const BLOCKS: u32 = 30;
/// The same with `--quick`: a few more than the fewest from which intervals can be told.
const QUICK_BLOCKS: u32 = 24;
/// No turn begins later with `--quick`.
const QUICK_LIMIT: Duration = Duration::from_secs(18);
/// No turn begins later where --until is given without --duration.
const UNTIL_LIMIT: Duration = Duration::from_secs(600);
/// What is asked where nothing else is said: a short tool loop that the embedded model answers quickly.
const WORKLOAD: Workload = Workload {
    turns: 4,
    first_input: 256,
    later_input: 24,
    output: 48,
    least_output: None,
    tool_calls: false,
};
const QUICK_WORKLOAD: Workload = Workload {
    turns: 3,
    first_input: 192,
    later_input: 24,
    output: 32,
    least_output: None,
    tool_calls: false,
};
/// How long an open loop's turn takes where nothing else is said.
const OPEN_LOOP_CELL: Duration = Duration::from_secs(1);

impl Plan {
    /// The plan of `compare`.
    pub fn of_compare(args: &CompareArgs) -> anyhow::Result<Self> {
        let rows = rows::select(&Wanted {
            channels: &args.channels,
            states: &args.state,
            encodings: &args.encoding,
            baselines: &args.baseline,
            direct: !args.no_direct,
            quick: args.quick,
            state_at: args.state_at,
        });
        let rows = rows.map_err(Usage)?;
        let tls = args.tls || args.proxy.as_ref().is_some_and(BaseUrl::is_tls);
        let wire = Wire::new(&args.wire, tls, &rows)?;
        check_certificates(args)?;
        let baselines = rows::baselines(&args.baseline, &rows);
        let (workload, blocks) = if args.quick {
            (QUICK_WORKLOAD, QUICK_BLOCKS)
        } else {
            (WORKLOAD, BLOCKS)
        };
        let work = &args.work;
        let workload = flags::shape(work, workload);
        let arrivals = flags::arrivals(work);
        let concurrency = flags::concurrency(work);
        let sessions = work
            .num_prompts
            .map(|count| count.div_ceil(workload.turns.into()));
        // `--quick` is a promise: a host that is slow makes fewer turns of it, and the verdict says so.
        let limit = work
            .duration
            .or(args.quick.then_some(QUICK_LIMIT))
            .or(args.until.and(Some(UNTIL_LIMIT)));
        let until = args.until.map(|half_width| Until {
            half_width,
            fewest_blocks: args.blocks.unwrap_or(0).max(precision::FEWEST_BLOCKS),
        });
        let blocks = match (args.blocks, work.duration, sessions) {
            _ if until.is_some() => u32::MAX,
            (Some(blocks), ..) => blocks,
            (None, Some(_), None) if !arrivals.is_open() => u32::MAX,
            (None, _, Some(sessions)) => blocks.min(u32::try_from(sessions).unwrap_or(blocks)),
            (None, _, None) => blocks,
        };
        let cells = u64::from(blocks) * rows.len() as u64;
        let cell_duration = match limit {
            _ if until.is_some() => arrivals.is_open().then_some(OPEN_LOOP_CELL),
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
            connections: match wire.multiplex {
                true => Connections::Shared,
                false => Connections::PerSession,
            },
        };
        let duration = limit.filter(|_| !arrivals.is_open() || until.is_some());
        let mut plan = Self::new(&args.target, work, Dialect::Responses, workload, cell)?;
        plan.set_rows(rows, baselines);
        plan.wire = wire;
        plan.state_at = args.state_at;
        plan.tokens_per_second = args.tokens_per_second;
        plan.proxy = args.proxy.as_ref().map(BaseUrl::to_string);
        plan.blocks = blocks;
        plan.until = until;
        plan.duration_s = limit.map(|span| span.as_secs_f64());
        plan.work.duration = duration;
        plan.pin = args.pin;
        Ok(plan)
    }
}

/// Refuses files that nobody would read.
fn check_certificates(args: &CompareArgs) -> Result<(), Usage> {
    let what = if args.wire.trust.is_some() && args.proxy.is_none() && args.cert.is_none() {
        "--trust is for a proxy that is already running, or for a certificate of your own (--cert, --key): without, one is made \
         for the run, and trusted"
    } else if args.upstream_trust.is_some()
        && !args.target.url.as_ref().is_some_and(BaseUrl::is_tls)
    {
        "--upstream-trust is for a backend with an https address; give it with --url"
    } else {
        return Ok(());
    };
    Err(Usage(what.to_owned()))
}
