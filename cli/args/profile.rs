//! Flags of `profile`.

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::compare::CompareArgs;
use super::values::share;

/// Flags of `profile`: its own, and those of `compare`, whose load it runs.
#[derive(Debug, Args)]
pub struct ProfileArgs {
    /// Go on until the share of any function in each profile is known to so many percentage points to either side, as in 1%,
    /// or --duration is over, which is 5m here unless it is given [default: 5%, with --quick 10%]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub resolution: Option<f64>,
    /// Who samples: self (each process itself, 199 times in a second of its CPU time) or perf (the program of that name,
    /// 4,000 times, with the kernel's functions; it runs on the backend's core, or on one that nobody is bound to)
    #[arg(long, value_enum, default_value_t)]
    pub sampler: Sampler,
    /// Keep all frames, those too that only pass calls on: polling, closures, the runtime
    #[arg(long)]
    pub raw: bool,
    /// The load, as compare runs it.
    #[command(flatten)]
    pub compare: CompareArgs,
}

/// Who samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sampler {
    /// Each process itself
    #[default]
    #[value(name = "self")]
    #[serde(rename = "self")]
    Own,
    /// The program `perf`
    Perf,
}
