//! Flags of `load`.

use std::path::PathBuf;

use clap::Args;
use tokenlag_dialect::Dialect;
use tokenlag_probes::{State, Transport};

use super::shared::{OutputArgs, TargetArgs, WorkArgs};

/// Flags of `load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// The API: responses, chat or completions
    #[arg(long, default_value = "chat")]
    pub api: Dialect,
    /// The channel: direct, http-cold, http, ws or quic
    #[arg(long, default_value = "http")]
    pub channel: Transport,
    /// Who remembers the conversation: full or incremental (responses only)
    #[arg(long, default_value = "full")]
    pub state: State,
    /// The certificate that the other end shows on quic
    #[arg(long, value_name = "FILE.pem")]
    pub trust: Option<PathBuf>,
    /// Whom to ask.
    #[command(flatten)]
    pub target: TargetArgs,
    /// What to ask.
    #[command(flatten)]
    pub work: WorkArgs,
    /// What to show.
    #[command(flatten)]
    pub output: OutputArgs,
}
