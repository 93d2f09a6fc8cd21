//! What one client did in a cell, summed over its rounds.

use std::collections::BTreeMap;

use tokenlag_probes::{Clock, MonoClock, SignedHistogram, Stamp, TakenWakeups};

use crate::cpu::{self, Cores};
use crate::stolen::Stolen;
use crate::truth::{Comparison, Errors, Glance};

/// Of the machine's time, what is left where nothing is short of it.
const SPARE: f64 = 0.92;

/// What a cell found of one client.
pub struct Found {
    pub errors: Errors,
    /// Of each round, in short.
    pub rounds: Vec<Glance>,
    /// How late the instrument's emissions were.
    pub late: Late,
    /// Cores that each was busy on, on the average.
    pub instrument: f64,
    pub client: f64,
    pub proxy: f64,
    /// What the hypervisor gave to others of the cores' time.
    pub stolen: Stolen,
    /// How long what came lay in the kernel until the client read it; empty where the reads are the stamps.
    pub wakeups: TakenWakeups,
    pub overload: bool,
    /// Why something did not complete.
    pub trouble: Option<String>,
}

/// In nanoseconds.
#[derive(Clone, Copy, Default)]
pub struct Late {
    pub mean: f64,
    pub p99: f64,
    pub max: f64,
}

/// CPU time and stolen time, read where a round begins.
pub struct Meter {
    process: u64,
    proxy: u64,
    stolen: Stolen,
    started: Stamp,
}

impl Meter {
    pub fn start() -> Self {
        Self {
            process: cpu::of_the_process(),
            proxy: cpu::of_threads("proxy-"),
            stolen: Stolen::now(),
            started: MonoClock.now(),
        }
    }
}

/// What one client did in a cell so far.
#[derive(Default)]
pub struct Tally {
    pub all: Comparison,
    rounds: Vec<Glance>,
    late: SignedHistogram,
    /// CPU time in nanoseconds.
    process: u64,
    client: u64,
    proxy: u64,
    took: f64,
    stolen: Stolen,
    spans: BTreeMap<u64, u64>,
    unstamped: u64,
    trouble: Option<String>,
}

impl Tally {
    /// Books what a round took, which began with the meter and is over now. `client` is the CPU time of its thread.
    pub fn book(&mut self, meter: &Meter, client: u64) {
        self.took += MonoClock.now().since(meter.started) as f64;
        self.process += cpu::of_the_process() - meter.process;
        self.proxy += cpu::of_threads("proxy-") - meter.proxy;
        self.client += client;
        self.stolen.add(&meter.stolen, &Stolen::now());
    }

    pub fn book_wakeups(&mut self, wakeups: TakenWakeups) {
        for (nanos, reads) in wakeups.spans {
            *self.spans.entry(nanos).or_default() += reads;
        }
        self.unstamped += wakeups.unstamped;
    }

    /// Keeps the first.
    pub fn book_trouble(&mut self, trouble: Option<String>) {
        self.trouble = self.trouble.take().or(trouble);
    }

    /// Ends a round.
    pub fn close(&mut self, round: Glance, late: &SignedHistogram) {
        self.rounds.push(round);
        self.late.merge(late);
    }

    pub fn finish(self, gap: f64, cores: Cores) -> Found {
        let of_all = |nanos: u64| nanos as f64 / self.took;
        let late = self.late.summary().map_or_else(Late::default, |late| Late {
            mean: late.mean,
            p99: late.p99 as f64,
            max: late.max as f64,
        });
        Found {
            errors: self.all.finish(),
            rounds: self.rounds,
            instrument: of_all(self.process.saturating_sub(self.client + self.proxy)),
            client: of_all(self.client),
            proxy: of_all(self.proxy),
            stolen: self.stolen,
            wakeups: TakenWakeups {
                spans: self.spans.into_iter().collect(),
                unstamped: self.unstamped,
                forgotten: 0,
            },
            overload: of_all(self.process) / cores.count as f64 > SPARE || late.p99 > gap,
            trouble: self.trouble,
            late,
        }
    }
}
