//! The runtime of a measuring command, and what stops it early.

use std::cell::Cell;
use std::rc::Rc;

use anyhow::Context;
use tokenlag_loadgen::stop;
use tokio::task::LocalSet;

use crate::rig::Alarm;
use crate::signals;

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
    LocalSet::new().block_on(&runtime, work)
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
    tokio::task::spawn_local(async move {
        signals::asked_to_end().await;
        noted.0.set(true);
        stopper.stop();
        signals::asked_to_end().await;
        std::process::exit(1);
    });
    (alarm, interrupted)
}
