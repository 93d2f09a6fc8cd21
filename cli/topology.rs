//! Who is where: the client, a proxy that is already running, and the backend behind it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;
use tokenlag_channel::distance;
use tokenlag_loadgen::BaseUrl;
use tokenlag_probes::{StampSource, StateAt, Warning};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::exit::Usage;
use crate::http;
use crate::rig::{Alarm, ProxyAddresses};

/// How long the proxy may take to say what it was told, and a server to take a connection.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long it may take to find out how far something is.
const MEASURING: Duration = Duration::from_secs(6);
/// A round trip from which on a backend is far: more than within a building, or to a server that closes late because it is busy.
const FAR: Duration = Duration::from_millis(2);
/// The way to the proxy is short where the one behind it is more than so many times as long.
const MANY_TIMES: u32 = 4;

/// The backend behind a running proxy, as it is reached from here.
///
/// # Errors
/// The proxy does not say which, or it cannot be reached from here.
pub async fn backend_behind(listen: &BaseUrl, admin: &BaseUrl) -> anyhow::Result<BaseUrl> {
    let upstream = upstream(listen, admin)
        .await
        .context("cannot learn which backend the proxy asks; name it with --url")?;
    let dial = TcpStream::connect((upstream.host(), upstream.port()));
    match timeout(PATIENCE, dial).await {
        Ok(Ok(_)) => Ok(upstream),
        _ => {
            let what = format!(
                "the proxy's upstream cannot be reached from here at {upstream}; give an address at which it can with --url"
            );
            Err(Usage(what).into())
        }
    }
}

/// What a proxy says of how it was started; `None` where it does not say.
#[derive(Debug, Deserialize)]
pub struct Told {
    /// Where it keeps conversations.
    pub state_at: Option<StateAt>,
    /// Who stamps what its upstream sends.
    pub stamp: Option<StampSource>,
    /// Whether its door's TCP holds small writes back.
    pub nagle: Option<bool>,
    /// What its upstream speaks.
    pub upstream_api: Option<UpstreamApi>,
}

/// What a proxy says of what its upstream speaks.
#[derive(Debug, Deserialize)]
pub struct UpstreamApi {
    kind: Option<String>,
}

impl Told {
    /// Whether it joins clients' WebSockets to its upstream's: what is said on them is kept there.
    pub fn joins_websockets(&self) -> bool {
        let kind = self
            .upstream_api
            .as_ref()
            .and_then(|api| api.kind.as_deref());
        kind == Some("websocket")
    }
}

/// What the proxy was told.
///
/// # Errors
/// It cannot be asked.
pub async fn told(admin: &BaseUrl) -> anyhow::Result<Told> {
    let body = http::get(admin, None, "/config", &[], PATIENCE)
        .await
        .context("cannot ask the proxy how it is set up; is --proxy-admin its admin endpoint?")?;
    serde_json::from_slice(&body).context("the proxy's /config cannot be read")
}

/// Reasons not to trust a comparison that lie in who is where. `link` is the round trip of an emulated link, where the proxy's
/// door is behind one: it stands in a network that cannot be reached from here.
///
/// # Errors
/// The run was stopped meanwhile.
pub async fn warnings(
    backend: &BaseUrl,
    proxy: Option<&ProxyAddresses>,
    direct: bool,
    link: Option<Duration>,
    alarm: &Alarm,
) -> anyhow::Result<Vec<Warning>> {
    let Some(proxy) = proxy else {
        return Ok(Vec::new());
    };
    let asked = async { Ok(far_upstream(proxy, link).await) };
    let mut warnings: Vec<Warning> = alarm.or_stopped(asked).await?.into_iter().collect();
    // One that was started here asks whom it was told to.
    if direct && proxy.pid.is_none() {
        let asked = async { Ok(other_upstream(backend, proxy).await) };
        warnings.extend(alarm.or_stopped(asked).await?);
    }
    Ok(warnings)
}

