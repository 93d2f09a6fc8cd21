//! The plan of `profile`: that of `compare`, in longer turns and until enough was sampled.

use std::time::Duration;

use super::Plan;
use crate::args::profile::{ProfileArgs, Sampler};
use crate::args::values::Output;
use crate::exit::Usage;

/// Sessions side by side where nothing else is said: a profile is of a process that works, and one session mostly waits.
const SESSIONS: usize = 8;
/// How long a row's turn takes: beginning and ending a profile takes some hundredths of a second.
const TURN: Duration = Duration::from_secs(1);
/// No turn begins later where neither --duration nor --blocks is given.
const LIMIT: Duration = Duration::from_secs(300);

impl Plan {
    /// The plan of `profile`.
    pub fn of_profile(args: &ProfileArgs) -> anyhow::Result<Self> {
        let compare = &args.compare;
        if compare.until.is_some() {
            let what = "--until is of compare, which looks at intervals; a profile goes on until --resolution is reached";
            return Err(Usage(what.to_owned()).into());
        }
        if !compare.output.fail_if.is_empty() {
            let what = "--fail-if is of compare and load, whose figures no sampling disturbs";
            return Err(Usage(what.to_owned()).into());
        }
        if compare.output.output == Output::Csv {
            let what = "a profile is shown as a table or as JSON: --output table, --output json";
            return Err(Usage(what.to_owned()).into());
        }
        if args.sampler == Sampler::Perf && compare.proxy.is_some() {
            let what = "--sampler perf samples processes that are started for the run; leave out --proxy, or the sampler: a proxy \
                        samples itself";
            return Err(Usage(what.to_owned()).into());
        }
        let mut plan = Self::of_compare(compare)?;
        let work = &compare.work;
        if work.concurrency.is_none() && work.request_rate.is_none() {
            plan.concurrency = SESSIONS;
            plan.work.cell.concurrency = SESSIONS;
            if work.num_warmups.is_none() {
                plan.warmups = SESSIONS as u64;
            }
        }
        if work.num_prompts.is_none() {
            plan.sessions_per_cell = None;
            plan.work.cell.sessions = None;
            plan.cell_duration_s = Some(TURN.as_secs_f64());
            plan.work.cell.duration = Some(TURN);
            let quick = plan.duration_s.filter(|_| compare.quick);
            let limit = work.duration.or(quick.map(Duration::from_secs_f64));
            let limit = limit.or(compare.blocks.is_none().then_some(LIMIT));
            plan.duration_s = limit.map(|span| span.as_secs_f64());
            plan.work.duration = limit;
            plan.blocks = compare.blocks.unwrap_or(u32::MAX);
        }
        Ok(plan)
    }
}
