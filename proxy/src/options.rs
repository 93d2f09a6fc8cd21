//! What a proxy is told.

use std::net::SocketAddr;
use std::time::Duration;

use tokenlag_channel::BaseUrl;
use tokenlag_channel::tls::Identity;

use crate::upstream::Patience;

/// Where a proxy listens, what it relays to, and its bounds.
#[derive(Clone, Debug)]
pub struct ProxyOptions {
    /// TCP: HTTP/1.1 and WebSocket.
    pub listen: SocketAddr,
    /// UDP: the raw QUIC channel. `None` leaves it out.
    pub quic: Option<SocketAddr>,
    /// The certificate of the QUIC channel. `None` makes a self-signed one, which clients can trust only through
    /// [`crate::Proxy::certificate`].
    pub identity: Option<Identity>,
    /// The backend.
    pub upstream: BaseUrl,
    /// The admin endpoint.
    pub admin: SocketAddr,
    /// The admin endpoint may listen on an address that is not loopback.
    pub admin_public: bool,
    /// Threads that carry traffic; each has its own listeners, connections and upstream pool.
    pub threads: usize,
    /// Records of finished exchanges that are kept for `/exchanges`.
    pub exchanges: usize,
    /// Delta stamps in all of those records: 16 bytes each.
    pub deltas: usize,
    /// How patient the proxy is with the upstream.
    pub patience: Patience,
    /// How long exchanges under way may go on after a shutdown was asked for.
    pub grace: Duration,
}

impl ProxyOptions {
    /// The usual options around the two that everybody must choose.
    pub fn new(listen: SocketAddr, upstream: BaseUrl) -> Self {
        Self {
            listen,
            quic: Some(listen),
            identity: None,
            upstream,
            admin: ([127, 0, 0, 1], 9901).into(),
            admin_public: false,
            threads: 1,
            exchanges: 65_536,
            deltas: 4_000_000,
            patience: Patience {
                connect: Duration::from_secs(5),
                idle: Duration::from_secs(300),
            },
            grace: Duration::from_secs(30),
        }
    }
}
