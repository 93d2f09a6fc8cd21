//! `tokenlag compare`: every row in turn, on what is given or on what is started for the run.

use std::path::Path;
use std::rc::Rc;

use tokenlag_dialect::Dialect;
use tokenlag_loadgen::{BaseUrl, Endpoint, Lane};
use tokenlag_probes::{Row, Transport};

use crate::args::compare::CompareArgs;
use crate::book::Proxy;
use crate::exit::{Exit, Usage};
use crate::measure::{self, Measured, Run};
use crate::pinning::{self, Pinning};
use crate::plan::Plan;
use crate::rig::{Alarm, ProxyAddresses, Rig};
use crate::{admin, alarm, certificates, finish, host, models, topology};

/// Runs the command.
pub fn run(args: CompareArgs) -> anyhow::Result<Exit> {
    let mut plan = Plan::of_compare(&args)?;
    check_quic(&args, &plan)?;
    let place = measure::claim(args.output.out.as_deref(), "compare")?;
    let outcome = alarm::block_on(async {
        let (alarm, interrupted) = alarm::alarm();
        let mut rig = Rig::default();
        let measured = measured(&args, &mut plan, &place, &mut rig, &alarm).await;
        let casualty = rig.casualty();
        rig.shut_down().await;
        finish::outcome(measured, casualty, &interrupted)
    });
    measure::unclaim(&place);
    finish::tell(outcome, &place, &args.output)
}

async fn measured(
    args: &CompareArgs,
    plan: &mut Plan,
    place: &Path,
    rig: &mut Rig,
    alarm: &Alarm,
) -> anyhow::Result<Measured> {
    let pinning = Pinning::choose(plan.pin);
    let backend = backend(args, plan, rig, pinning, alarm).await?;
    let proxy = proxy(args, plan, &backend, rig, pinning, alarm).await?;
    let host = host::read();
    if let Some(core) = pinning.generator {
        // Where the system does not allow it the run is none the worse known: the record says what was asked.
        let _ = pinning::bind(core);
    }
    let headers = &plan.work.headers;
    let model = match &plan.model {
        Some(model) => model.clone(),
        None => {
            alarm
                .or_stopped(models::only_one(&backend, headers))
                .await?
        }
    };
    let direct = plan.work.rows.iter().any(is_direct);
    let run = Run {
        command: "compare",
        plan,
        model,
        lanes: lanes(plan, &backend, proxy.as_ref()),
        warnings: topology::warnings(&backend, proxy.as_ref(), direct, alarm).await?,
        proxy: proxy.map(|proxy| Proxy {
            admin: admin::Admin::new(proxy.admin),
            pid: proxy.pid,
        }),
        host,
        pinning,
        place,
        output: &args.output,
    };
    run.measure(alarm).await
}

async fn backend(
    args: &CompareArgs,
    plan: &mut Plan,
    rig: &mut Rig,
    pinning: Pinning,
    alarm: &Alarm,
) -> anyhow::Result<BaseUrl> {
    let given = (&plan.work.url, &args.proxy, &args.proxy_admin);
    match given {
        (Some(url), ..) => Ok(url.clone()),
        (None, Some(listen), Some(admin)) => {
            let behind = topology::backend_behind(listen, admin);
            let url = alarm.or_stopped(behind).await?;
            plan.url = Some(url.to_string());
            Ok(url)
        }
        _ if cfg!(feature = "backend") => rig.start_backend(plan.concurrency, pinning, alarm).await,
        _ => {
            let what = "this build has no embedded model; give a backend's address with --url";
            Err(Usage(what.to_owned()).into())
        }
    }
}

/// The proxy that rows go through; `None` where none does.
async fn proxy(
    args: &CompareArgs,
    plan: &Plan,
    backend: &BaseUrl,
    rig: &mut Rig,
    pinning: Pinning,
    alarm: &Alarm,
) -> anyhow::Result<Option<ProxyAddresses>> {
    if plan.work.rows.iter().all(is_direct) {
        return Ok(None);
    }
    let (Some(listen), Some(admin)) = (&args.proxy, &args.proxy_admin) else {
        return rig.start_proxy(backend, pinning, alarm).await.map(Some);
    };
    Ok(Some(ProxyAddresses {
        listen: listen.clone(),
        quic: args.proxy_quic.clone(),
        admin: admin.clone(),
        trust: args
            .trust
            .as_deref()
            .map(certificates::trusted)
            .transpose()?,
        pid: None,
    }))
}

fn is_direct(row: &Row) -> bool {
    row.transport == Transport::Direct
}

fn check_quic(args: &CompareArgs, plan: &Plan) -> Result<(), Usage> {
    let quic = plan
        .work
        .rows
        .iter()
        .any(|row| row.transport == Transport::Quic);
    let unknown = args.proxy.is_some() && (args.proxy_quic.is_none() || args.trust.is_none());
    if quic && unknown {
        let what = "quic needs --proxy-quic HOST:PORT and --trust FILE.pem of the proxy that is running; \
                    or leave it out with --channels http-cold,http,ws";
        return Err(Usage(what.to_owned()));
    }
    Ok(())
}

fn lanes(plan: &Plan, backend: &BaseUrl, proxy: Option<&ProxyAddresses>) -> Vec<Rc<Lane>> {
    let rows = plan.work.rows.iter().enumerate();
    let lane = |(index, &row): (usize, &Row)| {
        Rc::new(Lane {
            row,
            index: index as u32,
            endpoint: endpoint(plan, row, backend, proxy),
        })
    };
    rows.map(lane).collect()
}

fn endpoint(plan: &Plan, row: Row, backend: &BaseUrl, proxy: Option<&ProxyAddresses>) -> Endpoint {
    let to = |base: &BaseUrl| {
        let headers = plan.work.headers.clone();
        Endpoint::new(base, Dialect::Responses, headers, plan.work.limits)
    };
    match (row.transport, proxy) {
        (Transport::Direct, _) | (_, None) => to(backend),
        (Transport::Quic, Some(proxy)) => {
            let at = proxy.quic.as_ref().unwrap_or(&proxy.listen);
            let endpoint = to(&proxy.listen).at(at.host().to_owned(), at.port());
            match &proxy.trust {
                Some(tls) => endpoint.over_tls(tls.forgetful()),
                None => endpoint,
            }
        }
        (_, Some(proxy)) => to(&proxy.listen),
    }
}
