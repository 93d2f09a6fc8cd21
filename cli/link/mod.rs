//! `tokenlag link`: any command behind an emulated link; and the link that `compare` and `load` put their traffic behind.

mod check;
mod home;
mod linked;
mod passing;
mod run;

use std::path::Path;

use tokenlag_link::{Clock, LinkError, LinkSpec, Rights, end_left, named};
use tokenlag_probes::{Clock as _, MonoClock};

use crate::args::link::{LinkArgs, Via};
use crate::exit::{Exit, Usage};
use crate::output;

pub use home::from_home;
pub use linked::{Emulated, LinkPlan, Linked, Place, check_proxy};

/// The clock that links go by: the one that everything is stamped with.
const CLOCK: Clock = || MonoClock.now().as_nanos();

/// Runs the command.
pub fn run(args: LinkArgs) -> anyhow::Result<Exit> {
    if let Some(parent) = args.die_with_parent {
        return run::become_command(parent, &args.command);
    }
    if let Some(name) = &args.show {
        return show(name);
    }
    check_via(args.link_via)?;
    let given = spec(&args)?;
    if args.check && !args.command.is_empty() {
        return Err(usage("--check measures the link itself: leave the command out").into());
    }
    if !args.check && args.command.is_empty() {
        let what = "name what to run behind the link, as in: tokenlag link --rtt 40ms -- curl http://...; or give --check";
        return Err(usage(what).into());
    }
    clear_left();
    Rights::acquire()?;
    match args.check {
        true => check::run(given, args.output),
        false => run::command(given.unwrap_or_default(), &args),
    }
}

/// Ends what is still behind links that were killed. Must be called before this process has a user namespace: from within one
/// it would not see them.
fn clear_left() {
    match end_left() {
        0 => {}
        1 => output::note("ended a process that was left behind a link that is gone"),
        count => output::note(&format!(
            "ended {count} processes that were left behind links that are gone"
        )),
    }
}

/// The link that the flags describe; `None`: they say nothing of one.
fn spec(args: &LinkArgs) -> anyhow::Result<Option<LinkSpec>> {
    let settings = args.ways.settings();
    if args.link.is_none() && settings.is_empty() {
        return Ok(None);
    }
    let mut spec = args
        .link
        .as_deref()
        .map_or_else(|| Ok(LinkSpec::default()), parse)?;
    let changed = spec.change(&settings);
    changed.map_err(|reason| Usage(format!("--{reason}")))?;
    Ok(Some(spec))
}

/// Reads a link. What makes no sense is wrong usage.
fn parse(text: &str) -> Result<LinkSpec, Usage> {
    LinkSpec::parse(text).map_err(|error| Usage(error.to_string()))
}

/// Refuses ways to emulate that are not there.
fn check_via(via: Via) -> Result<(), LinkError> {
    if via != Via::Netem {
        return Ok(());
    }
    let found = match Path::new("/sys/module/sch_netem").exists() {
        true => "the kernel has netem, but this program does not drive it",
        false => "the kernel has not loaded netem (sch_netem), and this program does not drive it",
    };
    Err(LinkError::Via {
        via: "netem",
        reason: format!(
            "{found}; --link-via tun needs no module but tun, and tells how exact it is"
        ),
    })
}

fn show(name: &str) -> anyhow::Result<Exit> {
    let Some((_, text)) = named::all().find(|(known, _)| *known == name) else {
        let names: Vec<&str> = named::all().map(|(name, _)| name).collect();
        return Err(usage(&format!(
            "no link is named '{name}'; known: {}",
            names.join(", ")
        ))
        .into());
    };
    output::result(text)?;
    Ok(Exit::Good)
}

fn usage(what: &str) -> Usage {
    Usage(what.to_owned())
}
