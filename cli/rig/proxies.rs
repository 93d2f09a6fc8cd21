//! The proxies of a run: one in front of the backend, and for each pair another beside the load generator.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use tokenlag_channel::tls::ClientTls;
use tokenlag_loadgen::BaseUrl;
use tokenlag_probes::{Encoding, Row, StampSource, StateAt, Transport};

use super::child::{Child, Ready};
use super::{Alarm, Rig, address, words};
use crate::link::Place;
use crate::pinning::Pinning;

/// Where the proxy in front of the backend can be reached.
#[derive(Clone, Debug)]
pub struct ProxyAddresses {
    /// HTTP and WebSocket.
    pub listen: BaseUrl,
    /// HTTP/3 and tokenlag's own channel; `None`: at the same host and port.
    pub quic: Option<BaseUrl>,
    /// Health and stamps.
    pub admin: BaseUrl,
    /// Whom to trust there; `None`: no row's connection is encrypted.
    pub trust: Option<ClientTls>,
    /// Its process, where it was started here.
    pub pid: Option<u32>,
}

impl ProxyAddresses {
    /// Where it takes such a channel, or that between the two proxies of a pair.
    pub fn reached_over(&self, transport: Transport) -> &BaseUrl {
        let leg = transport.leg().unwrap_or(transport);
        match &self.quic {
            Some(quic) if leg.is_encrypted_always() => quic,
            _ => &self.listen,
        }
    }
}

/// How the proxy in front of the backend is set up.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The backend.
    pub upstream: &'a BaseUrl,
    /// Whom to trust there; `None`: whom the system trusts.
    pub upstream_trust: Option<&'a Path>,
    /// Its certificate.
    pub cert: &'a Path,
    /// Its private key.
    pub key: &'a Path,
    /// Where conversations are kept; `None`: as it does by itself.
    pub state_at: Option<StateAt>,
    /// Clients may resume sessions.
    pub resumption: bool,
    /// Clients may send with the handshake.
    pub zero_rtt: bool,
    /// Its door's TCP holds small writes back.
    pub nagle: bool,
    /// Who stamps what the backend sends.
    pub stamp: StampSource,
    /// Where its doors are, if that is behind a link.
    pub place: Option<Place>,
}

/// The channel between the two proxies of a pair.
#[derive(Clone, Debug)]
pub struct Leg {
    /// The row's channel.
    pub transport: Transport,
    /// How tokens are written on it.
    pub encoding: Encoding,
    /// The proxy at its other end, as this channel reaches it.
    pub to: BaseUrl,
    /// Whom to trust there; `None`: whom the system trusts.
    pub trust: Option<PathBuf>,
    /// Where its doors are and whence it dials, if that is behind a link.
    pub place: Option<Place>,
    /// TCP holds small writes to there back.
    pub nagle: bool,
    /// Who stamps what comes from there.
    pub stamp: StampSource,
}

/// The proxy of a pair that stands beside the load generator.
#[derive(Clone, Debug)]
pub struct Sidecar {
    /// The row's channel.
    pub transport: Transport,
    /// How tokens are written between the two.
    pub encoding: Encoding,
    /// Where it takes requests, in clear.
    pub listen: BaseUrl,
    /// Stamps, and what it counted.
    pub admin: BaseUrl,
    /// Whether it is encrypted between the two.
    pub encrypted: bool,
    /// Its process.
    pub pid: u32,
}

impl Sidecar {
    /// Whether it carries such a row.
    pub fn is_for(&self, row: Row) -> bool {
        (self.transport, self.encoding) == (row.transport, row.encoding)
    }
}

