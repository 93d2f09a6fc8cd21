//! The other ends of a comparison: those that are given, and those that are started for the run.

use std::path::{Path, PathBuf};

use anyhow::Context;
use tokenlag_channel::tls::ClientTls;
use tokenlag_loadgen::BaseUrl;
use tokenlag_probes::{CertificateSource, Row, StampSource, State, StateAt, Transport};

use crate::args::compare::CompareArgs;
use crate::conditions::Found;
use crate::exit::Usage;
use crate::link::Linked;
use crate::pinning::Pinning;
use crate::plan::Plan;
use crate::rig::{Alarm, Identity, Leg, Model, ProxyAddresses, Rig, Setup, Sidecar};
use crate::topology::Told;
use crate::{certificates, topology};

/// The other ends of all rows.
pub struct Ends {
    /// The backend.
    pub backend: BaseUrl,
    /// Whom to trust there; `None`: it is asked in clear.
    pub backend_trust: Option<ClientTls>,
    /// The proxy that rows go through; `None` where none does.
    pub proxy: Option<ProxyAddresses>,
    /// The proxies of pairs that stand before that one.
    pub sidecars: Vec<Sidecar>,
    /// Where the backend is reached over the link, by rows that pass the proxy by.
    pub direct: Option<(String, u16)>,
    /// What was found out on the way.
    pub found: Found,
}

/// What starting something needs.
pub struct Starter<'a> {
    /// What the user said.
    pub args: &'a CompareArgs,
    /// What has been started.
    pub rig: &'a mut Rig,
    /// Which process runs where.
    pub pinning: Pinning,
    /// What the rows' traffic goes over.
    pub link: Option<&'a mut Linked>,
    /// Ends it early.
    pub alarm: &'a Alarm,
}

impl Ends {
    /// Finds what is given, and starts the rest.
    ///
    /// # Errors
    /// Something does not start, cannot be reached, or is other than the flags say.
    pub async fn gather(plan: &mut Plan, mut with: Starter<'_>) -> anyhow::Result<Self> {
        let backend = with.backend(plan).await?;
        let backend_trust = match backend.is_tls() {
            true => Some(certificates::trusted(with.args.upstream_trust.as_deref())?),
            false => None,
        };
        let mut ends = Self {
            backend,
            backend_trust,
            proxy: None,
            sidecars: Vec::new(),
            direct: None,
            found: Found::default(),
        };
        let is_direct = |row: &Row| row.transport == Transport::Direct;
        if let Some(link) = &mut with.link
            && plan.work.rows.iter().any(is_direct)
        {
            ends.direct = Some(link.forward(&ends.backend)?);
        }
        if plan.work.rows.iter().all(is_direct) {
            ends.found.state_at = with.args.state_at;
            return Ok(ends);
        }
        match (&with.args.proxy, &with.args.proxy_admin) {
            (Some(listen), Some(admin)) => with.given_proxy(plan, listen, admin, &mut ends).await?,
            _ => with.own_proxy(plan, &mut ends).await?,
        }
        Ok(ends)
    }
}

