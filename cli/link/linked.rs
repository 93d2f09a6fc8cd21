//! The link of a `compare` or a `load`: the load generator on the client's side, what it talks to on the server's.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use tokenlag_link::{Forward, Forwarder, Inheritable, Link, LinkSpec, LinkStats, Rights, WayStats};
use tokenlag_loadgen::BaseUrl;
use tokenlag_probes::{Floor, LinkActivity, Warning, WayActivity};

use super::{CLOCK, check_via, clear_left, home, parse, usage};
use crate::args::link::LinkedArgs;
use crate::pinning::{self, Pinning};

/// Names of no link at all.
const LOOPBACK: [&str; 2] = ["loopback", "0"];
/// Packets that are released so late at p99 are no fault of the emulator's yet, in nanoseconds; or a hundredth of the round
/// trip, where that is longer.
const LATE: u64 = 200_000;
/// Packets from which a p99 can be told.
const FEWEST: u64 = 100;
/// So much of any 100 ms is a relay that was at its end for that time.
const BUSY: f64 = 0.8;

/// A link that is up for a run.
pub struct Linked {
    link: Link,
    given: String,
    client: Inheritable,
    server: Inheritable,
    forwarder: Option<Forwarder>,
    /// When the load generator entered it, and what it had used by then.
    entered: Used,
}

/// What a run's link did, and why that is to be doubted.
#[derive(Debug)]
pub struct Emulated {
    /// What it did.
    pub did: LinkActivity,
    /// Reasons not to trust what was measured that lie in the emulator.
    pub doubts: Vec<Warning>,
}

/// A moment, and what a relay had used by then.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    at: u64,
    cpu: Option<u64>,
    work: Option<u64>,
    unread: Option<u64>,
}

impl Used {
    /// As it is now.
    pub(super) fn by(link: &Link) -> Self {
        Self {
            at: CLOCK(),
            cpu: link.cpu_ns(),
            work: link.work_ns(),
            unread: link.unread().ok(),
        }
    }
}

/// A run's link, as its record has it.
#[derive(Clone, Debug, Serialize)]
pub struct LinkPlan {
    /// As the user gave it.
    pub given: String,
    /// Every parameter, in the words of `--link`.
    pub parameters: String,
    /// How it is emulated.
    pub via: &'static str,
    /// The least round trip, in nanoseconds.
    pub round_trip_ns: u64,
    /// The least time from the server to the client, in nanoseconds.
    pub downlink_ns: u64,
    /// TCP's congestion control of the client's side.
    pub client_congestion_control: String,
    /// That of the server's side.
    pub server_congestion_control: String,
    /// Each new TCP connection begins without what earlier ones learned of the way, as where their slow start ended.
    pub new_connections_know_nothing: bool,
}

/// Where a process that is started for the run makes its doors.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The address.
    pub address: Ipv4Addr,
    /// The descriptor of its namespace, which the process inherits.
    pub descriptor: i32,
}

impl Place {
    /// The namespace's path, for the process that inherits it.
    pub fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.descriptor)
    }
}

impl Linked {
    /// Sets up the link that the flags ask for; `None`: they ask for none. Must be called before any thread is started.
    ///
    /// # Errors
    /// Its parameters make no sense, the process lacks rights, or the kernel does not do it.
    pub fn up(args: &LinkedArgs) -> anyhow::Result<Option<Self>> {
        let Some(given) = asked(args) else {
            return Ok(None);
        };
        check_via(args.link_via)?;
        let spec: LinkSpec = parse(given)?;
        clear_left();
        if Rights::acquire()? == Rights::UserNamespace {
            // A thread of a user namespace does not come back into the host's network, where backend and stamps are.
            let what = "--link needs CAP_SYS_ADMIN and CAP_NET_ADMIN in the host's own user namespace here; run the command by \
                        sudo, or: sudo setcap cap_sys_admin,cap_net_admin,cap_sys_nice+ep $(command -v tokenlag)";
            anyhow::bail!(what);
        }
        let link = Link::up(spec, CLOCK)?;
        let inherit = "cannot hand the link's namespaces to the processes of the run";
        Ok(Some(Self {
            client: link.client.namespace.to_inherit().context(inherit)?,
            server: link.server.namespace.to_inherit().context(inherit)?,
            given: given.to_owned(),
            link,
            forwarder: None,
            entered: Used::default(),
        }))
    }

