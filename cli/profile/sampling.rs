//! Sampling both ends while a row has its turn, and only then.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use tokenlag_loadgen::BaseUrl;
use tokenlag_probes::{Clock, Exchange, MonoClock, Outcome, Row, Stamp};
use tokenlag_profiling::sampler::HERTZ;
use tokenlag_profiling::{Sampling, Stacks, difference, protobuf};

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
    /// How long the whole run had gone on when its last turn was over.
    pub run_ns: f64,
}

/// Samples, turn by turn.
pub struct Profiler {
    wanted: Wanted,
    rows: Vec<RowProfile>,
    /// The rows that there are to be.
    expected: usize,
    /// Its samples alone are of the measuring.
    thread: String,
    client: Option<Sampling>,
    began: Stamp,
}

impl Profiler {
    /// A profiler of a run that has so many `rows`.
    ///
    /// # Errors
    /// This process cannot be sampled.
    pub fn new(wanted: Wanted, rows: usize) -> anyhow::Result<Self> {
        // The first time takes longer, and shows whether it is possible at all.
        Sampling::start(HERTZ)?.finish()?;
        let thread = fs::read_to_string("/proc/thread-self/comm").unwrap_or_default();
        Ok(Self {
            wanted,
            rows: Vec::with_capacity(rows),
            expected: rows,
            thread: thread.trim().to_owned(),
            client: None,
            began: MonoClock.now(),
        })
    }

    /// A row's turn begins; `ends` are the proxies that carry it, with their admin endpoints.
    ///
    /// # Errors
    /// An end cannot be sampled.
    pub async fn begin(&mut self, ends: &[(End, BaseUrl)]) -> anyhow::Result<()> {
        for (end, admin) in ends {
            let started = http::post(admin, "/debug/pprof/start?seconds=300&raw=1", PATIENCE).await;
            started.with_context(|| format!("cannot sample the {} at {admin}", end.name()))?;
        }
        self.client = Some(Sampling::start(HERTZ).context("cannot sample the load generator")?);
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
        ends: &[(End, BaseUrl)],
    ) -> anyhow::Result<()> {
        let sampled = self.client.take().map(Sampling::finish).transpose();
        let run_ns = MonoClock.now().since(self.began) as f64;
        let at = match self.rows.iter().position(|profile| profile.row == row) {
            Some(at) => at,
            None => {
                self.rows.push(RowProfile {
                    row,
                    tokens: 0,
                    ends: BTreeMap::new(),
                    run_ns,
                });
                self.rows.len() - 1
            }
        };
        let profile = &mut self.rows[at];
        profile.run_ns = run_ns;
        profile.tokens += exchanges.iter().map(tokens).sum::<u64>();
        let sampled = sampled.context("cannot read the load generator's profile")?;
        let client = sampled
            .unwrap_or_default()
            .of_roots(|thread| thread == self.thread);
        profile.ends.entry(End::Client).or_default().merge(client);
        for (end, admin) in ends {
            let what = || format!("cannot have the profile of the {} at {admin}", end.name());
            let packed = http::post(admin, "/debug/pprof/stop", PATIENCE)
                .await
                .with_context(what)?;
            let stacks = protobuf::decode(&packed).with_context(what)?;
            profile.ends.entry(*end).or_default().merge(stacks);
        }
        Ok(())
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
