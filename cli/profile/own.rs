//! Profiles that processes take of themselves: this one, and proxies at their admin endpoints.

use std::time::Duration;
use std::{mem, thread};

use anyhow::Context;
use tokenlag_loadgen::BaseUrl;
use tokenlag_profiling::sampler::{self, HERTZ};
use tokenlag_profiling::{Sampled, Sampling, SamplingError, Stacks, protobuf};
use tokio::select;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::sleep;

use super::sampling::{Carrier, End};
use crate::http;

/// How long a proxy may take to begin or to hand over a profile: the first time it reads its debug information.
const PATIENCE: Duration = Duration::from_secs(30);
/// A profile that is to go on for longer is fetched, and another begun: a proxy gives one up that nobody fetched for 300 s.
const PART: Duration = Duration::from_secs(240);

const START: &str = "/debug/pprof/start?seconds=300&raw=1";
const STOP: &str = "/debug/pprof/stop";
const UNREADABLE: &str = "cannot read the load generator's profile";

/// A turn that is sampled at all its ends. Dropped, the sampling ends.
pub struct Own {
    client: Client,
    proxies: Vec<Remote>,
}

/// This process.
enum Client {
    /// It is not sampled: the turn has not begun, or could not be sampled.
    Not,
    Sampling(Sampling),
    /// The turn is over.
    Sampled(Sampled),
}

impl Own {
    /// Begins, at the proxies.
    ///
    /// # Errors
    /// One cannot be sampled.
    pub async fn start(carriers: &[Carrier]) -> anyhow::Result<Self> {
        let mut proxies = Vec::with_capacity(carriers.len());
        for Carrier { end, admin, .. } in carriers {
            proxies.push(Remote::start(*end, admin, PART).await?);
        }
        Ok(Self {
            client: Client::Not,
            proxies,
        })
    }

    /// Begins at this process too.
    ///
    /// # Errors
    /// It cannot be sampled.
    pub async fn go(&mut self) -> anyhow::Result<()> {
        let sampling = beside(|| Sampling::start(HERTZ)).await;
        self.client = Client::Sampling(sampling.context("cannot sample the load generator")?);
        Ok(())
    }

    /// Ends it at this process.
    ///
    /// # Errors
    /// The samples cannot be read back.
    pub async fn halt(&mut self) -> anyhow::Result<()> {
        if let Client::Sampling(sampling) = mem::replace(&mut self.client, Client::Not) {
            let sampled = beside(move || sampling.stop()).await;
            self.client = Client::Sampled(sampled.context(UNREADABLE)?);
        }
        Ok(())
    }

    /// Ends it at the proxies, all at once, and has names looked up; into `sampled` go the stacks of each end, of this process those of `thread` alone.
    ///
    /// # Errors
    /// An end's profile cannot be had, or not all of it.
    pub async fn finish(
        self,
        thread: &str,
        sampled: &mut Vec<(End, Stacks)>,
    ) -> anyhow::Result<()> {
        let Self { client, proxies } = self;
        // Each that is left ends and is fetched beside the others.
        let proxies: Vec<Ending> = proxies.into_iter().map(Remote::end).collect();
        if let Client::Sampled(mut client) = client {
            let stacks = beside(move || {
                client.resolve(|| true);
                Ok(client.into_stacks())
            });
            let stacks = stacks.await.context(UNREADABLE)?;
            sampled.push((End::Client, stacks.of_roots(|root| root == thread)));
        }
        for proxy in proxies {
            proxy.finish(sampled).await?;
        }
        Ok(())
    }
}

/// Samples this process for a moment: the first time takes longer, and shows whether it is possible at all.
///
/// # Errors
/// It is not.
pub async fn try_out() -> anyhow::Result<()> {
    let tried = beside(sampler::try_out).await;
    tried.context("cannot sample the load generator; mend that, or have --sampler perf")
}

/// Does what takes time on a thread of its own, so that this one hears Ctrl-C meanwhile, and is not charged for it.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SamplingError> + Send + 'static,
) -> anyhow::Result<T> {
    let (tell, told) = oneshot::channel();
    let thread = thread::Builder::new().name("profile".to_owned());
    let started = thread.spawn(move || {
        // Where nobody waits any more the run was stopped.
        let _ = tell.send(work());
    });
    started.context("cannot start a thread")?;
    Ok(told.await.context("the sampler failed")??)
}

/// A proxy's profile of itself, in as many parts as it takes.
struct Remote {
    end: End,
    admin: BaseUrl,
    /// Sent or dropped, it ends the last part.
    over: oneshot::Sender<()>,
    parts: JoinHandle<Parts>,
}

/// The parts as they came, and why there are no more of them.
type Parts = (Vec<Vec<u8>>, anyhow::Result<()>);

impl Remote {
    /// Begins a profile, in parts so long.
    ///
    /// # Errors
    /// The proxy does not begin.
    async fn start(end: End, admin: &BaseUrl, part: Duration) -> anyhow::Result<Self> {
        let started = http::post(admin, START, PATIENCE).await;
        started.with_context(|| format!("cannot sample the {} at {admin}", end.name()))?;
        let (over, is_over) = oneshot::channel();
        let parts = spawn_local(in_parts(admin.clone(), part, is_over));
        Ok(Self {
            end,
            admin: admin.clone(),
            over,
            parts,
        })
    }

    /// Ends it.
    fn end(self) -> Ending {
        drop(self.over);
        Ending {
            end: self.end,
            admin: self.admin,
            parts: self.parts,
        }
    }
}

/// A proxy's profile that has come to its end.
struct Ending {
    end: End,
    admin: BaseUrl,
    parts: JoinHandle<Parts>,
}

impl Ending {
    /// Its stacks go into `sampled`.
    ///
    /// # Errors
    /// Not all of it can be had.
    async fn finish(self, sampled: &mut Vec<(End, Stacks)>) -> anyhow::Result<()> {
        let end = self.end;
        let what = || {
            format!(
                "cannot have the profile of the {} at {}",
                end.name(),
                self.admin
            )
        };
        let (parts, fetched) = self.parts.await.with_context(what)?;
        for part in parts {
            let stacks = protobuf::decode(&part).with_context(what)?;
            sampled.push((end, stacks));
        }
        fetched.with_context(what)
    }
}

async fn in_parts(admin: BaseUrl, part: Duration, mut is_over: oneshot::Receiver<()>) -> Parts {
    let mut parts = Vec::new();
    let mut fetch = async || -> anyhow::Result<()> {
        loop {
            let last = select! {
                _ = &mut is_over => true,
                () = sleep(part) => false,
            };
            parts.push(http::post(&admin, STOP, PATIENCE).await?);
            if last {
                return Ok(());
            }
            http::post(&admin, START, PATIENCE).await?;
        }
    };
    let fetched = fetch().await;
    (parts, fetched)
}

#[cfg(test)]
#[path = "own_tests.rs"]
mod tests;
