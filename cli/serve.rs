//! `tokenlag proxy` and `tokenlag backend`: the processes that serve, for people and as the rig's children.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use tokenlag_channel::quic::DoorLimits;
use tokenlag_channel::{BaseUrl, Stamping};
use tokenlag_proxy::{Proxy, ProxyOptions};
use tokio::sync::oneshot;

use crate::alarm::block_on;
use crate::args::serve::{ChildArgs, ProxyArgs};
use crate::exit::{Exit, Usage};
use crate::rig::Ready;
use crate::signals::{self, Ends};
use crate::{allocations, certificates, output, pinning};

/// Runs `tokenlag proxy`.
pub fn proxy(args: ProxyArgs) -> anyhow::Result<Exit> {
    args.child.enter()?;
    check_upstream(&args)?;
    let identity = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => Some(certificates::shown(cert, key)?),
        _ => None,
    };
    let trust = args.upstream_trust.as_deref();
    let upstream_tls = trust.map(|file| certificates::trusted(Some(file)));
    let mut limits = DoorLimits::default();
    limits.connections = args.max_connections.unwrap_or(limits.connections);
    let options = ProxyOptions {
        quic: (!args.no_quic).then(|| args.quic.unwrap_or(args.listen)),
        identity,
        resumption: !args.no_resumption,
        zero_rtt: args.zero_rtt,
        nagle: args.nagle.is_on(),
        upstream_nagle: args.upstream_nagle.is_on(),
        limits,
        upstream_tls: upstream_tls.transpose()?,
        upstream_channel: args.upstream_channel,
        upstream_encoding: args.upstream_encoding,
        stamping: Stamping::new(args.stamp),
        upstream_api: args.upstream_api,
        state_at: args.state_at,
        listen_in: args.place.listen_in,
        admin: args.admin,
        admin_public: args.admin_public,
        threads: args.threads,
        exchanges: args.exchanges,
        grace: args.grace,
        allocations: allocations::counter(),
        ..ProxyOptions::new(args.listen, args.upstream)
    };
    let target = options.upstream.clone();
    let upstream = target.to_string();
    block_on(async move {
        let proxy = Proxy::bind(options)?;
        // The threads that carry traffic are started later, and stay where this one is then.
        if let Some(path) = &args.place.dial_from {
            enter(path)?;
        }
        let addresses = proxy.addresses();
        check_circle(&target, addresses.listen)?;
        args.child.announce(
            &Ready {
                ready: true,
                listen: Some(addresses.listen.to_string()),
                quic: addresses.quic.map(|address| address.to_string()),
                admin: Some(addresses.admin.to_string()),
            },
            &format!(
                "tokenlag proxy: http://{} to {upstream}; admin endpoint http://{}",
                addresses.listen, addresses.admin
            ),
        )?;
        proxy.run(args.child.asked_to_end(args.grace)).await?;
        Ok(Exit::Good)
    })
}

fn enter(namespace: &Path) -> anyhow::Result<()> {
    let entered =
        File::open(namespace).and_then(|namespace| Ok(setns(namespace, CloneFlags::CLONE_NEWNET)?));
    entered.with_context(|| format!("cannot enter the network namespace {}", namespace.display()))
}

/// Refuses an upstream that is the proxy itself: one request would go round until nothing is left.
fn check_circle(upstream: &BaseUrl, listen: SocketAddr) -> anyhow::Result<()> {
    let host: Option<IpAddr> = match upstream.host() {
        "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
        host => host.parse().ok(),
    };
    let here = host.is_some_and(|host| {
        host == listen.ip() || (host.is_loopback() && listen.ip().is_unspecified())
    });
    if here && upstream.port() == listen.port() {
        let what = format!(
            "the upstream {upstream} is this proxy's own address; give the backend's with --upstream, or listen elsewhere"
        );
        return Err(Usage(what).into());
    }
    Ok(())
}

/// Runs `tokenlag backend`.
#[cfg(feature = "backend")]
pub fn backend(args: crate::args::serve::BackendArgs) -> anyhow::Result<Exit> {
    use tokenlag_backend::{ServerOptions, serve_model};

    args.child.enter()?;
    let options = ServerOptions {
        listen: args.listen,
        model: args.model,
        slots: args.slots,
        queue: args.queue,
        context: args.context,
        max_tokens: args.max_tokens,
        tokens_per_second: args.tokens_per_second,
        ..ServerOptions::default()
    };
    block_on(async move {
        // The address first: one that is taken is known before a model is read.
        let listener = options.bind()?;
        let model = options.load()?;
        let address = listener
            .local_addr()
            .context("the listening socket has no address")?;
        args.child.announce(
            &Ready {
                ready: true,
                listen: Some(address.to_string()),
                ..Ready::default()
            },
            &format!("tokenlag backend: {} at http://{address}", model.name()),
        )?;
        let asked_to_end = args.child.asked_to_end(options.grace);
        serve_model(model, options, listener, asked_to_end).await?;
        Ok(Exit::Good)
    })
}

impl ChildArgs {
    /// Does what the rig asks before anything else is done: no thread may be started before its core is set.
    fn enter(&self) -> anyhow::Result<()> {
        if let Some(parent) = self.die_with_parent {
            signals::end_with(parent, Signal::SIGKILL)?;
        }
        if let Some(core) = self.pin {
            // A core that is not ours is no reason not to serve; the figures show what it cost.
            let _ = pinning::bind(core);
        }
        Ok(())
    }

    /// Says that everything is bound: to the rig in its own words, to people in theirs.
    fn announce(&self, ready: &Ready, words: &str) -> anyhow::Result<()> {
        if self.report_ready {
            let line = serde_json::to_string(ready).context("cannot write the addresses")?;
            output::result(&(line + "\n"))
        } else {
            output::note(words);
            Ok(())
        }
    }

    /// Returns when the process shall end: what is under way then has `grace`, unless the user is less patient.
    async fn asked_to_end(&self, grace: Duration) {
        if self.die_with_parent.is_some() {
            return signals::asked_by_parent().await;
        }
        let mut ends = Ends::listen();
        let (ask, asked) = oneshot::channel();
        // Beside the serving: a server that drains for another reason heeds the signals too.
        tokio::task::spawn_local(async move {
            ends.asked().await;
            output::note(&format!(
                "ending: exchanges under way have {} to finish; Ctrl-C again ends at once",
                humantime::format_duration(grace)
            ));
            // Where nobody listens, the end has begun already.
            let _ = ask.send(());
            ends.asked_again().await;
            std::process::exit(1);
        });
        let _ = asked.await;
    }
}

/// Refuses what the way to the upstream cannot do.
fn check_upstream(args: &ProxyArgs) -> Result<(), Usage> {
    let channel = args.upstream_channel;
    let encrypted = args.upstream.is_tls() || channel.is_encrypted_always();
    let what = if !channel.has_encoding(args.upstream_encoding) {
        let encoding = args.upstream_encoding;
        format!("--upstream-encoding {encoding} needs --upstream-channel quic")
    } else if args.upstream_trust.is_some() && !encrypted {
        "--upstream-trust: the way to the upstream is in clear; write --upstream as https, or reach it over http3 or quic".to_owned()
    } else {
        return Ok(());
    };
    Err(Usage(what))
}
