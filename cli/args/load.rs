//! Flags of `load`.

use clap::Args;
use tokenlag_dialect::Dialect;
use tokenlag_probes::{Encoding, State, Transport};

use super::link::LinkedArgs;
use super::shared::{OutputArgs, TargetArgs, WorkArgs};
use super::wire::WireArgs;

/// Flags of `load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// The API: responses, chat or completions
    #[arg(long, default_value = "chat")]
    pub api: Dialect,
    /// The channel: http-cold, http, http2, http3, ws or quic, at the host and port of --url. http3 and quic are always
    /// encrypted, the others where --url begins with https
    #[arg(long, default_value = "http")]
    pub channel: Transport,
    /// Who remembers the conversation: full or incremental (responses only)
    #[arg(long, default_value = "full")]
    pub state: State,
    /// How tokens are written back: events or compact (quic only)
    #[arg(long, default_value = "events")]
    pub encoding: Encoding,
    /// What it goes over.
    #[command(flatten)]
    pub linked: LinkedArgs,
    /// How to send it.
    #[command(flatten)]
    pub wire: WireArgs,
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
