//! The runtime of a measuring command, and what stops it early.

use std::cell::Cell;
use std::rc::Rc;

use anyhow::Context;
use tokenlag_loadgen::stop;
use tokio::task::LocalSet;

use crate::rig::Alarm;
use crate::signals::Ends;

/// Whether the user asked for the end.
#[derive(Clone, Debug, Default)]
pub struct Interrupted(Rc<Cell<bool>>);

impl Interrupted {
    /// The user did.
    pub fn is_set(&self) -> bool {
        self.0.get()
    }
}

/// Does `work` on this thread alone.
pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let done = LocalSet::new().block_on(&runtime, work);
    // A name that is being looked up is not waited for.
    runtime.shutdown_background();
    done
}

/// A flag that Ctrl-C raises. A second Ctrl-C ends the process on the spot; its children go with it.
pub fn alarm() -> (Alarm, Interrupted) {
    let (stopper, stop) = stop();
    let stopper = Rc::new(stopper);
    let interrupted = Interrupted::default();
    let alarm = Alarm {
        stopper: stopper.clone(),
        stop,
    };
    let noted = interrupted.clone();
    // Taken from here on, and not only once the task runs.
    let mut ends = Ends::listen();
    tokio::task::spawn_local(async move {
        ends.asked().await;
        noted.0.set(true);
        stopper.stop();
        ends.asked_again().await;
        std::process::exit(1);
    });
    (alarm, interrupted)
}
