//! Profiles that processes take of themselves: this one, and proxies at their admin endpoints.

use std::thread;
use std::time::Duration;

use anyhow::Context;
use tokenlag_loadgen::BaseUrl;
use tokenlag_profiling::sampler::HERTZ;
use tokenlag_profiling::{Sampling, SamplingError, Stacks, protobuf};
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

/// A turn that is sampled at all its ends. Dropped, the sampling ends.
pub struct Own {
    client: Sampling,
    proxies: Vec<Remote>,
}

impl Own {
    /// Begins, with this process last.
    ///
    /// # Errors
    /// An end cannot be sampled.
    pub async fn start(carriers: &[Carrier]) -> anyhow::Result<Self> {
        let mut proxies = Vec::with_capacity(carriers.len());
        for Carrier { end, admin, .. } in carriers {
            proxies.push(Remote::start(*end, admin, PART).await?);
        }
        let client = Sampling::start(HERTZ).context("cannot sample the load generator")?;
        Ok(Self { client, proxies })
    }

    /// Ends it; into `sampled` go the stacks of each end, of this process those of `thread` alone.
    ///
    /// # Errors
    /// An end's profile cannot be had, or not all of it.
    pub async fn finish(
        self,
        thread: &str,
        sampled: &mut Vec<(End, Stacks)>,
    ) -> anyhow::Result<()> {
        let Self { client, proxies } = self;
        let stacks = beside(move || client.finish()).await;
        let stacks = stacks.context("cannot read the load generator's profile")?;
        sampled.push((End::Client, stacks.of_roots(|root| root == thread)));
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
    beside(|| Sampling::start(HERTZ)?.finish()).await.map(drop)
}

/// Looks names up on a thread of its own, so that this one hears Ctrl-C meanwhile.
async fn beside(
    work: impl FnOnce() -> Result<Stacks, SamplingError> + Send + 'static,
) -> anyhow::Result<Stacks> {
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

    /// Ends it; its stacks go into `sampled`.
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
        drop(self.over);
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
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use tokenlag_profiling::folded;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::watch;
    use tokio::task::LocalSet;

    use super::*;

    /// An admin endpoint that begins profiles and hands them over, of one sample each; from its `fails`th request on it does not.
    async fn endpoint(fails: usize) -> (BaseUrl, Rc<RefCell<Vec<String>>>, watch::Receiver<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = format!("http://{}", listener.local_addr().unwrap());
        let asked = Rc::new(RefCell::new(Vec::new()));
        let (count, counted) = watch::channel(0);
        let noted = Rc::clone(&asked);
        spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                let line = String::from_utf8(request).unwrap();
                let line = line.lines().next().unwrap().to_owned();
                let body = match line.contains(STOP) {
                    true => protobuf::encode(&folded::parse("proxy-0;f 1\n").unwrap(), 199.0),
                    false => b"sampling\n".to_vec(),
                };
                noted.borrow_mut().push(line);
                let number = noted.borrow().len();
                let status = if number >= fails { "500 No" } else { "200 OK" };
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                stream.write_all(&body).await.unwrap();
                count.send_replace(number);
            }
        });
        (admin.parse().unwrap(), asked, counted)
    }

    fn run(work: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        LocalSet::new().block_on(&runtime, work);
    }

    #[test]
    fn a_long_turn_is_fetched_in_parts() {
        run(async {
            let (admin, asked, mut counted) = endpoint(usize::MAX).await;
            let part = Duration::from_millis(1);
            let remote = Remote::start(End::Proxy, &admin, part).await.unwrap();
            counted.wait_for(|count| *count >= 7).await.unwrap();
            let mut sampled = Vec::new();
            remote.finish(&mut sampled).await.unwrap();
            let asked = asked.borrow();
            // Each that was begun was fetched.
            for pair in asked.chunks(2) {
                assert!(
                    pair[0].contains(START) && pair[1].contains(STOP),
                    "{asked:?}"
                );
            }
            let samples: u64 = sampled.iter().map(|(_, stacks)| stacks.total()).sum();
            assert_eq!(
                (samples, sampled.len()),
                (asked.len() as u64 / 2, asked.len() / 2)
            );
            assert!(samples >= 4);
        });
    }

    #[test]
    fn what_was_fetched_before_a_proxy_failed_is_kept() {
        run(async {
            let (admin, _, mut counted) = endpoint(6).await;
            let part = Duration::from_millis(1);
            let remote = Remote::start(End::Proxy, &admin, part).await.unwrap();
            counted.wait_for(|count| *count >= 6).await.unwrap();
            let mut sampled = Vec::new();
            let error = remote.finish(&mut sampled).await.unwrap_err();
            let told = format!("{error:#}");
            assert!(
                told.contains("the profile of the proxy") && told.contains("500"),
                "{told}"
            );
            assert_eq!(sampled.len(), 2);
        });
    }

    #[test]
    fn a_short_turn_is_one_part() {
        run(async {
            let (admin, asked, _) = endpoint(usize::MAX).await;
            let remote = Remote::start(End::Sidecar, &admin, PART).await.unwrap();
            let mut sampled = Vec::new();
            remote.finish(&mut sampled).await.unwrap();
            assert_eq!(asked.borrow().len(), 2);
            assert_eq!(sampled.len(), 1);
        });
    }
}
