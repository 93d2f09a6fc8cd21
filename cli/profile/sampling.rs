//! Sampling both ends while a row has its turn, and only then.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::unistd::gettid;
use serde::Serialize;
use tokenlag_loadgen::BaseUrl;
use tokenlag_probes::{Clock, Exchange, MonoClock, Outcome, Row, Stamp};
use tokenlag_profiling::sampler::HERTZ;
use tokenlag_profiling::{Sampling, Stacks, difference, protobuf};

use super::perf::{self, Perf};
use crate::args::profile::Sampler;
use crate::http;

/// How long a proxy may take to begin or to hand over a profile: the first time it reads its debug information.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a profile shall be.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// How far any function's share may be off.
    pub resolution: f64,
    /// Who samples.
    pub sampler: Sampler,
}

impl Wanted {
    /// Samples in a second of CPU time.
    pub fn hertz(&self) -> f64 {
        match self.sampler {
            Sampler::Own => HERTZ.into(),
            Sampler::Perf => perf::HERTZ.into(),
        }
    }
}

/// A proxy that is sampled.
#[derive(Clone, Debug)]
pub struct Carrier {
    /// Which one.
    pub end: End,
    /// Where it hands over its own profile.
    pub admin: BaseUrl,
    /// Its process, where it was started here.
    pub pid: Option<u32>,
}

/// A process that is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The load generator's thread that measures.
    Client,
    /// The proxy of a pair that stands beside it.
    Sidecar,
    /// The proxy in front of the backend.
    Proxy,
}

impl End {
    /// The name in files and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Sidecar => "sidecar",
            Self::Proxy => "proxy",
        }
    }
}

/// What was sampled in a row's turns.
#[derive(Clone, Debug)]
pub struct RowProfile {
    /// The row.
    pub row: Row,
    /// Tokens that it carried meanwhile.
    pub tokens: u64,
    /// Its ends' stacks, as they were sampled.
    pub ends: BTreeMap<End, Stacks>,
    /// How long it was from the run's first turn to the end of this row's last one.
    pub run_ns: f64,
}

impl RowProfile {
    fn add(&mut self, end: End, stacks: Stacks) {
        self.ends.entry(end).or_default().merge(stacks);
    }
}

/// Samples, turn by turn.
pub struct Profiler {
    wanted: Wanted,
    rows: Vec<RowProfile>,
    /// The rows that there are to be.
    expected: usize,
    /// Its samples alone are of the measuring.
    thread: String,
    under_way: UnderWay,
    /// When the first row had its first turn; `None` until then.
    began: Option<Stamp>,
    /// Where perf's files may be.
    folder: PathBuf,
}

/// What samples a row's turn.
#[derive(Default)]
enum UnderWay {
    /// No row has its turn.
    #[default]
    Nothing,
    /// Each process samples itself.
    Own(Sampling),
    /// perf samples them all.
    Perf(Perf),
}

impl Profiler {
    /// A profiler of a run that has so many `rows`; perf's own files are in `folder` while it samples.
    ///
    /// # Errors
    /// This process cannot be sampled.
    pub fn new(wanted: Wanted, rows: usize, folder: PathBuf) -> anyhow::Result<Self> {
        if wanted.sampler == Sampler::Own {
            // The first time takes longer, and shows whether it is possible at all.
            Sampling::start(HERTZ)?.finish()?;
        }
        let thread = fs::read_to_string("/proc/thread-self/comm").unwrap_or_default();
        Ok(Self {
            wanted,
            rows: Vec::with_capacity(rows),
            expected: rows,
            thread: thread.trim().to_owned(),
            under_way: UnderWay::Nothing,
            began: None,
            folder,
        })
    }

