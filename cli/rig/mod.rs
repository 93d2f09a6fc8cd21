//! Starting what is missing: the backend and the proxy as children of this process, on ports that the system chooses.

mod child;
mod identity;
mod proxies;

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use tokenlag_loadgen::{BaseUrl, Stop, Stopper};
use tokenlag_probes::{Clock, MonoClock};

use crate::pinning::Pinning;
pub use child::{Child, Ready};
pub use identity::Identity;
pub use proxies::{Leg, ProxyAddresses, Setup, Sidecar};

/// Sequences that the embedded model decodes at once: each has a cache in memory.
const SLOTS: std::ops::RangeInclusive<usize> = 8..=64;

/// How long after trouble the end of a child that caused it may be seen.
const PATIENCE: Duration = Duration::from_millis(200);

/// What is said of a run that was stopped early on.
pub const NOTHING_MEASURED: &str = "stopped before anything was measured";

/// The processes of a run that were started here. Dropped, they are killed.
#[derive(Default)]
pub struct Rig {
    children: Vec<Child>,
}

/// What is asked of the embedded model.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// Sessions side by side, for which it has room.
    pub sessions: usize,
    /// Most tokens a second of each answer.
    pub tokens_per_second: Option<NonZeroU32>,
}

/// What ends a run early: raised by a child's death too.
#[derive(Clone)]
pub struct Alarm {
    /// Raises the flag.
    pub stopper: Rc<Stopper>,
    /// Heeds it.
    pub stop: Stop,
}

impl Alarm {
    /// Does what comes before the measurement.
    ///
    /// # Errors
    /// Those of `work`, or the run was stopped meanwhile.
    pub async fn or_stopped<T>(
        &self,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let done = self.stop.or(work).await;
        done.unwrap_or_else(|| Err(anyhow::anyhow!(NOTHING_MEASURED)))
    }
}

impl Rig {
    /// Starts the embedded model's server.
    pub async fn start_backend(
        &mut self,
        model: Model,
        pinning: Pinning,
        alarm: &Alarm,
    ) -> anyhow::Result<BaseUrl> {
        let slots = model.sessions.clamp(*SLOTS.start(), *SLOTS.end());
        let slots = slots.to_string();
        let mut args = words(["backend", "--listen", "127.0.0.1:0", "--slots", &slots]);
        if let Some(tokens) = model.tokens_per_second {
            args.extend(words(["--tokens-per-second", &tokens.to_string()]));
        }
        let child = Child::start("backend", args, pinning.backend, alarm)?;
        let (child, ready) = child.ready("/health", |ready| ready.listen, alarm).await?;
        self.children.push(child);
        ready
            .listen
            .as_deref()
            .context("the backend did not say where it listens")
            .and_then(address)
    }

    /// Why the run cannot go on: the first child that ended before it was asked to.
    pub fn casualty(&self) -> Option<String> {
        self.children.iter().find_map(Child::casualty)
    }

    /// The same where something went wrong just now: a connection that a dead child leaves behind is seen before its end is.
    pub async fn casualty_behind_trouble(&self) -> Option<String> {
        let patience = MonoClock.now() + PATIENCE;
        while self.casualty().is_none() && MonoClock.now() < patience {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.casualty()
    }

    /// Ends all children: asks first, insists after a second.
    pub async fn shut_down(mut self) {
        for child in &mut self.children {
            child.ask_to_end();
        }
        for child in self.children {
            child.ended().await;
        }
    }
}

fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.into_iter().map(OsString::from).collect()
}

fn address(text: &str) -> anyhow::Result<BaseUrl> {
    text.parse()
        .with_context(|| format!("a child listens at '{text}', which is no address"))
}
