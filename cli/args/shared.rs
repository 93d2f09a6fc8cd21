//! Flags that `compare` and `load` share.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokenlag_loadgen::{BaseUrl, Burstiness, Preset, Rate};

use super::values::{Header, Output, Pattern, Secret, Ui, burstiness, duration, rate};
use crate::threshold::Threshold;

/// Whom to ask, and how.
#[derive(Debug, Args)]
#[command(next_help_heading = "Target")]
pub struct TargetArgs {
    /// The backend's address, as in http://127.0.0.1:8080 [default: the embedded model, or what --proxy asks]
    #[arg(long, short)]
    pub url: Option<BaseUrl>,
    /// The model's name [default: the only one that the backend lists]
    #[arg(long, short)]
    pub model: Option<String>,
    /// Sent as `Authorization: Bearer`; never printed or stored [default: OPENAI_API_KEY]
    #[arg(long, hide_env_values = true)]
    pub api_key: Option<Secret>,
    /// A further header, 'Name: value'; may be repeated
    #[arg(long, hide_env_values = true)]
    pub header: Vec<Header>,
    /// Further members of every request's body, as a JSON object
    #[arg(long, value_name = "JSON")]
    pub extra_body: Option<String>,
    /// Ask the model to go on to --osl tokens whatever it says
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub ignore_eos: bool,
    /// The longest that one exchange may take
    #[arg(long, value_name = "SPAN", default_value = "5m", value_parser = duration)]
    pub timeout: Duration,
}

/// What to ask, how often and when.
#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
pub struct WorkArgs {
    /// A preset: edit, agent or chat; --turns, --isl and --osl change it
    #[arg(long)]
    pub workload: Option<Preset>,
    /// Exchanges of a session, each built on the one before
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub turns: Option<u32>,
    /// Input tokens of a session's first turn
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub isl: Option<u32>,
    /// New input tokens of each later turn
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub later_isl: Option<u32>,
    /// Output tokens of each turn
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub osl: Option<u32>,
    /// Sessions side by side; in an open loop the most there may be
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub concurrency: Option<u32>,
    /// Sessions per second: an open loop
    #[arg(long, value_parser = rate)]
    pub request_rate: Option<Rate>,
    /// What makes them arrive [default: poisson]
    #[arg(long, requires = "request_rate")]
    pub arrival_pattern: Option<Pattern>,
    /// Shape of gamma gaps: below 1 burstier than poisson
    #[arg(long, requires = "request_rate", value_parser = burstiness)]
    pub burstiness: Option<Burstiness>,
    /// How long to measure at most, all rows together; what was begun is finished
    #[arg(long, value_name = "SPAN", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Exchanges of each row
    #[arg(long, alias = "request-count", value_parser = clap::value_parser!(u64).range(1..))]
    pub num_prompts: Option<u64>,
    /// Sessions of each row that are run first and not recorded [default: --concurrency]
    #[arg(long)]
    pub num_warmups: Option<u64>,
    /// Seed of everything random [default: another one for each run; it is recorded]
    #[arg(long)]
    pub random_seed: Option<u64>,
}

/// What to show and to keep.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// What goes to standard output; nothing else does
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// How progress is shown, on standard error
    #[arg(long, value_enum, default_value_t)]
    pub ui: Ui,
    /// The run's folder; an earlier run is never overwritten [default: runs/<time>-<command>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Show where the time to the first token goes, leg by leg, and each overhead beyond its floor; behind a link it is shown
    /// anyway
    #[arg(long)]
    pub legs: bool,
    /// Keep the stamps of every delta in exchanges.jsonl
    #[arg(long)]
    pub keep_tokens: bool,
    /// Exit 0 even where the verdict is that the figures must not be trusted
    #[arg(long)]
    pub allow_untrusted: bool,
    /// A threshold, as in 'ws/incremental.ttft.p99 > 50ms': exit 99 where it holds; may be repeated
    #[arg(long, value_name = "CONDITION")]
    pub fail_if: Vec<Threshold>,
    /// A file with a key for each flag; flags override it
    #[arg(long, value_name = "FILE.toml")]
    pub plan: Option<PathBuf>,
}
