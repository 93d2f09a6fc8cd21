//! Ctrl-C and its kin.

use std::future;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals by which the user or the system asks this process to end.
pub struct Ends {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
}

impl Ends {
    /// Takes them from now on. Needs a runtime.
    pub fn listen() -> Self {
        // Without a handler a signal keeps its usual meaning, which ends the process too.
        Self {
            interrupt: signal(SignalKind::interrupt()).ok(),
            terminate: signal(SignalKind::terminate()).ok(),
        }
    }

    /// Returns when one came.
    pub async fn asked(&mut self) {
        tokio::select! {
            () = next(&mut self.interrupt) => {}
            () = next(&mut self.terminate) => {}
        }
    }
}

/// Returns when the user or the system asks this process to end.
pub async fn asked_to_end() {
    Ends::listen().asked().await;
}

/// Returns when the parent asks its child to end. Ctrl-C reaches the whole process group, and is the parent's to act
/// upon: it is taken here, and nothing is done.
pub async fn asked_by_parent() {
    next(&mut Ends::listen().terminate).await;
}

async fn next(signals: &mut Option<Signal>) {
    match signals {
        Some(signals) => {
            signals.recv().await;
        }
        None => future::pending().await,
    }
}
