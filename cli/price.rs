//! What a row's turn cost: CPU time, waits, context switches and allocations of the generator and of the row's proxies, from
//! before the turn to after it. Nothing is asked while it lasts.

use std::collections::BTreeMap;
use std::time::Duration;

use tokenlag_channel::SocketWatch;
use tokenlag_loadgen::BaseUrl;
use tokenlag_probes::{Counters, ProcessUsage, ProxyUsage, SocketCounts, Sockets};

use crate::allocations;
use crate::cpu::{Side, Threads, Usage, modes_of_this_thread};
use crate::http;

/// How long a proxy may take to say what it used.
const PATIENCE: Duration = Duration::from_secs(2);

/// What generator and proxies had used at a moment. What is not known is `None`.
#[derive(Clone, Debug, Default)]
pub struct Account {
    client: Option<Usage>,
    client_modes: Option<ProcessUsage>,
    /// By process.
    proxy: Option<BTreeMap<u32, Threads>>,
    told: Option<ProxyUsage>,
    /// What asking the proxies once makes them allocate.
    asking: u64,
    /// The client's sockets.
    sockets: SocketCounts,
}

impl Account {
    /// Before a row's turn: what its proxies say themselves is asked first, and the client's own CPU time is read last, so that
    /// nothing of the asking and reading is counted.
    pub async fn opened(pids: &[u32], admins: &[BaseUrl], watch: &SocketWatch) -> Self {
        let mut told = ask(admins).await;
        let mut asking = 0;
        if let Some(first) = told.as_ref().and_then(allocated) {
            // The answer of which the count is part is made after the count, and the next question read before the next one:
            // between two counts lies one asking, which is none of what the row used.
            told = ask(admins).await;
            let second = told.as_ref().and_then(allocated);
            asking = second.map_or(0, |second| second.saturating_sub(first));
        }
        let proxy = read(pids);
        let client_modes = modes();
        Self {
            sockets: watch.so_far(),
            client: Usage::of_this_thread(Side::Before),
            client_modes,
            proxy,
            told,
            asking,
        }
    }

    /// After a row's turn: the other way round.
    pub fn now(pids: &[u32], watch: &SocketWatch) -> Self {
        Self {
            client: Usage::of_this_thread(Side::After),
            client_modes: modes(),
            proxy: read(pids),
            told: None,
            asking: 0,
            sockets: watch.so_far(),
        }
    }

    /// Then the proxies are asked.
    pub async fn closed(self, admins: &[BaseUrl]) -> Self {
        Self {
            told: ask(admins).await,
            ..self
        }
    }

    /// What each of the proxies used since `before`, by process.
    pub fn proxies_since(&self, before: &Self) -> Option<BTreeMap<u32, Usage>> {
        let (now, then) = self.proxy.as_ref().zip(before.proxy.as_ref())?;
        let since = |(pid, now): (&u32, &Threads)| Some((*pid, now.since(then.get(pid)?)));
        now.iter().map(since).collect()
    }

    /// Enters what was used since `before`, and gives what the sockets did below their bytes.
    pub fn enter_since(&self, before: &Self, counters: &mut Counters) -> Sockets {
        let told = (self.told.as_ref().zip(before.told.as_ref()))
            .map(|(now, then)| now.since(then))
            .unwrap_or_default();
        let known = self.told.is_some() && before.told.is_some();
        let modes =
            |now: Option<ProcessUsage>, then: Option<ProcessUsage>| Some(now?.since(&then?));
        let client = (self.client.zip(before.client)).map(|(now, then)| now.since(&then));
        let client_modes = modes(self.client_modes, before.client_modes);
        let proxy = self.proxies_since(before).map(|by_process| {
            let mut sum = Usage::default();
            by_process.values().for_each(|used| sum.add(used));
            sum
        });
        let proxy_modes = known.then_some(told.process);
        let split = |used: Option<Usage>, modes: Option<ProcessUsage>| {
            used.zip(modes)
                .and_then(|(used, modes)| modes.share(used.cpu_ns))
        };
        counters.client_cpu_ns = client.map(|used| used.cpu_ns);
        (counters.client_cpu_user_ns, counters.client_cpu_system_ns) =
            split(client, client_modes).unzip();
        counters.client_run_queue = client.map(|used| used.run_queue);
        counters.client_context_switches = client.map(|used| used.switches());
        counters.client_involuntary_switches = client.map(|used| used.involuntary_switches);
        counters.client_allocations = client_modes.and_then(|modes| modes.allocations);
        counters.proxy_cpu_ns = proxy.map(|used| used.cpu_ns);
        (counters.proxy_cpu_user_ns, counters.proxy_cpu_system_ns) =
            split(proxy, proxy_modes).unzip();
        counters.proxy_run_queue = proxy.map(|used| used.run_queue);
        counters.proxy_context_switches = proxy.map(|used| used.switches());
        counters.proxy_involuntary_switches = proxy.map(|used| used.involuntary_switches);
        let proxy_allocations = proxy_modes.and_then(|modes| modes.allocations);
        counters.proxy_allocations =
            proxy_allocations.map(|count| count.saturating_sub(before.asking));
        let sockets = Sockets {
            client: Some(self.sockets.since(&before.sockets)),
            door: told.door,
            upstream: told.upstream,
        };
        enter_sockets(&sockets, counters);
        sockets
    }
}