/// The proxy beside the client and its upstream far away: the channels differ on the short way alone. What is not known of the
/// one way or the other raises no suspicion.
async fn far_upstream(proxy: &ProxyAddresses, link: Option<Duration>) -> Option<Warning> {
    #[derive(Deserialize)]
    struct Distance {
        upstream: String,
        round_trip_ns: u64,
    }
    let body = http::get(&proxy.admin, None, "/distance", &[], MEASURING).await;
    let Distance {
        upstream,
        round_trip_ns,
    } = serde_json::from_slice(&body.ok()?).ok()?;
    let long = Duration::from_nanos(round_trip_ns);
    if long < FAR {
        return None;
    }
    let listen = &proxy.listen;
    let short = match link {
        Some(round_trip) => round_trip,
        None => {
            let measured = distance::round_trip(listen.host(), listen.port());
            timeout(MEASURING, measured).await.ok()?.ok()?
        }
    };
    let millis = |span: Duration| format!("{:.3} ms", span.as_secs_f64() * 1e3);
    (short < long / MANY_TIMES).then(|| Warning {
        code: "topology".to_owned(),
        message: format!(
            "the proxy is beside the client and the backend far away: the round trip to the proxy at {listen} takes {}, and its own \
             to {upstream} takes {}, so the channels are compared on the short way, and the long one is not compared",
            millis(short),
            millis(long)
        ),
        remedy: "run `tokenlag proxy` beside the backend and name it with --proxy and --proxy-admin, and compare pairs \
                 (--channels pair-ws,pair-quic) where applications are to keep a proxy beside them"
            .to_owned(),
    })
}

/// The control asks another server than the proxy does. A proxy that does not say whom it asks is not suspected.
async fn other_upstream(backend: &BaseUrl, proxy: &ProxyAddresses) -> Option<Warning> {
    let upstream = upstream(&proxy.listen, &proxy.admin).await.ok()?;
    if is_same(backend, &upstream).await {
        return None;
    }
    Some(Warning {
        code: "other_upstream".to_owned(),
        message: format!(
            "direct/full asks {backend} and the proxy asks {upstream}: what lies between them is not the proxy's alone"
        ),
        remedy: "give the proxy's upstream with --url, or leave --url out".to_owned(),
    })
}

/// The proxy's upstream as its `/config` names it. An address of the proxy's own host is that host's, seen from here.
async fn upstream(listen: &BaseUrl, admin: &BaseUrl) -> anyhow::Result<BaseUrl> {
    #[derive(Deserialize)]
    struct Config {
        upstream: String,
    }
    let body = http::get(admin, None, "/config", &[], PATIENCE).await?;
    let config: Config = serde_json::from_slice(&body)
        .context("the proxy's /config names no upstream; is it of another version?")?;
    let upstream: BaseUrl = config.upstream.parse()?;
    Ok(match is_near(&upstream) && !is_near(listen) {
        true => upstream.at_host(listen.host()),
        false => upstream,
    })
}

async fn is_same(one: &BaseUrl, other: &BaseUrl) -> bool {
    if one.port() != other.port() {
        return false;
    }
    if one.host() == other.host() || (is_near(one) && is_near(other)) {
        return true;
    }
    let (one, other) = (addresses(one).await, addresses(other).await);
    one.iter().any(|address| other.contains(address))
}

/// The addresses of a host; none where its name is not known here.
async fn addresses(base: &BaseUrl) -> Vec<IpAddr> {
    let found = timeout(PATIENCE, lookup_host((base.host(), base.port()))).await;
    let Ok(Ok(found)) = found else {
        return Vec::new();
    };
    found.map(|address| address.ip()).collect()
}

fn is_near(base: &BaseUrl) -> bool {
    base.host() == "localhost"
        || base.host().parse::<IpAddr>().is_ok_and(|address| {
            address.is_loopback() || address == IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        })
}
