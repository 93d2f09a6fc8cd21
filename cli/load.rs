//! `tokenlag load`: one row against one address.

use std::path::Path;
use std::rc::Rc;

use anyhow::Context;
use tokenlag_channel::tls::ClientTls;
use tokenlag_loadgen::{BaseUrl, Endpoint, Lane};

use crate::args::load::LoadArgs;
use crate::conditions::Found;
use crate::exit::Exit;
use crate::measure::{self, Measured, Run};
use crate::pinning::Pinning;
use crate::plan::Plan;
use crate::rig::Alarm;
use crate::{alarm, certificates, finish, host, models};

/// Runs the command.
pub fn run(args: LoadArgs) -> anyhow::Result<Exit> {
    let plan = Plan::of_load(&args)?;
    let trust = trust(&args, &plan)?;
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
            let asked = models::only_one(url, trust.as_ref(), &plan.work.headers);
            alarm.or_stopped(asked).await?
        }
    };
    let run = Run {
        command: "load",
        plan,
        model,
        lanes: vec![Rc::new(lane(plan, url, trust))],
        proxy: None,
        found: Found::default(),
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
    let endpoint = Endpoint::new(url, plan.work.dialect, headers, plan.work.limits)
        .stamped_by(plan.wire.stamp);
    Lane {
        row,
        index: 0,
        endpoint: match trust {
            Some(trust) if is_encrypted(plan, url) => endpoint.over_tls(plan.wire.client(trust)),
            _ => endpoint,
        },
    }
}

/// Whether the load goes over TLS; what is asked beside it does where the address says so.
fn is_encrypted(plan: &Plan, url: &BaseUrl) -> bool {
    url.is_tls() || plan.wire.dials_tls(plan.work.rows[0].transport)
}

fn trust(args: &LoadArgs, plan: &Plan) -> anyhow::Result<Option<ClientTls>> {
    match &plan.work.url {
        Some(url) if is_encrypted(plan, url) => {
            certificates::trusted(args.wire.trust.as_deref()).map(Some)
        }
        _ => Ok(None),
    }
}
