//! Ctrl-C and its kin.

use std::time::Duration;
use std::{fs, future};

use anyhow::{Context, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal as Number;
use nix::unistd::{Pid, getppid};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that come within this time ask once: `timeout` signals the process and then its group, and a terminal that
/// is closed does the same.
const ONE_ASKING: Duration = Duration::from_millis(300);

/// The signals by which the user or the system asks this process to end.
pub struct Ends {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    /// The terminal was closed.
    hangup: Option<Signal>,
}

impl Ends {
    /// Takes them from now on. Needs a runtime.
    pub fn listen() -> Self {
        Self {
            interrupt: signal(SignalKind::interrupt()).ok(),
            terminate: signal(SignalKind::terminate()).ok(),
            hangup: taken(Number::SIGHUP),
        }
    }

    /// Returns when one came.
    pub async fn asked(&mut self) {
        tokio::select! {
            () = next(&mut self.interrupt) => {}
            () = next(&mut self.terminate) => {}
            () = next(&mut self.hangup) => {}
        }
    }

    /// Returns when one came that is no echo of the one before.
    pub async fn asked_again(&mut self) {
        tokio::time::sleep(ONE_ASKING).await;
        *self = Self::listen();
        self.asked().await;
    }
}

/// Returns when the parent asks its child to end, which nobody else is to do: Ctrl-C is taken, and nothing is done.
pub async fn asked_by_parent() {
    next(&mut Ends::listen().terminate).await;
}

/// Has the system send this process `with` when its parent is gone.
///
/// # Errors
/// The system cannot, or the parent, whose number is `parent`, is gone already.
pub fn end_with(parent: i32, with: nix::sys::signal::Signal) -> anyhow::Result<()> {
    set_pdeathsig(with).context("cannot ask the system for the parent's death")?;
    // It may have died before we asked.
    if getppid() != Pid::from_raw(parent) {
        bail!("the parent {parent} is gone");
    }
    Ok(())
}

/// Takes a signal from now on, unless this process was started to ignore it: `nohup` starts a process that is to outlive its
/// terminal so, and a handler would undo it. Needs a runtime. Without a handler a signal keeps its usual meaning.
pub fn taken(number: Number) -> Option<Signal> {
    let take = || signal(SignalKind::from_raw(number as i32)).ok();
    (!is_ignored(number)).then(take).flatten()
}

/// Whether this process ignores the signal.
pub fn is_ignored(number: Number) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignores(&status, number)
}

/// Returns when such a signal came; never where none is taken.
pub async fn next(signals: &mut Option<Signal>) {
    match signals {
        Some(signals) => {
            signals.recv().await;
        }
        None => future::pending().await,
    }
}

/// Whether `SigIgn` in this text of `/proc/<pid>/status` holds the signal; the first bit is the first signal's.
fn ignores(status: &str, number: Number) -> bool {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (number as i32 - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_was_started_to_ignore_is_told_by_the_system() {
        let by_nohup = "Name:\tx\nSigIgn:\t0000000000001001\n";
        assert!(ignores(by_nohup, Number::SIGHUP));
        assert!(!ignores(by_nohup, Number::SIGINT));
        assert!(ignores("SigIgn:\t0000000000000002\n", Number::SIGINT));
        assert!(!ignores("", Number::SIGHUP));
    }
}
