//! Flags of `compare`.

use std::path::PathBuf;

use clap::Args;
use tokenlag_loadgen::BaseUrl;
use tokenlag_probes::{State, Transport};

use super::shared::{OutputArgs, TargetArgs, WorkArgs};
use super::values::Pin;

/// Flags of `compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Channels: http-cold, http, ws, quic (direct is always there) [default: all]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub channels: Vec<Transport>,
    /// Who remembers the conversation: full (resent at each turn), incremental (ws and quic) [default: both]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub state: Vec<State>,
    /// A row to compare the others with, as in http/full; may be repeated [default: http-cold/full and http/full]
    #[arg(long, value_name = "ROW")]
    pub baseline: Vec<crate::rows::RowName>,
    /// Leave out the control: HTTP straight to the backend
    #[arg(long)]
    pub no_direct: bool,
    /// Turns that each row takes [default: 40, with --quick 24]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub blocks: Option<u32>,
    /// The same in at most 20 seconds of load
    #[arg(long)]
    pub quick: bool,
    /// A proxy that is already running
    #[arg(long, value_name = "ADDR", requires = "proxy_admin")]
    pub proxy: Option<BaseUrl>,
    /// Its admin endpoint
    #[arg(long, value_name = "ADDR", requires = "proxy")]
    pub proxy_admin: Option<BaseUrl>,
    /// Its QUIC address, host:port
    #[arg(long, value_name = "ADDR", requires = "proxy")]
    pub proxy_quic: Option<BaseUrl>,
    /// The certificate that it shows on QUIC
    #[arg(long, value_name = "FILE.pem", requires = "proxy")]
    pub trust: Option<PathBuf>,
    /// Whether processes that are started here are bound to cores
    #[arg(long, value_enum, default_value_t)]
    pub pin: Pin,
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