    /// Brings `target` of the host behind the link; where it is reached from the client's side.
    ///
    /// # Errors
    /// No port of the server's side can be listened on.
    pub fn forward(&mut self, target: &BaseUrl) -> anyhow::Result<(String, u16)> {
        let forward = Forward {
            port: 0,
            host: target.host().to_owned(),
            to: target.port(),
        };
        let forwarder = Forwarder::start(&self.link.server, &[forward])?;
        let port = forwarder.ports()[0];
        self.forwarder = Some(forwarder);
        Ok((self.link.server.addresses.v4.to_string(), port))
    }

    /// Where the proxy's doors are made.
    pub fn server(&self) -> Place {
        Place {
            address: self.link.server.addresses.v4,
            descriptor: self.server.number(),
        }
    }

    /// Where what stands beside the load generator makes its doors, and dials from. They are its own loopback's: what goes
    /// through them does not go over the link.
    pub fn client(&self) -> Place {
        Place {
            address: Ipv4Addr::LOCALHOST,
            descriptor: self.client.number(),
        }
    }

    /// The calling thread, which is the load generator, goes to the client's side. What the link did up to now is forgotten.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn enter(&mut self) -> anyhow::Result<()> {
        let client = self.link.client.namespace.try_clone();
        let entered = client.and_then(home::leave_for);
        entered.context("cannot enter the client's side of the link")?;
        self.link.take_stats();
        self.entered = Used::by(&self.link);
        Ok(())
    }

    /// Has the relay run where the processes of the run do not, as far as there are cores for that. Must be called before this
    /// thread is bound to its own.
    pub fn keep_off(&self, pinning: Pinning) {
        if let Some(cores) = pinning.beside(&pinning::cores()) {
            // Where the system does not allow it the relay runs where it likes; the record says where it may.
            let _ = self.link.run_on(&cores);
        }
    }

    /// The cores that the relay may run on.
    pub fn relay_cores(&self) -> Vec<usize> {
        self.link.cores()
    }

    /// For the record.
    pub fn plan(&self) -> LinkPlan {
        let floor = self.floor();
        LinkPlan {
            given: self.given.clone(),
            parameters: self.parameters(),
            via: "tun",
            round_trip_ns: floor.round_trip_ns,
            downlink_ns: floor.downlink_ns,
            client_congestion_control: self.link.client.congestion_control.clone(),
            server_congestion_control: self.link.server.congestion_control.clone(),
            new_connections_know_nothing: self.link.client.forgets && self.link.server.forgets,
        }
    }

    /// Every parameter, in the words of `--link`.
    pub fn parameters(&self) -> String {
        self.link.spec().to_string()
    }

    /// What physics leaves.
    pub fn floor(&self) -> Floor {
        let spec = self.link.spec();
        Floor::of_link(spec.rtt(), spec.down.delay)
    }

    /// What the link did since [`Linked::enter`].
    pub fn emulated(&self) -> Emulated {
        emulated(&self.link, self.entered)
    }
}

/// What `link` did since then.
pub(super) fn emulated(link: &Link, since: Used) -> Emulated {
    let did = did(&link.stats(), since, Used::by(link));
    let rtt = link.spec().rtt().as_nanos() as u64;
    // Of a handful of packets the slowest says nothing.
    let p99 = did.release_error_p99_ns.filter(|_| did.held >= FEWEST);
    let late = p99.and_then(|p99| late(p99, rtt));
    let doubts = late
        .into_iter()
        .chain(bottleneck(did.missed(), did.relay_busiest_share));
    Emulated {
        doubts: doubts.collect(),
        did,
    }
}

