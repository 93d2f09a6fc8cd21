//! Waiting for a moment on a runtime's thread: one timer of the kernel for each reply.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokenlag_probes::{Clock, MonoClock, Stamp};
use tokio::net::unix::pipe;

use crate::pace::Pace;

/// A timer. To the runtime it is the reading end of a pipe: it waits until there is something to read.
pub(crate) struct Alarm {
    timer: TimerFd,
    ticks: pipe::Receiver,
    pace: Pace,
}

impl Alarm {
    pub(crate) fn new(pace: Pace) -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let handle = timer.as_fd().try_clone_to_owned()?;
        Ok(Self {
            ticks: pipe::Receiver::from_owned_fd_unchecked(handle)?,
            timer,
            pace,
        })
    }

    /// Returns at `moment` or a little later; at once where it has passed.
    pub(crate) async fn until(&self, moment: Stamp) -> io::Result<()> {
        let sleep = self.pace.sleep(moment.since(MonoClock.now()));
        if sleep > Duration::ZERO {
            self.sleep(sleep).await?;
        }
        while MonoClock.now() < moment {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn sleep(&self, span: Duration) -> io::Result<()> {
        let expiration = Expiration::OneShot(TimeSpec::from_duration(span));
        self.timer.set(expiration, TimerSetTimeFlags::empty())?;
        loop {
            self.ticks.readable().await?;
            match self.ticks.try_read(&mut [0; 8]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
                Ok(_) => return Ok(()),
            }
        }
    }
}