    /// A row's turn begins, which these carry.
    ///
    /// # Errors
    /// An end cannot be sampled.
    pub async fn begin(&mut self, carriers: &[Carrier]) -> anyhow::Result<()> {
        self.began.get_or_insert_with(|| MonoClock.now());
        self.under_way = match self.wanted.sampler {
            Sampler::Own => {
                for Carrier { end, admin, .. } in carriers {
                    let path = "/debug/pprof/start?seconds=300&raw=1";
                    let started = http::post(admin, path, PATIENCE).await;
                    started
                        .with_context(|| format!("cannot sample the {} at {admin}", end.name()))?;
                }
                let sampling =
                    Sampling::start(HERTZ).context("cannot sample the load generator")?;
                UnderWay::Own(sampling)
            }
            Sampler::Perf => {
                let mut pids = vec![std::process::id()];
                for Carrier { end, admin, pid } in carriers {
                    match pid {
                        Some(pid) => pids.push(*pid),
                        None => bail!(
                            "perf cannot sample the {} at {admin}: it was not started here",
                            end.name()
                        ),
                    }
                }
                UnderWay::Perf(Perf::start(&pids, &self.folder).await?)
            }
        };
        Ok(())
    }

    /// The row's turn is over, in which these exchanges came to their end.
    ///
    /// # Errors
    /// An end's profile cannot be had; those of the others are kept.
    pub async fn end(
        &mut self,
        row: Row,
        exchanges: &[Exchange],
        carriers: &[Carrier],
    ) -> anyhow::Result<()> {
        let now = MonoClock.now();
        let run_ns = now.since(self.began.unwrap_or(now)) as f64;
        let under_way = std::mem::take(&mut self.under_way);
        let thread = self.thread.clone();
        let profile = self.row(row);
        profile.run_ns = run_ns;
        profile.tokens += exchanges.iter().map(tokens).sum::<u64>();
        match under_way {
            UnderWay::Nothing => Ok(()),
            UnderWay::Own(sampling) => {
                let sampled = sampling
                    .finish()
                    .context("cannot read the load generator's profile")?;
                profile.add(End::Client, sampled.of_roots(|root| root == thread));
                for Carrier { end, admin, .. } in carriers {
                    let what =
                        || format!("cannot have the profile of the {} at {admin}", end.name());
                    let packed = http::post(admin, "/debug/pprof/stop", PATIENCE)
                        .await
                        .with_context(what)?;
                    profile.add(*end, protobuf::decode(&packed).with_context(what)?);
                }
                Ok(())
            }
            UnderWay::Perf(perf) => {
                let ours = (std::process::id(), gettid().as_raw().unsigned_abs());
                profile.add(End::Client, Stacks::default());
                for carrier in carriers {
                    profile.add(carrier.end, Stacks::default());
                }
                for (thread, stacks) in perf.finish().await? {
                    let of = |it: &&Carrier| it.pid == Some(thread.0);
                    if thread == ours {
                        profile.add(End::Client, stacks);
                    } else if let Some(carrier) = carriers.iter().find(of) {
                        profile.add(carrier.end, stacks);
                    }
                }
                Ok(())
            }
        }
    }

    fn row(&mut self, row: Row) -> &mut RowProfile {
        let at = self.rows.iter().position(|profile| profile.row == row);
        let at = at.unwrap_or(self.rows.len());
        if at == self.rows.len() {
            self.rows.push(RowProfile {
                row,
                tokens: 0,
                ends: BTreeMap::new(),
                run_ns: 0.0,
            });
        }
        &mut self.rows[at]
    }

    /// Every profile is as exact as it was to become.
    pub fn is_enough(&self) -> bool {
        let enough = difference::samples_for(self.wanted.resolution);
        let is_enough = |row: &RowProfile| row.ends.values().all(|stacks| stacks.total() >= enough);
        self.rows.len() == self.expected && self.rows.iter().all(is_enough)
    }

    /// What was sampled.
    pub fn into_rows(self) -> Vec<RowProfile> {
        self.rows
    }
}

/// Output tokens as `usage` counts them; deltas where there is none. Those of complete exchanges, as in reports.
fn tokens(exchange: &Exchange) -> u64 {
    match exchange.outcome {
        Outcome::Complete => exchange
            .usage
            .map_or(exchange.tokens.len() as u64, |usage| usage.output),
        _ => 0,
    }
}
