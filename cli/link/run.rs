//! A command on the client's side of a link: started, told where the server is, passed the signals, and counted afterwards.

use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokenlag_link::{Forwarder, Link, LinkSpec, end_all_in};
use tokio::process::Command;

use super::CLOCK;
use super::linked::{Emulated, Used, emulated};
use super::passing::{self, Passing};
use crate::alarm::block_on;
use crate::args::link::LinkArgs;
use crate::exit::Exit;
use crate::{output, program, signals};

/// What shells say of a command that cannot be started.
const NOT_STARTED: u8 = 127;

/// Runs `args.command` behind a link.
pub fn command(spec: LinkSpec, args: &LinkArgs) -> anyhow::Result<Exit> {
    // Before any thread is started.
    let passing = Passing::keep()?;
    let link = Link::up(spec, CLOCK)?;
    // Its thread stays in the host's network, which this one leaves.
    let _forwarder = Forwarder::start(&link.server, &args.forward)?;
    output::note(&told(&link, args));
    let entered = link.client.namespace.enter();
    entered.context("cannot enter the client's side of the link")?;
    let before = Used::by(&link);
    let status = block_on(ended(&link, args, passing));
    // What the command left running would be in a network without a link.
    end_all_in(&link.client.namespace);
    for line in summary(&link, before) {
        output::note(&line);
    }
    let status = status?;
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        // As shells tell it.
        (None, signal) => 128 + signal.unwrap_or(0) as u8,
    };
    Ok(Exit::Command(code))
}

/// Starts the command and waits for its end, with signals passed on to it.
async fn ended(link: &Link, args: &LinkArgs, passing: Passing) -> anyhow::Result<ExitStatus> {
    let mut child = start(link, &args.command)?;
    let pid = child.id().context("the command has ended unseen")?;
    let passing = passing.pass_on(Pid::from_raw(pid as i32));
    tokio::select! {
        status = child.wait() => status.context("cannot wait for the command"),
        never = passing => match never? {},
    }
}

/// This program once more: it becomes the command when it has seen to it that the command does not outlive this process.
fn start(link: &Link, command: &[OsString]) -> anyhow::Result<tokio::process::Child> {
    let behind = |program: &Path| behind(link, program, command).spawn();
    program::again(behind).context("cannot start the command")
}

/// What starts `program` to become the command.
fn behind(link: &Link, program: &Path, command: &[OsString]) -> Command {
    let mut start = Command::new(program);
    start
        .arg("link")
        .arg(format!("--die-with-parent={}", std::process::id()))
        .arg("--")
        .args(command)
        .stdin(Stdio::inherit());
    // A link within the link is not what was meant.
    for variable in ["TOKENLAG_LINK", "TOKENLAG_LINK_VIA"] {
        start.env_remove(variable);
    }
    for (name, value) in environment(link) {
        start.env(name, value);
    }
    start
}

/// What the command is told of the link.
fn environment(link: &Link) -> Vec<(&'static str, String)> {
    let mut variables = vec![
        ("TOKENLAG_LINK_SERVER", link.server.addresses.v4.to_string()),
        ("TOKENLAG_LINK_CLIENT", link.client.addresses.v4.to_string()),
        ("TOKENLAG_LINK_SPEC", link.spec().to_string()),
    ];
    if link.server.has_v6 {
        let v6 = [
            (
                "TOKENLAG_LINK_SERVER6",
                link.server.addresses.v6.to_string(),
            ),
            (
                "TOKENLAG_LINK_CLIENT6",
                link.client.addresses.v6.to_string(),
            ),
        ];
        variables.extend(v6);
    }
    variables
}

/// Becomes the command, as the child of `parent` and not beyond its end.
pub fn become_command(parent: i32, command: &[OsString]) -> anyhow::Result<Exit> {
    signals::end_with(parent, Signal::SIGKILL)?;
    let Some((program, args)) = command.split_first() else {
        bail!("there is no command");
    };
    passing::release().context("cannot have the command get signals")?;
    let error = std::process::Command::new(program).args(args).exec();
    let name = program.to_string_lossy();
    output::error(&format!("cannot run '{name}': {error}"));
    Ok(Exit::Command(NOT_STARTED))
}

fn told(link: &Link, args: &LinkArgs) -> String {
    let mut told = format!(
        "link {}; TCP {} on the client's side, {} on the server's; the server is {}",
        link.spec(),
        link.client.congestion_control,
        link.server.congestion_control,
        link.server.addresses.v4
    );
    if link.server.has_v6 {
        told.push_str(&format!(" and {}", link.server.addresses.v6));
    }
    for forward in &args.forward {
        told.push_str(&format!("; forwarding {forward}"));
    }
    told
}

fn summary(link: &Link, before: Used) -> Vec<String> {
    let stats = link.stats();
    let Emulated { did, doubts } = emulated(link, before);
    let cores: Vec<String> = stats.cores.iter().map(usize::to_string).collect();
    let on = match cores.is_empty() {
        true => String::new(),
        false => format!(", on core {},", cores.join(", ")),
    };
    let share = |nanos: u64| nanos as f64 * 100.0 / did.span_ns.max(1) as f64;
    let span = |nanos: u64| format!("{:.3} ms", nanos as f64 / 1e6);
    let mut told = format!(
        "link: {} packets up, {} down; {} lost, {} dropped by the queue, {} reordered",
        did.up.packets,
        did.down.packets,
        did.up.lost + did.down.lost,
        did.up.dropped + did.down.dropped,
        did.up.reordered + did.down.reordered,
    );
    if let (Some(p50), Some(p99)) = (did.release_error_p50_ns, did.release_error_p99_ns) {
        told.push_str(&format!(
            "; released {} late (p50), {} (p99)",
            span(p50),
            span(p99)
        ));
    }
    if let (Some(cpu), Some(work)) = (did.relay_cpu_ns, did.relay_work_ns) {
        told.push_str(&format!(
            "; the relay{on} took {} of CPU, {:.0} % of a core, {:.0} % without its waits for the moment, {:.0} % in its busiest \
             100 ms",
            humantime::format_duration(Duration::from_millis(cpu / 1_000_000)),
            share(cpu),
            share(work),
            did.relay_busiest_share * 100.0
        ));
    }
    let warnings = doubts
        .iter()
        .map(|doubt| format!("warning: {}", doubt.message));
    [told].into_iter().chain(warnings).collect()
}
