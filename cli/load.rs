//! `tokenlag load`: one row against one address.

use std::path::Path;
use std::rc::Rc;

use anyhow::Context;
use tokenlag_channel::tls::ClientTls;
use tokenlag_loadgen::{BaseUrl, Endpoint, Lane};

use crate::args::load::LoadArgs;
use crate::conditions::Found;
use crate::exit::Exit;
use crate::link::Linked;
use crate::measure::{self, Measured, Run};
use crate::pinning::Pinning;
use crate::plan::Plan;
use crate::rig::Alarm;
use crate::{alarm, certificates, finish, host, models};

/// Runs the command.
pub fn run(args: LoadArgs) -> anyhow::Result<Exit> {
    let mut plan = Plan::of_load(&args)?;
    // Before any thread is started.
    let mut link = Linked::up(&args.linked)?;
    plan.link = link.as_ref().map(Linked::plan);
    let trust = trust(&args, &plan)?;
    let place = measure::claim(args.output.out.as_deref(), "load")?;
    let outcome = alarm::block_on(async {
        let (alarm, interrupted) = alarm::alarm();
        let measured = measured(&args, &plan, link.as_mut(), trust, &place, &alarm).await;
        finish::outcome(measured, None, &interrupted)
    });
    measure::unclaim(&place);
    finish::tell(outcome, &place, &args.output)
}

async fn measured(
    args: &LoadArgs,
    plan: &Plan,
    mut link: Option<&mut Linked>,
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
    let mut found = Found::default();
    let mut behind = None;
    if let Some(link) = &mut link {
        behind = Some(link.forward(url)?);
        found.floor = Some(link.floor());
        link.enter()?;
    }
    let run = Run {
        command: "load",
        plan,
        model,
        lanes: vec![Rc::new(lane(plan, url, behind, trust))],
        proxy: None,
        found,
        link: link.as_deref(),
        host: host::read(),
        pinning: Pinning::default(),
        cores: Vec::new(),
        warnings: Vec::new(),
        place,
        output: &args.output,
        profile: None,
    };
    run.measure(alarm).await
}

/// The one row's way to `url`, or to where that is reached over the link.
fn lane(
    plan: &Plan,
    url: &BaseUrl,
    behind: Option<(String, u16)>,
    trust: Option<ClientTls>,
) -> Lane {
    let row = plan.work.rows[0];
    let headers = plan.work.headers.clone();
    let mut endpoint = Endpoint::new(url, plan.work.dialect, headers, plan.work.limits)
        .stamped_by(plan.wire.stamp)
        .with_nagle(plan.wire.nagle);
    if let Some((host, port)) = behind {
        endpoint = endpoint.at(host, port);
    }
    // The server's certificate is for the name in its address, wherever it is dialled.
    let trust = trust.map(|trust| trust.naming(url.host()));
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