impl Starter<'_> {
    async fn backend(&mut self, plan: &mut Plan) -> anyhow::Result<BaseUrl> {
        let given = (&plan.work.url, &self.args.proxy, &self.args.proxy_admin);
        match given {
            (Some(url), ..) => Ok(url.clone()),
            (None, Some(listen), Some(admin)) => {
                let behind = topology::backend_behind(listen, admin);
                let url = self.alarm.or_stopped(behind).await?;
                plan.url = Some(url.to_string());
                Ok(url)
            }
            _ if cfg!(feature = "backend") => {
                let rig = &mut self.rig;
                let model = Model {
                    sessions: plan.concurrency,
                    tokens_per_second: plan.tokens_per_second,
                };
                rig.start_backend(model, self.pinning, self.alarm).await
            }
            _ => {
                let what = "this build has no embedded model; give a backend's address with --url";
                Err(Usage(what.to_owned()).into())
            }
        }
    }

    /// A proxy that was there before.
    async fn given_proxy(
        &mut self,
        plan: &Plan,
        listen: &BaseUrl,
        admin: &BaseUrl,
        ends: &mut Ends,
    ) -> anyhow::Result<()> {
        let trust_file = self.args.wire.trust.as_deref();
        let told = topology::told(admin);
        let told = self.alarm.or_stopped(told).await?;
        ends.found = Found {
            certificate: Some(CertificateSource::Given),
            state_at: told.state_at,
            ..ends.found
        };
        check_state(self.args.state_at, ends.found.state_at)?;
        check_joined(plan, &told)?;
        check_stamp(plan.wire.stamp, told.stamp.unwrap_or_default())?;
        check_nagle(plan.wire.nagle, told.nagle.unwrap_or_default())?;
        let proxy = ProxyAddresses {
            listen: listen.clone(),
            quic: self.args.proxy_quic.clone(),
            admin: admin.clone(),
            trust: match encrypts(plan) {
                true => Some(certificates::trusted(trust_file)?),
                false => None,
            },
            pid: None,
        };
        ends.sidecars = self.sidecars(plan, &proxy, trust_file).await?;
        ends.proxy = Some(proxy);
        Ok(())
    }

    /// A proxy of this run's own, with a certificate that was given or is made for it.
    async fn own_proxy(&mut self, plan: &Plan, ends: &mut Ends) -> anyhow::Result<()> {
        // The files of one that is made go at this function's end: all who need them have read them by then.
        let made;
        let (cert, key, source) = match (&self.args.cert, &self.args.key) {
            (Some(cert), Some(key)) => (cert.clone(), key.clone(), CertificateSource::Given),
            _ => {
                made = Identity::create(self.link.as_ref().map(|link| link.server().address))
                    .context("cannot make a certificate for the run")?;
                (made.cert(), made.key(), CertificateSource::SelfSigned)
            }
        };
        let trust_file: &Path = self.args.wire.trust.as_deref().unwrap_or(&cert);
        let setup = Setup {
            upstream: &ends.backend,
            upstream_trust: self.args.upstream_trust.as_deref(),
            cert: &cert,
            key: &key,
            state_at: self.args.state_at,
            resumption: plan.wire.resumption,
            zero_rtt: plan.wire.zero_rtt,
            nagle: plan.wire.nagle,
            stamp: plan.wire.stamp,
            place: self.link.as_ref().map(|link| link.server()),
        };
        let trust = certificates::trusted(Some(trust_file))?;
        let started = self.rig.start_proxy(&setup, self.pinning, self.alarm);
        let proxy = ProxyAddresses {
            trust: Some(trust),
            ..started.await?
        };
        ends.found = Found {
            certificate: Some(source),
            state_at: Some(self.args.state_at.unwrap_or(StateAt::Proxy)),
            ..ends.found
        };
        ends.sidecars = self.sidecars(plan, &proxy, Some(trust_file)).await?;
        ends.proxy = Some(proxy);
        Ok(())
    }

    /// A proxy beside the load generator for each pair, before `proxy`.
    async fn sidecars(
        &mut self,
        plan: &Plan,
        proxy: &ProxyAddresses,
        trust: Option<&Path>,
    ) -> anyhow::Result<Vec<Sidecar>> {
        let mut sidecars: Vec<Sidecar> = Vec::new();
        for row in &plan.work.rows {
            let is_there =
                |it: &Sidecar| (it.transport, it.encoding) == (row.transport, row.encoding);
            if !row.transport.is_pair() || sidecars.iter().any(is_there) {
                continue;
            }
            let leg = Leg {
                transport: row.transport,
                encoding: row.encoding,
                to: proxy
                    .reached_over(row.transport)
                    .clone()
                    .with_tls(plan.wire.carries_tls(row.transport)),
                place: self.link.as_ref().map(|link| link.client()),
                trust: trust
                    .filter(|_| plan.wire.carries_tls(row.transport))
                    .map(PathBuf::from),
                nagle: plan.wire.nagle,
                stamp: plan.wire.stamp,
            };
            let started = self.rig.start_sidecar(&leg, self.pinning, self.alarm);
            sidecars.push(started.await?);
        }
        Ok(sidecars)
    }
}

/// Whether the load generator opens encrypted connections to the proxy.
fn encrypts(plan: &Plan) -> bool {
    let wire = plan.wire;
    (plan.work.rows.iter()).any(|row| wire.dials_tls(row.transport))
}

/// Refuses a proxy whose stamps are taken elsewhere than the load generator's: differences between the two would mean nothing.
fn check_stamp(ours: StampSource, theirs: StampSource) -> Result<(), Usage> {
    match ours == theirs {
        true => Ok(()),
        false => Err(Usage(format!(
            "the proxy that is running has stamps of the {theirs}, the load generator of the {ours}; start it with --stamp \
             {ours}, or give --stamp {theirs}"
        ))),
    }
}

/// Refuses a proxy whose door has Nagle's algorithm where the load generator has not, or the other way round: the report could
/// not say which it was.
fn check_nagle(ours: bool, theirs: bool) -> Result<(), Usage> {
    let name = |on: bool| if on { "on" } else { "off" };
    match ours == theirs {
        true => Ok(()),
        false => Err(Usage(format!(
            "the proxy that is running has Nagle's algorithm {}, the load generator {}; start it with --nagle {ours}, or give \
             --nagle {theirs}",
            name(theirs),
            name(ours),
            ours = name(ours),
            theirs = name(theirs),
        ))),
    }
}

/// Refuses a proxy that would keep the conversations of WebSockets elsewhere than those of other channels.
fn check_joined(plan: &Plan, told: &Told) -> Result<(), Usage> {
    let over_websocket =
        |row: &Row| row.transport == Transport::Ws && row.state == State::Incremental;
    let differs = told.joins_websockets() && told.state_at != Some(StateAt::Upstream);
    if differs && plan.work.rows.iter().any(over_websocket) {
        let what = "the proxy that is running joins WebSockets to those of its upstream, which keeps their conversations, while \
                    those of other channels are kept at the proxy; start it with --upstream-api http, or with --state-at upstream";
        return Err(Usage(what.to_owned()));
    }
    Ok(())
}

/// Refuses a proxy that keeps conversations elsewhere than the user says.
fn check_state(asked: Option<StateAt>, found: Option<StateAt>) -> Result<(), Usage> {
    match (asked, found) {
        (Some(asked), Some(found)) if asked != found => Err(Usage(format!(
            "the proxy that is running keeps conversations at the {found}; start it with --state-at {asked}, or leave the flag out"
        ))),
        _ => Ok(()),
    }
}
