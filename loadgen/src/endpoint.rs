//! Where requests go: what a base URL makes of a channel's dial.

use std::time::Duration;

use tokenlag_channel::tls::ClientTls;
use tokenlag_channel::{BaseUrl, Dial, Stamping};
use tokenlag_dialect::Dialect;
use tokenlag_probes::StampSource;

/// How long to wait for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Name, connection and handshake together.
    pub connect: Duration,
    /// A whole exchange; a reply may be silent for as long.
    pub exchange: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            exchange: Duration::from_secs(300),
        }
    }
}

/// One row's other end.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Where to dial, and how.
    pub dial: Dial,
    /// Path of the requests.
    pub path: String,
    /// The `Host` that they name.
    pub authority: String,
}

impl Endpoint {
    /// `dialect`'s endpoint at `base`, with `headers` (authorization, and what the user gave) on every request.
    pub fn new(
        base: &BaseUrl,
        dialect: Dialect,
        headers: Vec<(String, String)>,
        limits: Limits,
    ) -> Self {
        let path = base.path(dialect.path()).into_owned();
        Self {
            dial: Dial {
                host: base.host().to_owned(),
                port: base.port(),
                path: path.clone(),
                headers,
                connect_timeout: limits.connect,
                idle_timeout: limits.exchange,
                tls: None,
                stamping: Stamping::default(),
                nagle: false,
            },
            path,
            authority: base.authority(),
        }
    }

    /// The same over TLS.
    #[must_use]
    pub fn over_tls(mut self, tls: ClientTls) -> Self {
        self.dial.tls = Some(tls);
        self
    }

    /// The same, with stamps from `source` of what comes.
    #[must_use]
    pub fn stamped_by(mut self, source: StampSource) -> Self {
        self.dial.stamping = Stamping::new(source);
        self
    }

    /// The same, with Nagle's algorithm on or off ([`Dial::nagle`]).
    #[must_use]
    pub fn with_nagle(mut self, on: bool) -> Self {
        self.dial.nagle = on;
        self
    }

    /// The same, dialling another place: where QUIC is spoken.
    #[must_use]
    pub fn at(mut self, host: String, port: u16) -> Self {
        self.dial.host = host;
        self.dial.port = port;
        self
    }
}
