//! Sampling both ends while a row has its turn, and only then.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::bail;
use nix::unistd::gettid;
use serde::Serialize;
use tokenlag_loadgen::BaseUrl;
use tokenlag_probes::{Clock, Exchange, MonoClock, Row, Stamp};
use tokenlag_profiling::perf::Thread;
use tokenlag_profiling::sampler::HERTZ;
use tokenlag_profiling::{Stacks, difference};

use super::own::{self, Own};
use super::perf::{self, Cut, Perf};
use super::row::{RowProfile, Spent};
use crate::args::profile::Sampler;

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

/// Where what samples may be, of folders and cores.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where perf's files are while it samples.
    pub folder: PathBuf,
    /// The cores on which it disturbs least; `None`: wherever the system puts it.
    pub beside: Option<Vec<usize>>,
    /// Those that it may have between turns.
    pub all: Vec<usize>,
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
    place: Place,
    /// How many turns were cut short, and why.
    cut: BTreeMap<Cut, u32>,
}

/// What samples a row's turn.
#[derive(Default)]
enum UnderWay {
    /// No row has its turn.
    #[default]
    Nothing,
    /// Each process samples itself.
    Own(Own),
    /// perf samples them all.
    Perf(Perf),
}

impl Profiler {
    /// A profiler of a run that has so many `rows`.
    ///
    /// # Errors
    /// This process cannot be sampled.
    pub async fn new(wanted: Wanted, rows: usize, place: Place) -> anyhow::Result<Self> {
        if wanted.sampler == Sampler::Own {
            own::try_out().await?;
        }
        let thread = fs::read_to_string("/proc/thread-self/comm").unwrap_or_default();
        Ok(Self {
            wanted,
            rows: Vec::with_capacity(rows),
            expected: rows,
            thread: thread.trim().to_owned(),
            under_way: UnderWay::Nothing,
            began: None,
            place,
            cut: BTreeMap::new(),
        })
    }

    /// A row's turn is about to begin, which these carry: what takes time of that is done now. Proxies that sample themselves do so
    /// from here on; they wait until the turn begins.
    ///
    /// # Errors
    /// An end cannot be sampled.
    pub async fn begin(&mut self, carriers: &[Carrier]) -> anyhow::Result<()> {
        self.began.get_or_insert_with(|| MonoClock.now());
        self.under_way = match self.wanted.sampler {
            Sampler::Own => UnderWay::Own(Own::start(carriers).await?),
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
                UnderWay::Perf(Perf::start(&pids, &self.place, perf::LIMITS).await?)
            }
        };
        Ok(())
    }

    /// The row's turn begins.
    ///
    /// # Errors
    /// An end cannot be sampled.
    pub async fn go(&mut self) -> anyhow::Result<()> {
        match &mut self.under_way {
            UnderWay::Nothing => Ok(()),
            UnderWay::Own(own) => own.go().await,
            UnderWay::Perf(perf) => perf.go().await,
        }
    }

    /// The row's turn is over: what the load generator does from now on, and with perf what the proxies do, is in no sample.
    ///
    /// # Errors
    /// The samples cannot be had.
    pub async fn halt(&mut self) -> anyhow::Result<()> {
        match &mut self.under_way {
            UnderWay::Nothing => Ok(()),
            UnderWay::Own(own) => own.halt().await,
            UnderWay::Perf(perf) => perf.halt().await,
        }
    }

    /// What was sampled in the row's turn, in which these exchanges came to their end and so much CPU time was `spent`. Dropped before
    /// it is done, as when the run is stopped, it leaves what was sampled in earlier turns as it is.
    ///
    /// # Errors
    /// An end's profile cannot be had; those of the others are kept.
    pub async fn end(
        &mut self,
        row: Row,
        exchanges: &[Exchange],
        carriers: &[Carrier],
        spent: &Spent,
    ) -> anyhow::Result<()> {
        let now = MonoClock.now();
        let run_ns = now.since(self.began.unwrap_or(now)) as f64;
        let mut sampled = Vec::new();
        let ended = match std::mem::take(&mut self.under_way) {
            UnderWay::Nothing => return Ok(()),
            UnderWay::Own(own) => own.finish(&self.thread, &mut sampled).await,
            UnderWay::Perf(perf) => {
                let taken = perf.finish(&self.place).await?;
                if let Some(cut) = taken.cut {
                    *self.cut.entry(cut).or_default() += 1;
                }
                sampled = of_ends(taken.threads, carriers);
                Ok(())
            }
        };
        // All of a turn, or nothing of it.
        let profile = self.row(row);
        profile.run_ns = run_ns;
        profile.add(sampled, exchanges, carriers, spent);
        ended
    }

    fn row(&mut self, row: Row) -> &mut RowProfile {
        let at = self.rows.iter().position(|profile| profile.row == row);
        let at = at.unwrap_or(self.rows.len());
        if at == self.rows.len() {
            self.rows.push(RowProfile::new(row));
        }
        &mut self.rows[at]
    }

    /// Every profile is as exact as it was to become.
    pub fn is_enough(&self) -> bool {
        let enough = difference::samples_for(self.wanted.resolution);
        let is_enough = |row: &RowProfile| row.ends.values().all(|stacks| stacks.total() >= enough);
        self.rows.len() == self.expected && self.rows.iter().all(is_enough)
    }

    /// What was sampled, and what was cut short, in lines for the user.
    pub fn into_rows(self) -> (Vec<RowProfile>, Vec<String>) {
        let cut = self.cut.iter().map(|(cut, turns)| cut.told(*turns));
        (self.rows, cut.collect())
    }
}

/// Each end's stacks, of those of all threads: of this process's those of the calling thread.
fn of_ends(threads: BTreeMap<Thread, Stacks>, carriers: &[Carrier]) -> Vec<(End, Stacks)> {
    let ours = (std::process::id(), gettid().as_raw().unsigned_abs());
    // An end that used no CPU time has no thread here.
    let ends = std::iter::once(End::Client).chain(carriers.iter().map(|it| it.end));
    let mut sampled: Vec<_> = ends.map(|end| (end, Stacks::default())).collect();
    for (thread, stacks) in threads {
        let of = |it: &&Carrier| it.pid == Some(thread.0);
        if thread == ours {
            sampled.push((End::Client, stacks));
        } else if let Some(carrier) = carriers.iter().find(of) {
            sampled.push((carrier.end, stacks));
        }
    }
    sampled
}