impl Rig {
    /// Starts the proxy in front of the backend.
    pub async fn start_proxy(
        &mut self,
        setup: &Setup<'_>,
        pinning: Pinning,
        alarm: &Alarm,
    ) -> anyhow::Result<ProxyAddresses> {
        let mut args = proxy_at(setup.upstream, setup.place);
        args.extend(words(["--quic", &door(setup.place)]));
        args.extend(["--cert".into(), setup.cert.into()]);
        args.extend(["--key".into(), setup.key.into()]);
        if let Some(trust) = setup.upstream_trust {
            args.extend(["--upstream-trust".into(), trust.into()]);
        }
        if let Some(place) = setup.state_at {
            args.extend(words(["--state-at", &place.to_string()]));
        }
        if setup.state_at != Some(StateAt::Upstream) {
            // Joined to an upstream's own, WebSockets would have their state there, and the other channels here.
            args.extend(words(["--upstream-api", "http"]));
        }
        if !setup.resumption {
            args.extend(words(["--no-resumption"]));
        }
        if setup.zero_rtt {
            args.extend(words(["--zero-rtt"]));
        }
        if setup.nagle {
            args.extend(words(["--nagle", "on"]));
        }
        args.extend(words(["--stamp", &setup.stamp.to_string()]));
        let (ready, pid) = self.add("proxy", args, pinning.proxy, alarm).await?;
        Ok(ProxyAddresses {
            listen: address(ready.listen.as_deref().unwrap_or_default())?,
            quic: ready.quic.as_deref().map(address).transpose()?,
            admin: address(ready.admin.as_deref().unwrap_or_default())?,
            trust: None,
            pid: Some(pid),
        })
    }

    /// Starts the proxy of a pair that stands beside the load generator. It keeps no conversation: the other one does, or
    /// the backend, as on all rows of the run.
    pub async fn start_sidecar(
        &mut self,
        leg: &Leg,
        pinning: Pinning,
        alarm: &Alarm,
    ) -> anyhow::Result<Sidecar> {
        let channel = leg.transport.leg().unwrap_or(leg.transport);
        let mut args = proxy_at(&leg.to, leg.place);
        if let Some(place) = leg.place {
            args.extend(words(["--dial-from", &place.path()]));
        }
        args.extend(words([
            "--no-quic",
            // The report says that there is none between the two.
            "--no-resumption",
            "--state-at",
            "upstream",
            "--upstream-api",
            "responses",
            "--upstream-channel",
            &channel.to_string(),
            "--upstream-encoding",
            &leg.encoding.to_string(),
            "--stamp",
            &leg.stamp.to_string(),
        ]));
        if leg.nagle {
            args.extend(words(["--upstream-nagle", "on"]));
        }
        if let Some(trust) = &leg.trust {
            args.extend(["--upstream-trust".into(), trust.into()]);
        }
        let name = format!("sidecar of {}", leg.transport);
        let (ready, pid) = self.add(&name, args, pinning.sidecar, alarm).await?;
        Ok(Sidecar {
            transport: leg.transport,
            encoding: leg.encoding,
            listen: address(ready.listen.as_deref().unwrap_or_default())?,
            admin: address(ready.admin.as_deref().unwrap_or_default())?,
            encrypted: leg.to.is_tls() || channel.is_encrypted_always(),
            pid,
        })
    }

    /// Starts a proxy and waits until it is up: by then it has read its files.
    async fn add(
        &mut self,
        name: &str,
        args: Vec<OsString>,
        core: Option<usize>,
        alarm: &Alarm,
    ) -> anyhow::Result<(Ready, u32)> {
        let starting = Child::start(name, args, core, alarm)?;
        let (child, ready) = starting.ready("/live", |ready| ready.admin, alarm).await?;
        let pid = child.pid();
        self.children.push(child);
        Ok((ready, pid))
    }
}

/// A port that the system chooses, where the doors are.
fn door(place: Option<Place>) -> String {
    let address = place.map_or(Ipv4Addr::LOCALHOST, |place| place.address);
    format!("{address}:0")
}

fn proxy_at(upstream: &BaseUrl, place: Option<Place>) -> Vec<OsString> {
    let upstream = upstream.to_string();
    let mut args = words([
        "proxy",
        "--listen",
        &door(place),
        "--admin",
        "127.0.0.1:0",
        "--upstream",
        &upstream,
    ]);
    if let Some(place) = place {
        args.extend(words(["--listen-in", &place.path()]));
    }
    args
}