/// The counts of `stats`, and what was used between two moments.
fn did(stats: &LinkStats, before: Used, after: Used) -> LinkActivity {
    let way = |way: &WayStats| WayActivity {
        packets: way.packets.all(),
        bytes: way.bytes,
        delivered: way.delivered,
        lost: way.lost.all(),
        dropped: way.queue_full,
        overflow: way.overflow,
        reordered: way.reordered,
    };
    let late = &stats.release_error;
    let quantile = |share| (!late.is_empty()).then(|| late.value_at_quantile(share));
    let between = |before: Option<u64>, after: Option<u64>| Some(after?.saturating_sub(before?));
    LinkActivity {
        span_ns: after.at.saturating_sub(before.at),
        up: way(&stats.up),
        down: way(&stats.down),
        held: late.len(),
        release_error_p50_ns: quantile(0.5),
        release_error_p99_ns: quantile(0.99),
        unread: between(before.unread, after.unread),
        relay_cpu_ns: between(before.cpu, after.cpu),
        relay_work_ns: between(before.work, after.work),
        relay_busiest_share: stats.busiest(),
    }
}

/// Packets were released so late at p99, over such a round trip, both in nanoseconds.
fn late(p99: u64, rtt: u64) -> Option<Warning> {
    let most = LATE.max(rtt / 100);
    (p99 > most).then(|| {
        let [late, most] = [p99, most].map(Duration::from_nanos);
        Warning {
            code: "link_late".to_owned(),
            message: format!(
                "the emulated link released packets {late:?} late at p99, more than the {most:?} that its round trip allows"
            ),
            remedy: "leave a core to the link: run less beside it, or take a machine with more cores".to_owned(),
        }
    })
}

/// The emulator dropped so many packets, and its relay worked for such a share of its busiest 100 ms.
fn bottleneck(dropped: u64, busy: f64) -> Option<Warning> {
    (dropped > 0 || busy > BUSY).then(|| Warning {
        code: "link_bottleneck".to_owned(),
        message: format!(
            "the emulated link was the bottleneck: its relay dropped {dropped} packets that the link would have carried, and \
             worked for {:.0} % of its busiest 100 ms",
            busy * 100.0
        ),
        remedy: "give the link a rate that the relay keeps up with, as in --link ...,rate=500mbit".to_owned(),
    })
}

/// The link that is asked for, unless that is none at all.
fn asked(args: &LinkedArgs) -> Option<&str> {
    let given = args.link.as_deref()?;
    (!LOOPBACK.contains(&given.trim())).then_some(given)
}

/// Refuses what cannot be behind a link: a proxy whose doors are made already.
///
/// # Errors
/// Wrong usage, if `proxy` is given beside a link.
pub fn check_proxy(args: &LinkedArgs, proxy: Option<&BaseUrl>) -> anyhow::Result<()> {
    match (asked(args), proxy) {
        (Some(_), Some(proxy)) => Err(usage(&format!(
            "--link puts the doors of a proxy behind the link as it starts it, and the one at {proxy} has its doors already; \
             leave --proxy out, or run that proxy and this command behind a link of their own (tokenlag link --forward)"
        ))
        .into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emulator_that_was_not_up_to_it_is_told() {
        assert_eq!(late(200_000, 0), None);
        assert_eq!(late(590_000, 60_000_000), None, "1 % of 60 ms");
        let told = late(700_000, 60_000_000).unwrap();
        assert!(
            told.message.contains("700µs") && told.message.contains("600µs"),
            "{}",
            told.message
        );
        assert_eq!(bottleneck(0, 0.79), None);
        for (dropped, busy) in [(1, 0.1), (0, 0.81)] {
            let told = bottleneck(dropped, busy).unwrap();
            let page = include_str!("../../docs/verdict.md");
            assert!(page.contains(&format!("### `{}`", told.code)));
            assert!(
                told.message.contains(&format!("{dropped} packets")),
                "{}",
                told.message
            );
        }
    }
}
