//! Flags of the commands that serve: `proxy` and `backend`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use tokenlag_channel::BaseUrl;
use tokenlag_probes::{Encoding, StampSource, Transport};
use tokenlag_proxy::{StateAt, UpstreamApi};

use super::values::{Switch, duration};

fn one_or_more() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

/// A channel that an upstream can be dialled over.
fn upstream_channel(name: &str) -> Result<Transport, String> {
    let known: Option<Transport> = name.parse().ok();
    known
        .filter(|channel| !channel.is_pair() && *channel != Transport::Direct)
        .ok_or_else(|| {
            "an upstream is reached over http, http-cold, http2, http3, ws or quic".to_owned()
        })
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

/// Flags that only the rig gives, to proxies that stand at an end of an emulated link.
#[derive(Clone, Debug, Default, Args)]
pub struct PlaceArgs {
    /// The network namespace in which --listen and --quic are
    #[arg(long, hide = true, value_name = "PATH")]
    pub listen_in: Option<PathBuf>,
    /// The network namespace from which the upstream is dialled
    #[arg(long, hide = true, value_name = "PATH")]
    pub dial_from: Option<PathBuf>,
}

/// Flags of `proxy`.
#[derive(Debug, Args)]
pub struct ProxyArgs {
    /// Where to take HTTP/1.1, HTTP/2 and WebSocket, in clear and over TLS
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081")]
    pub listen: SocketAddr,
    /// Where to take HTTP/3 and tokenlag's QUIC channel (UDP) [default: the port of --listen]
    #[arg(long, value_name = "ADDR")]
    pub quic: Option<SocketAddr>,
    /// Leave out HTTP/3 and the QUIC channel
    #[arg(long, conflicts_with = "quic")]
    pub no_quic: bool,
    /// The backend's address, http or https; or another tokenlag proxy's
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub upstream: BaseUrl,
    /// How to reach it: http, http-cold, http2, http3, ws or quic. http3 and quic go to the UDP port of the same number and
    /// are always encrypted
    #[arg(long, value_name = "CHANNEL", default_value = "http", value_parser = upstream_channel)]
    pub upstream_channel: Transport,
    /// How tokens are written on the way from it: events, or compact between two tokenlag proxies over quic
    #[arg(long, value_name = "ENCODING", default_value = "events")]
    pub upstream_encoding: Encoding,
    /// Whom to trust as an encrypted upstream, PEM [default: whom the system trusts]
    #[arg(long, value_name = "FILE.pem")]
    pub upstream_trust: Option<PathBuf>,
    /// Who stamps what it sends: user (the proxy, when its read returns) or kernel (when it is received; where it gives no
    /// stamp, user)
    #[arg(long, value_name = "SOURCE", default_value = "user")]
    pub stamp: StampSource,
    /// What it speaks: responses, chat (translated), websocket (the Responses API on WebSocket too), auto, which asks it, or
    /// http, which asks it and leaves its WebSocket alone
    #[arg(long, value_name = "API", default_value = "auto")]
    pub upstream_api: UpstreamApi,
    /// Who keeps finished responses, so that a client goes on from them by previous_response_id: proxy, upstream
    #[arg(long, value_name = "WHERE", default_value = "proxy")]
    pub state_at: StateAt,
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
    /// The certificate chain for TLS and QUIC, PEM [default: one made for this process]
    #[arg(long, value_name = "FILE.pem", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE.pem", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Resume no earlier encrypted session, neither with clients nor with the upstream
    #[arg(long)]
    pub no_resumption: bool,
    /// Serve requests that come with the handshake of a resumed session (0-RTT, on HTTP/3 and QUIC) at once, where their
    /// client marks them as safe to be served twice
    #[arg(long, conflicts_with = "no_resumption")]
    pub zero_rtt: bool,
    /// Nagle's algorithm on the connections that are taken over TCP: a small write waits until what was written before is
    /// acknowledged
    #[arg(long, value_enum, default_value_t = Switch::Off)]
    pub nagle: Switch,
    /// The same on those to the upstream
    #[arg(long, value_enum, default_value_t = Switch::Off)]
    pub upstream_nagle: Switch,
    /// Connections that are held at the same time, over TCP and over UDP each; further ones are closed at once
    /// [default: 20000]
    #[arg(long, value_name = "COUNT", value_parser = one_or_more())]
    pub max_connections: Option<usize>,
    /// Where it stands.
    #[command(flatten)]
    pub place: PlaceArgs,
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
    /// Most tokens a second of each answer, to the pace of a larger model [default: as fast as they are computed]
    #[arg(long, value_name = "TOKENS")]
    pub tokens_per_second: Option<std::num::NonZeroU32>,
    /// What the rig says.
    #[command(flatten)]
    pub child: ChildArgs,
}
