//! Flags that `compare` and `load` share: how channels are encrypted and sent on, who shares them, and who stamps what comes.

use std::path::PathBuf;

use clap::Args;
use tokenlag_probes::StampSource;

use super::values::Switch;

/// How the load generator's channels are encrypted, who shares them, and who stamps what comes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Channels")]
pub struct WireArgs {
    /// Whom to trust on encrypted channels, PEM [default: whom the system trusts]
    #[arg(long, value_name = "FILE.pem")]
    pub trust: Option<PathBuf>,
    /// Whether a connection resumes the encrypted session of an earlier one of its row, as real clients do that come again;
    /// off: every handshake is a full one
    #[arg(long, value_enum, default_value_t = Switch::Off)]
    pub resumption: Switch,
    /// Send requests with the handshake of a resumed session, on quic and http3. Who records one on the way can have it
    /// served again: the run's requests are marked as safe for that. Needs --resumption on
    #[arg(long)]
    pub zero_rtt: bool,
    /// All sessions that run side by side share one connection (http2, http3, quic; ws: sixteen of them, each in a lane of its
    /// own), or one pool of as many as they need at once (http-cold, http), instead of a connection each
    #[arg(long)]
    pub multiplex: bool,
    /// Nagle's algorithm on the TCP connections of the rows, at both ends where the proxy is started here: a small write waits
    /// until what was written before is acknowledged (on: no TCP_NODELAY)
    #[arg(long, value_enum, default_value_t = Switch::Off)]
    pub nagle: Switch,
    /// Who stamps what comes, at the load generator and at what a proxy that is started here reads of its upstream: user (the
    /// process, when its read returns) or kernel (when it is received; where it gives no stamp, user)
    #[arg(long, value_name = "SOURCE", default_value = "user")]
    pub stamp: StampSource,
}
