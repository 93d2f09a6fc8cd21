//! Signals that are the command's to act upon, with who sent them: a terminal tells its whole foreground, the command too;
//! everybody else tells this process alone.

use std::convert::Infallible;

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getpid, getsid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::signals;

/// Those that users send, and that would end this process.
const PASSED: [Signal; 6] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Signals that wait until they are passed on.
#[derive(Debug)]
pub struct Passing(SignalFd);

impl Passing {
    /// Keeps them from now on, also from the threads that the calling one will start; it must be the only one yet. What this
    /// process was started to ignore stays ignored, by the command as well.
    ///
    /// # Errors
    /// The system's own.
    pub fn keep() -> anyhow::Result<Self> {
        let set: SigSet = PASSED
            .into_iter()
            .filter(|signal| !signals::is_ignored(*signal))
            .collect();
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let kept = set
            .thread_block()
            .and_then(|()| SignalFd::with_flags(&set, flags));
        Ok(Self(kept.context(
            "cannot keep signals for the command behind the link",
        )?))
    }

    /// Passes them on to `command`, a child of this process that has its terminal and its process group, for as long as it is
    /// polled. Needs a runtime.
    ///
    /// # Errors
    /// The system's own.
    pub async fn pass_on(self, command: Pid) -> anyhow::Result<Infallible> {
        let is_leader = getsid(None) == Ok(getpid());
        #[expect(
            deprecated,
            reason = "the newer way is unsafe; the descriptor is this one's own for as long as it is waited for"
        )]
        let kept = AsyncFd::with_interest(self.0, Interest::READABLE);
        let kept = kept.context("cannot wait for signals")?;
        loop {
            let mut ready = kept.readable().await?;
            while let Some(sent) = kept.get_ref().read_signal()? {
                let by = Sender::of(sent.ssi_code, sent.ssi_pid);
                if let Ok(signal) = Signal::try_from(sent.ssi_signo as i32)
                    && lacks(command, signal, by, is_leader)
                {
                    // One that has ended since needs no signal.
                    let _ = kill(command, signal);
                }
            }
            ready.clear_ready();
        }
    }
}

/// Who sent a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    /// The system, for a terminal.
    System,
    /// The process of this number; 0 where it is of another namespace.
    Process(u32),
}

impl Sender {
    /// Codes above 0 are the system's (sigaction(2)).
    fn of(code: i32, process: u32) -> Self {
        match code > 0 {
            true => Self::System,
            false => Self::Process(process),
        }
    }
}

/// Whether `command` has not got the signal by itself.
fn lacks(command: Pid, signal: Signal, by: Sender, is_leader: bool) -> bool {
    match by {
        // A terminal that is closed tells the leader of its session alone; all else it tells its foreground.
        Sender::System => signal == Signal::SIGHUP && is_leader,
        // What the command sends to its process group it has got itself.
        Sender::Process(number) => i64::from(number) != i64::from(command.as_raw()),
    }
}

/// Undoes [`Passing::keep`] in a child that was started meanwhile: what came for it since it gets now.
///
/// # Errors
/// The system's own.
pub fn release() -> nix::Result<()> {
    SigSet::from_iter(PASSED).thread_unblock()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_command_has_got_by_itself_is_not_passed_on() {
        let command = Pid::from_raw(77);
        let check = |signal, code, process, is_leader, expected| {
            let by = Sender::of(code, process);
            assert_eq!(
                lacks(command, signal, by, is_leader),
                expected,
                "{signal} by {by:?}"
            );
        };
        // By kill(1), from a process or from outside the namespace.
        for signal in PASSED {
            check(signal, 0, 12, false, true);
            check(signal, 0, 0, false, true);
            check(signal, 0, 77, false, false);
        }
        // Ctrl-C, Ctrl-\, and a terminal that is closed.
        check(Signal::SIGINT, 0x80, 0, true, false);
        check(Signal::SIGQUIT, 0x80, 0, false, false);
        check(Signal::SIGHUP, 0x80, 0, false, false);
        check(Signal::SIGHUP, 0x80, 0, true, true);
    }
}
