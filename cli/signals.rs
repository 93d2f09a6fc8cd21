//! Ctrl-C and its kin.

use std::future;

use tokio::signal::unix::{SignalKind, signal};

/// Returns when the user or the system asks this process to end.
pub async fn asked_to_end() {
    tokio::select! {
        () = next(SignalKind::interrupt()) => {}
        () = next(SignalKind::terminate()) => {}
    }
}

/// Returns when the parent asks its child to end. Ctrl-C reaches the whole process group, and is the parent's to act
/// upon: it is taken here, and nothing is done.
pub async fn asked_by_parent() {
    let _interrupt = signal(SignalKind::interrupt());
    next(SignalKind::terminate()).await;
}

async fn next(kind: SignalKind) {
    match signal(kind) {
        Ok(mut signals) => {
            signals.recv().await;
        }
        // Without a handler the signal keeps its usual meaning, which ends the process too.
        Err(_) => future::pending().await,
    }
}
