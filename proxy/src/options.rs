//! What a proxy is told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokenlag_channel::quic::DoorLimits;
use tokenlag_channel::tls::{ClientTls, Identity};
use tokenlag_channel::{BaseUrl, Stamping};
use tokenlag_dialect::Limits;
use tokenlag_probes::{Encoding, StateAt, Transport};

use crate::front::WsLimits;
use crate::upstream::Patience;

/// Where a proxy listens, what it relays to, and its bounds.
#[derive(Clone, Debug)]
pub struct ProxyOptions {
    /// TCP: HTTP/1.1, HTTP/2 and WebSocket, in clear and inside TLS.
    pub listen: SocketAddr,
    /// UDP: HTTP/3 and the raw QUIC channel. `None` leaves them out.
    pub quic: Option<SocketAddr>,
    /// The network namespace, by its path, in which the two above are made; `None` is the process's own. Upstream and admin
    /// endpoint stay in that one either way.
    pub listen_in: Option<PathBuf>,
    /// The certificate that is shown inside TLS and QUIC. `None` makes a self-signed one, which clients can trust only through
    /// [`crate::Proxy::certificate`].
    pub identity: Option<Identity>,
    /// Whether clients may resume earlier TLS sessions, and the proxy its own with the upstream.
    pub resumption: bool,
    /// Whether requests are taken before a QUIC handshake is over (0-RTT), where the client marks them as safe to replay.
    pub zero_rtt: bool,
    /// Nagle's algorithm on the connections of the TCP door: for those who want to see what it costs.
    pub nagle: bool,
    /// What clients may take; the number of connections is that of all threads, at each of the two doors.
    pub limits: DoorLimits,
    /// The backend.
    pub upstream: BaseUrl,
    /// Whom to trust as the backend, where it is dialled over TLS. `None` trusts whom the system trusts. Whether sessions are
    /// resumed is said by `resumption`.
    pub upstream_tls: Option<ClientTls>,
    /// The channel by which it is dialled: `http`, `http-cold`, `http2`, `http3`, `ws` or `quic`. What a channel cannot carry
    /// goes over HTTP/1.1 to the same address.
    pub upstream_channel: Transport,
    /// How it shall write tokens back (`quic` only).
    pub upstream_encoding: Encoding,
    /// Who stamps what it sends. Every thread books into the same place.
    pub stamping: Stamping,
    /// Nagle's algorithm on the TCP connections to it ([`tokenlag_channel::Dial::nagle`]).
    pub upstream_nagle: bool,
    /// What it speaks.
    pub upstream_api: UpstreamApi,
    /// Who keeps finished responses under their ids, so that a request can go on from one by naming it.
    pub state_at: StateAt,
    /// How much of them the proxy keeps in all, where it is the one; each WebSocket has a little more of its own.
    pub state_limits: Limits,
    /// Bounds of each client's WebSocket.
    pub websocket: WsLimits,
    /// The admin endpoint.
    pub admin: SocketAddr,
    /// The admin endpoint may listen on an address that is not loopback.
    pub admin_public: bool,
    /// Threads that carry traffic; each has its own listeners, connections and upstream pool.
    pub threads: usize,
    /// Records of finished exchanges that are kept for `/exchanges`.
    pub exchanges: usize,
    /// Deltas in all of those records: some 7 bytes each.
    pub deltas: usize,
    /// How patient the proxy is with the upstream.
    pub patience: Patience,
    /// How long exchanges under way may go on after a shutdown was asked for.
    pub grace: Duration,
    /// How many allocations the process made, for `/usage`. `None` where nobody counts them.
    pub allocations: Option<fn() -> u64>,
}

impl ProxyOptions {
    /// The usual options around the two that everybody must choose.
    pub fn new(listen: SocketAddr, upstream: BaseUrl) -> Self {
        Self {
            listen,
            quic: Some(listen),
            identity: None,
            resumption: true,
            zero_rtt: false,
            nagle: false,
            limits: DoorLimits::default(),
            upstream,
            upstream_tls: None,
            upstream_channel: Transport::Http,
            upstream_encoding: Encoding::Events,
            stamping: Stamping::default(),
            upstream_nagle: false,
            upstream_api: UpstreamApi::Auto,
            state_at: StateAt::Proxy,
            state_limits: Limits {
                responses: 65_536,
                bytes: 256 * 1024 * 1024,
            },
            websocket: WsLimits::default(),
            admin: ([127, 0, 0, 1], 9901).into(),
            admin_public: false,
            listen_in: None,
            threads: 1,
            exchanges: 65_536,
            deltas: 4_000_000,
            patience: Patience {
                connect: Duration::from_secs(5),
                idle: Duration::from_secs(300),
            },
            grace: Duration::from_secs(30),
            allocations: None,
        }
    }
}

/// What the upstream speaks where the Responses API is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamApi {
    /// It is found out once.
    #[default]
    Auto,
    /// It is found out once, and asked over HTTP whatever else it speaks: every channel's exchanges go the same way upstream.
    Http,
    /// The Responses API over HTTP.
    Responses,
    /// Chat completions alone: requests and replies are translated.
    Chat,
    /// The Responses API over HTTP and over WebSocket: WebSockets are passed through.
    WebSocket,
}

impl UpstreamApi {
    /// The name in flags and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Http => "http",
            Self::Responses => "responses",
            Self::Chat => "chat",
            Self::WebSocket => "websocket",
        }
    }
}

/// The text names nothing that an upstream can speak.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no API of an upstream; use auto, http, responses, chat or websocket")]
pub struct UnknownApi(pub String);

impl FromStr for UpstreamApi {
    type Err = UnknownApi;

    fn from_str(text: &str) -> Result<Self, UnknownApi> {
        let all = [
            Self::Auto,
            Self::Http,
            Self::Responses,
            Self::Chat,
            Self::WebSocket,
        ];
        all.into_iter()
            .find(|api| api.name() == text)
            .ok_or_else(|| UnknownApi(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for api in ["auto", "responses", "chat", "websocket"] {
            assert_eq!(api.parse::<UpstreamApi>().unwrap().name(), api);
        }
        assert!("Chat".parse::<UpstreamApi>().is_err());
    }
}
