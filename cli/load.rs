//! `tokenlag load`: one row against one address.

use std::path::Path;
use std::rc::Rc;

use anyhow::Context;
use tokenlag_channel::tls::ClientTls;
use tokenlag_loadgen::{BaseUrl, Endpoint, Lane};
use tokenlag_probes::Transport;

use crate::args::load::LoadArgs;
use crate::exit::{Exit, Usage};
use crate::measure::{self, Measured, Run};
use crate::pinning::Pinning;
use crate::plan::Plan;
use crate::rig::Alarm;
use crate::{alarm, certificates, finish, host, models};

/// Runs the command.
pub fn run(args: LoadArgs) -> anyhow::Result<Exit> {
    let plan = Plan::of_load(&args)?;
    let trust = trust(&args)?;
    let place = measure::claim(args.output.out.as_deref(), "load")?;
    let outcome = alarm::block_on(async {
        let (alarm, interrupted) = alarm::alarm();
        let measured = measured(&args, &plan, trust, &place, &alarm).await;
        finish::outcome(measured, None, &interrupted)
    });
    measure::unclaim(&place);
    finish::tell(outcome, &place, &args.output)
}

async fn measured(
    args: &LoadArgs,
    plan: &Plan,
    trust: Option<ClientTls>,
    place: &Path,
    alarm: &Alarm,
) -> anyhow::Result<Measured> {
    let url = plan.work.url.as_ref().context("a load has an address")?;
    let model = match &plan.model {
        Some(model) => model.clone(),
        None => {
            alarm
                .or_stopped(models::only_one(url, &plan.work.headers))
                .await?
        }
    };
    let run = Run {
        command: "load",
        plan,
        model,
        lanes: vec![Rc::new(lane(plan, url, trust))],
        proxy: None,
        host: host::read(),
        pinning: Pinning::default(),
        warnings: Vec::new(),
        place,
        output: &args.output,
    };
    run.measure(alarm).await
}

fn lane(plan: &Plan, url: &BaseUrl, trust: Option<ClientTls>) -> Lane {
    let row = plan.work.rows[0];
    let headers = plan.work.headers.clone();
    let mut endpoint = Endpoint::new(url, plan.work.dialect, headers, plan.work.limits);
    if let Some(tls) = trust.filter(|_| row.transport == Transport::Quic) {
        endpoint = endpoint.over_tls(tls);
    }
    Lane {
        row,
        index: 0,
        endpoint,
    }
}

fn trust(args: &LoadArgs) -> anyhow::Result<Option<ClientTls>> {
    match &args.trust {
        Some(path) => certificates::trusted(path).map(Some),
        None if args.channel == Transport::Quic => {
            Err(Usage("quic needs --trust FILE.pem, the other end's certificate".to_owned()).into())
        }
        None => Ok(None),
    }
}
