//! The plan of `load`.

use tokenlag_dialect::Dialect;
use tokenlag_loadgen::{CellPlan, Connections, Preset};
use tokenlag_probes::{Row, State, Transport};

use super::{Plan, flags};
use crate::args::load::LoadArgs;
use crate::args::values::Pin;
use crate::exit::Usage;

/// Exchanges where neither their number nor a duration is said.
const LOAD_EXCHANGES: u64 = 100;

impl Plan {
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
        crate::rows::check_built(args.channel).map_err(Usage)?;
        let message_based = matches!(args.channel, Transport::Ws | Transport::Quic);
        if message_based && args.api != Dialect::Responses {
            let what = format!(
                "{} carries the Responses API; add --api responses",
                args.channel
            );
            return Err(Usage(what).into());
        }
        let work = &args.work;
        let workload = flags::shape(work, Preset::Chat.workload());
        let arrivals = flags::arrivals(work);
        let exchanges = match (work.num_prompts, work.duration) {
            (Some(count), _) => Some(count),
            (None, Some(_)) => None,
            (None, None) => Some(LOAD_EXCHANGES),
        };
        let cell = CellPlan {
            arrivals,
            concurrency: flags::concurrency(work),
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
}