/// Enters what is counted of sockets as a price: packets and calls, and what was lost.
fn enter_sockets(sockets: &Sockets, counters: &mut Counters) {
    if let Some(client) = &sockets.client {
        counters.packets_sent = Some(client.packets_sent);
        counters.packets_received = Some(client.packets_received);
        counters.packets_retransmitted = Some(client.packets_retransmitted);
    }
    let (Some(door), Some(upstream)) = (&sockets.door, &sockets.upstream) else {
        return;
    };
    let mut proxy = door.clone();
    proxy.add(upstream);
    counters.proxy_reads = Some(proxy.reads);
    counters.proxy_writes = Some(proxy.writes);
    counters.proxy_packets_sent = Some(proxy.packets_sent);
    counters.proxy_packets_received = Some(proxy.packets_received);
    counters.proxy_packets_retransmitted = Some(proxy.packets_retransmitted);
    counters.proxy_packets_lost = Some(proxy.packets_lost);
    counters.proxy_congestion_events = Some(proxy.congestion_events);
}

/// What the calling thread used in either mode, and what this process allocated.
fn modes() -> Option<ProcessUsage> {
    modes_of_this_thread().map(|modes| ProcessUsage {
        allocations: allocations::so_far(),
        ..modes
    })
}

/// What the threads of the processes `pids` used; `None` where there is no process, or the system does not tell of one.
fn read(pids: &[u32]) -> Option<BTreeMap<u32, Threads>> {
    let of = |pid: &u32| Some((*pid, Threads::of([*pid])?));
    (!pids.is_empty())
        .then(|| pids.iter().map(of).collect())
        .flatten()
}

/// What the processes at `admins` say that they used, together. `None` where one of them does not: without it the figures that
/// need it are absent, and the run goes on.
async fn ask(admins: &[BaseUrl]) -> Option<ProxyUsage> {
    let mut sum: Option<ProxyUsage> = None;
    for admin in admins {
        let body = http::get(admin, None, "/usage", &[], PATIENCE).await.ok()?;
        let usage: ProxyUsage = serde_json::from_slice(&body).ok()?;
        sum = Some(match sum {
            Some(sum) => sum.and(&usage),
            None => usage,
        });
    }
    sum
}

fn allocated(usage: &ProxyUsage) -> Option<u64> {
    usage.process.allocations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_share_out_what_the_scheduler_counted() {
        let at = |cpu_ns, user_ns, system_ns| Account {
            client: Some(Usage {
                cpu_ns,
                involuntary_switches: cpu_ns / 1_000,
                ..Usage::default()
            }),
            client_modes: Some(ProcessUsage {
                user_ns,
                system_ns,
                allocations: None,
            }),
            ..Account::default()
        };
        let mut counters = Counters::default();
        let _ = at(11_000, 4_000, 9_000).enter_since(&at(1_000, 1_000, 0), &mut counters);
        assert_eq!(counters.client_cpu_ns, Some(10_000));
        assert_eq!(counters.client_cpu_user_ns, Some(2_500));
        assert_eq!(counters.client_cpu_system_ns, Some(7_500));
        assert_eq!(counters.client_involuntary_switches, Some(10));
        assert_eq!(counters.proxy_cpu_ns, None);
        assert_eq!(counters.proxy_cpu_user_ns, None);
        assert_eq!(counters.proxy_reads, None);
    }

    #[test]
    fn each_proxy_has_what_it_used_itself() {
        let own = [std::process::id()];
        let at = || Account {
            proxy: read(&own),
            ..Account::default()
        };
        let before = at();
        let mut sum = 0u64;
        for i in 0..20_000_000u64 {
            sum = std::hint::black_box(sum.wrapping_add(i));
        }
        let after = at();
        let by_process = after.proxies_since(&before).unwrap();
        let mut counters = Counters::default();
        let _ = after.enter_since(&before, &mut counters);
        assert!(by_process[&own[0]].cpu_ns > 0);
        assert_eq!(by_process.len(), 1);
        assert_eq!(counters.proxy_cpu_ns, Some(by_process[&own[0]].cpu_ns));
        assert_eq!(read(&[own[0], u32::MAX]), None);
    }

    #[test]
    fn a_proxys_sockets_and_allocations_are_entered_without_the_asking() {
        let at = |count: u64| {
            let counts = SocketCounts {
                reads: count,
                packets_retransmitted: count / 10,
                ..SocketCounts::default()
            };
            Account {
                told: Some(ProxyUsage {
                    process: ProcessUsage {
                        allocations: Some(count),
                        ..ProcessUsage::default()
                    },
                    door: Some(counts.clone()),
                    upstream: Some(counts.clone()),
                }),
                asking: 30,
                sockets: counts,
                ..Account::default()
            }
        };
        let mut counters = Counters::default();
        let sockets = at(1_100).enter_since(&at(100), &mut counters);
        assert_eq!(counters.proxy_allocations, Some(970));
        assert_eq!(counters.proxy_reads, Some(2_000));
        assert_eq!(counters.packets_retransmitted, Some(100));
        assert_eq!(sockets.door.unwrap().reads, 1_000);
    }
}
