//! The command line: flags, their help, and nothing else.

pub mod compare;
pub mod link;
pub mod load;
pub mod profile;
pub mod report;
pub mod serve;
pub mod shared;
pub mod values;
pub mod wire;

use clap::{Parser, Subcommand};

/// How much of a language model's latency is the wire, and what would another channel save?
#[derive(Debug, Parser)]
#[command(
    name = "tokenlag",
    version,
    after_help = "Every flag can be set by TOKENLAG_<FLAG>, and those of compare, load, profile and link by a key of their name \
                  in --plan FILE.toml too; flags override the environment, and that overrides the file.\n\
                  Exit codes: 0 good, 1 the run failed, 2 wrong usage, 3 the figures must not be trusted, \
                  99 a threshold was crossed."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run every channel in turn and compare them; starts a model and a proxy where none is given
    Compare(Box<compare::CompareArgs>),
    /// One load test of an OpenAI-compatible URL over one channel
    Load(Box<load::LoadArgs>),
    /// Run the load of compare over each channel and show where both ends' CPU time goes: flamegraphs, and what differs
    Profile(Box<profile::ProfileArgs>),
    /// The sidecar: takes requests on any channel and relays them to an HTTP upstream
    Proxy(Box<serve::ProxyArgs>),
    /// A real local model behind an OpenAI-compatible server
    #[cfg(feature = "backend")]
    Backend(serve::BackendArgs),
    /// Run any command behind an emulated network link
    Link(Box<link::LinkArgs>),
    /// Show and export runs that were recorded
    Report(report::ReportArgs),
}
