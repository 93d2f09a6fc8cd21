//! Two sidecars on loopback: one beside the application, one beside the backend.
#![allow(dead_code, reason = "each test file uses its own part")]

use tokenlag_channel::tls::ClientTls;
use tokenlag_channel::{BaseUrl, ChannelError};
use tokenlag_probes::{Encoding, TraceId, Transport};
use tokenlag_proxy::ProxyOptions;
use tokenlag_scripted::{Script, ScriptedBackend};

use crate::stack::{Seen, Stack, exchange, get, run};

pub type Leg = (Transport, Encoding);

/// Every channel between the two.
pub const LEGS: [Leg; 7] = [
    (Transport::HttpCold, Encoding::Events),
    (Transport::Http, Encoding::Events),
    (Transport::Http2, Encoding::Events),
    (Transport::Http3, Encoding::Events),
    (Transport::Ws, Encoding::Events),
    (Transport::Quic, Encoding::Events),
    (Transport::Quic, Encoding::Compact),
];

/// How the application asks: a connection for each request.
pub const APPLICATION: Leg = (Transport::HttpCold, Encoding::Events);

pub struct Pair {
    /// Beside the backend.
    pub far: Stack,
    /// Beside the application.
    pub near: Stack,
}

impl Pair {
    pub fn start(leg: Leg, script: &str) -> Self {
        Self::between(leg, Stack::start(script), false, |options| options)
    }

    /// A sidecar in front of `far`; with `tls`, what is TCP between them is encrypted too.
    pub fn between(
        leg: Leg,
        far: Stack,
        tls: bool,
        adjust: impl FnOnce(ProxyOptions) -> ProxyOptions,
    ) -> Self {
        let trusted = run(get(far.addresses.admin, "/certificate")).1;
        let address = match leg.0 {
            Transport::Http3 | Transport::Quic => far.addresses.quic.unwrap(),
            _ => far.addresses.listen,
        };
        let upstream = BaseUrl::of(address.ip().to_string(), address.port()).with_tls(tls);
        // It has nothing to say: the far sidecar is what is asked.
        let nobody = ScriptedBackend::start(Script::default()).unwrap();
        let near = Stack::in_front_of(nobody, upstream, |options| {
            adjust(ProxyOptions {
                upstream_channel: leg.0,
                upstream_encoding: leg.1,
                upstream_tls: Some(ClientTls::trusting(trusted.as_bytes()).unwrap()),
                ..options
            })
        });
        Self { far, near }
    }

    pub async fn ask(&self, trace: TraceId, body: &str) -> Result<Seen, ChannelError> {
        self.ask_with(trace, body, &[]).await
    }

    pub async fn ask_with(
        &self,
        trace: TraceId,
        body: &str,
        headers: &[(String, String)],
    ) -> Result<Seen, ChannelError> {
        let channel = self.near.channel(APPLICATION.0);
        exchange(&channel, APPLICATION, trace, body, headers).await
    }
}

pub fn script(line: &str) -> Script {
    Script::default().with(line).unwrap()
}
