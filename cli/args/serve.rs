//! Flags of the commands that serve: `proxy` and `backend`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use tokenlag_channel::BaseUrl;

use super::values::duration;

fn one_or_more() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

/// Flags that only the rig gives, to its children.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct ChildArgs {
    /// Say on standard output, in one line of JSON, which addresses were bound
    #[arg(long, hide = true)]
    pub report_ready: bool,
    /// End when this process does, and leave Ctrl-C to it
    #[arg(long, hide = true, value_name = "PID")]
    pub die_with_parent: Option<i32>,
    /// Run on this core only
    #[arg(long, hide = true, value_name = "CPU")]
    pub pin: Option<usize>,
}

/// Flags of `proxy`.
#[derive(Debug, Args)]
pub struct ProxyArgs {
    /// Where to take HTTP and WebSocket
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081")]
    pub listen: SocketAddr,
    /// Where to take tokenlag's QUIC channel (UDP) [default: the port of --listen]
    #[arg(long, value_name = "ADDR")]
    pub quic: Option<SocketAddr>,
    /// Leave out the QUIC channel
    #[arg(long, conflicts_with_all = ["quic", "cert", "key"])]
    pub no_quic: bool,
    /// The backend's address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub upstream: BaseUrl,
    /// Where to serve health, metrics and stamps
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9901")]
    pub admin: SocketAddr,
    /// Let --admin be an address that others can reach
    #[arg(long)]
    pub admin_public: bool,
    /// Threads that carry traffic
    #[arg(long, default_value_t = 1, value_parser = one_or_more())]
    pub threads: usize,
    /// Exchanges whose stamps are kept until they are fetched
    #[arg(long, default_value_t = 65_536, value_parser = one_or_more())]
    pub exchanges: usize,
    /// How long exchanges under way may go on at the end
    #[arg(long, value_name = "SPAN", default_value = "30s", value_parser = duration)]
    pub grace: Duration,
    /// The certificate chain for QUIC, PEM [default: one made for this process]
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// What the rig says.
    #[command(flatten)]
    pub child: ChildArgs,
}

/// Flags of `backend`.
#[cfg(feature = "backend")]
#[derive(Debug, Args)]
pub struct BackendArgs {
    /// Where to serve
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// A GGUF file of the Llama architecture [default: the small model within this program]
    #[arg(long, short, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Sequences that are decoded at once
    #[arg(long, default_value_t = 8, value_parser = one_or_more())]
    pub slots: usize,
    /// Requests that may wait for a slot
    #[arg(long, default_value_t = 256)]
    pub queue: usize,
    /// Most tokens of a request, prompt and answer together [default: what the engine takes]
    #[arg(long, value_name = "TOKENS", value_parser = one_or_more())]
    pub context: Option<usize>,
    /// Most tokens of a chat or a response whose request names no limit
    #[arg(long, value_name = "TOKENS", default_value_t = 256, value_parser = one_or_more())]
    pub max_tokens: usize,
    /// What the rig says.
    #[command(flatten)]
    pub child: ChildArgs,
}
