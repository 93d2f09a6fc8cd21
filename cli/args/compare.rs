//! Flags of `compare`.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::Args;
use tokenlag_loadgen::BaseUrl;
use tokenlag_probes::{Encoding, State, StateAt, Transport};

use super::link::LinkedArgs;
use super::shared::{OutputArgs, TargetArgs, WorkArgs};
use super::values::{Pin, share};
use super::wire::WireArgs;

/// Flags of `compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Channels: http-cold, http, http2, http3, ws, quic (direct is always there), and pairs of proxies with such a channel
    /// between them: pair-http, pair-http2, pair-http3, pair-ws, pair-quic [default: all but the pairs; with
    /// --quick neither http2 nor http3]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub channels: Vec<Transport>,
    /// Who remembers the conversation: full (resent at each turn), incremental [default: both]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub state: Vec<State>,
    /// How tokens are written: events, compact (quic and pair-quic alone) [default: events]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub encoding: Vec<Encoding>,
    /// Where conversations are kept for incremental rows: proxy, upstream [default: proxy, or where --proxy keeps them]
    #[arg(long, value_name = "WHERE")]
    pub state_at: Option<StateAt>,
    /// A row to compare the others with, as in http/full; may be repeated [default: http-cold/full and http/full; where
    /// neither runs, the first row]
    #[arg(long, value_name = "ROW")]
    pub baseline: Vec<crate::rows::RowName>,
    /// Leave out the control: HTTP straight to the backend
    #[arg(long)]
    pub no_direct: bool,
    /// Turns that each row takes [default: 30, with --quick 24]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub blocks: Option<u32>,
    /// Go on until each interval of the changes reaches at most so many percentage points to either side, as in 2%, or
    /// --duration is over, which is 10m then unless it is given; --blocks is then the fewest, 20 at least
    #[arg(long, value_name = "SHARE", value_parser = share, conflicts_with_all = ["quick", "num_prompts"])]
    pub until: Option<f64>,
    /// Fewer channels and shorter answers: at most 20 seconds of load
    #[arg(long)]
    pub quick: bool,
    /// Most tokens a second of each answer of the embedded model, to the pace of a larger one [default: as fast as it computes
    /// them]
    #[arg(long, value_name = "TOKENS", conflicts_with_all = ["url", "proxy"])]
    pub tokens_per_second: Option<NonZeroU32>,
    /// A proxy that is already running
    #[arg(long, value_name = "ADDR", requires = "proxy_admin")]
    pub proxy: Option<BaseUrl>,
    /// Its admin endpoint
    #[arg(long, value_name = "ADDR", requires = "proxy")]
    pub proxy_admin: Option<BaseUrl>,
    /// Where it takes http3 and quic [default: the host and port of --proxy]
    #[arg(long, value_name = "ADDR", requires = "proxy")]
    pub proxy_quic: Option<BaseUrl>,
    /// Speak TLS 1.3 to the proxy on every row; http3 and quic always do. In a pair it is spoken between the two proxies:
    /// the application's way to the first stays in clear
    #[arg(long)]
    pub tls: bool,
    /// The certificate chain of the proxy that is started here, PEM [default: a self-signed one for the run, which the load
    /// generator alone trusts]
    #[arg(
        long,
        value_name = "FILE.pem",
        requires = "key",
        conflicts_with = "proxy"
    )]
    pub cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE.pem", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Whom to trust as an https backend, PEM [default: whom the system trusts]
    #[arg(long, value_name = "FILE.pem")]
    pub upstream_trust: Option<PathBuf>,
    /// Run only this comparison of the plan's [sweep], counted from 1
    #[arg(long, value_name = "NUMBER", requires = "plan")]
    pub case: Option<u32>,
    /// Read the plan from standard input, whatever its file says by now
    #[arg(long, hide = true, requires = "plan")]
    pub plan_on_stdin: bool,
    /// End when this process does
    #[arg(long, hide = true, value_name = "PID")]
    pub die_with_parent: Option<i32>,
    /// Whether processes that are started here are bound to cores
    #[arg(long, value_enum, default_value_t)]
    pub pin: Pin,
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
