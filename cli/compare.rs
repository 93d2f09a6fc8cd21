//! `tokenlag compare`: every row in turn, on what is given or on what is started for the run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokenlag_probes::{Row, Transport};

use crate::args::compare::CompareArgs;
use crate::book::Proxy;
use crate::ends::{Ends, Starter};
use crate::exit::Exit;
use crate::finish::Outcome;
use crate::link::{Linked, check_proxy};
use crate::measure::{self, Measured, Run};
use crate::pinning::{self, Pinning};
use crate::plan::Plan;
use crate::profile::Wanted;
use crate::rig::{Alarm, Rig};
use crate::{admin, alarm, finish, floor, host, lanes, models, signals, topology};

/// Runs the command.
pub fn run(args: CompareArgs) -> anyhow::Result<Exit> {
    if let Some(parent) = args.die_with_parent {
        // In an orderly way: what was measured is kept.
        signals::end_with(parent, Signal::SIGTERM)?;
    }
    let plan = Plan::of_compare(&args)?;
    let Done { place, outcome } = measure_all(&args, plan, "compare", None)?;
    finish::tell(outcome, &place, &args.output)
}

/// A comparison that was run.
pub struct Done {
    /// Its folder.
    pub place: PathBuf,
    /// How it ended.
    pub outcome: anyhow::Result<Outcome>,
}

/// Runs what `plan` says for `command`, with a profile where one is wanted.
///
/// # Errors
/// It cannot begin.
pub fn measure_all(
    args: &CompareArgs,
    mut plan: Plan,
    command: &'static str,
    profile: Option<Wanted>,
) -> anyhow::Result<Done> {
    check_proxy(&args.linked, args.proxy.as_ref())?;
    // Before any thread is started, and while this one may still run on any core: so may the link's.
    let mut link = Linked::up(&args.linked)?;
    plan.link = link.as_ref().map(Linked::plan);
    let place = measure::claim(args.output.out.as_deref(), command)?;
    let outcome = alarm::block_on(async {
        let (alarm, interrupted) = alarm::alarm();
        let mut rig = Rig::default();
        let asked = Asked {
            args,
            command,
            profile,
        };
        let measured = measured(asked, &mut plan, link.as_mut(), &place, &mut rig, &alarm).await;
        let casualty = match &measured {
            Ok(measured) if measured.broken.is_none() => rig.casualty(),
            _ => rig.casualty_behind_trouble().await,
        };
        rig.shut_down().await;
        finish::outcome(measured, casualty, &interrupted)
    });
    measure::unclaim(&place);
    Ok(Done { place, outcome })
}

/// What was asked for on the command line.
struct Asked<'a> {
    args: &'a CompareArgs,
    command: &'static str,
    profile: Option<Wanted>,
}

async fn measured(
    asked: Asked<'_>,
    plan: &mut Plan,
    mut link: Option<&mut Linked>,
    place: &Path,
    rig: &mut Rig,
    alarm: &Alarm,
) -> anyhow::Result<Measured> {
    let args = asked.args;
    let pinning = Pinning::choose(plan.pin);
    if let Some(link) = &link {
        link.keep_off(pinning);
    }
    let starter = Starter {
        args,
        rig,
        pinning,
        link: link.as_deref_mut(),
        alarm,
    };
    let mut ends = Ends::gather(plan, starter).await?;
    let host = host::read();
    let cores = pinning::cores();
    if let Some(core) = pinning.generator {
        // Where the system does not allow it the run is none the worse known: the record says what was asked.
        let _ = pinning::bind(core);
    }
    let model = match &plan.model {
        Some(model) => model.clone(),
        None => {
            let trust = ends.backend_trust.as_ref();
            let asked = models::only_one(&ends.backend, trust, &plan.work.headers);
            alarm.or_stopped(asked).await?
        }
    };
    let direct = |row: &Row| row.transport == Transport::Direct;
    let direct = plan.work.rows.iter().any(direct);
    let proxy = ends.proxy.as_ref();
    if let Some(link) = &link {
        ends.found.floor = Some(link.floor());
    } else if let Some(proxy) = proxy {
        let measured = async { Ok(floor::measured(&proxy.listen).await) };
        ends.found.floor = alarm.or_stopped(measured).await?;
    }
    let over = link.as_deref().map(Linked::floor);
    let over = over.map(|floor| Duration::from_nanos(floor.round_trip_ns));
    let warnings = topology::warnings(&ends.backend, proxy, direct, over, alarm).await?;
    if let Some(link) = &mut link {
        link.enter()?;
    }
    let run = Run {
        command: asked.command,
        plan,
        model,
        lanes: lanes::lanes(plan, &ends),
        warnings,
        link: link.as_deref(),
        found: ends.found,
        proxy: ends.proxy.map(|proxy| Proxy {
            admin: admin::Admin::new(proxy.admin),
            clocks: None,
            pid: proxy.pid,
            sidecars: ends.sidecars,
        }),
        host,
        pinning,
        cores,
        place,
        output: &args.output,
        profile: asked.profile,
    };
    run.measure(alarm).await
}
