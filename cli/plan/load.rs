//! The plan of `load`.

use tokenlag_dialect::Dialect;
use tokenlag_loadgen::{BaseUrl, CellPlan, Connections, Preset};
use tokenlag_probes::{Row, State, Transport};

use super::{Plan, Wire, flags};
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
        check_channel(args)?;
        let rows = vec![Row {
            transport: args.channel,
            state: args.state,
            encoding: args.encoding,
        }];
        let is_tls = args.target.url.as_ref().is_some_and(BaseUrl::is_tls);
        // With one address there is no proxy that the control could pass by.
        let dialled = match args.channel {
            Transport::Direct => Row::HTTP_FULL,
            _ => rows[0],
        };
        let wire = Wire::new(&args.wire, is_tls, &[dialled])?;
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
            connections: match wire.multiplex {
                true => Connections::Shared,
                false => Connections::Pooled,
            },
        };
        let mut plan = Self::new(&args.target, work, args.api, workload, cell)?;
        plan.set_rows(rows, Vec::new());
        plan.wire = wire;
        plan.duration_s = work.duration.map(|span| span.as_secs_f64());
        plan.pin = Pin::None;
        Ok(plan)
    }
}

/// Refuses what the channel cannot carry.
fn check_channel(args: &LoadArgs) -> Result<(), Usage> {
    let channel = args.channel;
    let what = if let Some(leg) = channel.leg() {
        format!(
            "{channel} is two proxies in line, which compare starts; to load one that runs, as `tokenlag proxy \
             --upstream-channel {leg}`, take --channel http-cold"
        )
    } else if !channel.has_encoding(args.encoding) {
        format!("only quic has --encoding {}, not {channel}", args.encoding)
    } else if matches!(channel, Transport::Ws | Transport::Quic) && args.api != Dialect::Responses {
        format!("{channel} carries the Responses API; add --api responses")
    } else {
        return Ok(());
    };
    Err(Usage(what))
}
