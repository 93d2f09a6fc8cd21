//! What a row's turn cost: CPU time, waits, context switches and allocations of the generator and of the row's proxies, from
//! before the turn to after it. Nothing is asked while it lasts.

use std::time::Duration;

use tokenlag_loadgen::BaseUrl;
use tokenlag_probes::{Counters, ProcessUsage};

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
    proxy: Option<Threads>,
    proxy_modes: Option<ProcessUsage>,
}

impl Account {
    /// Before a row's turn: what its proxies say themselves is asked first, and the client's own CPU time is read last, so that
    /// nothing of the asking and reading is counted.
    pub async fn opened(pids: &[u32], admins: &[BaseUrl]) -> Self {
        let proxy_modes = told(admins).await;
        let proxy = read(pids);
        let client_modes = modes();
        Self {
            client: Usage::of_this_thread(Side::Before),
            client_modes,
            proxy,
            proxy_modes,
        }
    }

    /// After a row's turn: the other way round.
    pub fn now(pids: &[u32]) -> Self {
        Self {
            client: Usage::of_this_thread(Side::After),
            client_modes: modes(),
            proxy: read(pids),
            proxy_modes: None,
        }
    }

    /// Then the proxies are asked.
    pub async fn closed(self, admins: &[BaseUrl]) -> Self {
        Self {
            proxy_modes: told(admins).await,
            ..self
        }
    }

    /// Enters what was used since `before`.
    pub fn enter_since(&self, before: &Self, counters: &mut Counters) {
        let modes =
            |now: Option<ProcessUsage>, then: Option<ProcessUsage>| Some(now?.since(&then?));
        let client = (self.client.zip(before.client)).map(|(now, then)| now.since(&then));
        let client_modes = modes(self.client_modes, before.client_modes);
        let proxy =
            (self.proxy.as_ref().zip(before.proxy.as_ref())).map(|(now, then)| now.since(then));
        let proxy_modes = modes(self.proxy_modes, before.proxy_modes);
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
        counters.proxy_allocations = proxy_modes.and_then(|modes| modes.allocations);
    }
}

/// What the calling thread used in either mode, and what this process allocated.
fn modes() -> Option<ProcessUsage> {
    modes_of_this_thread().map(|modes| ProcessUsage {
        allocations: allocations::so_far(),
        ..modes
    })
}

/// What the threads of the processes `pids` used; `None` where there is no process, or the system does not tell.
fn read(pids: &[u32]) -> Option<Threads> {
    (!pids.is_empty())
        .then(|| Threads::of(pids.iter().copied()))
        .flatten()
}

/// What the processes at `admins` say that they used, together. `None` where one of them does not: without it the figures that
/// need it are absent, and the run goes on.
async fn told(admins: &[BaseUrl]) -> Option<ProcessUsage> {
    let mut sum: Option<ProcessUsage> = None;
    for admin in admins {
        let body = http::get(admin, None, "/usage", &[], PATIENCE).await.ok()?;
        let usage: ProcessUsage = serde_json::from_slice(&body).ok()?;
        sum = Some(sum.map_or(usage, |sum| sum.and(&usage)));
    }
    sum
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
        at(11_000, 4_000, 9_000).enter_since(&at(1_000, 1_000, 0), &mut counters);
        assert_eq!(counters.client_cpu_ns, Some(10_000));
        assert_eq!(counters.client_cpu_user_ns, Some(2_500));
        assert_eq!(counters.client_cpu_system_ns, Some(7_500));
        assert_eq!(counters.client_involuntary_switches, Some(10));
        assert_eq!(counters.proxy_cpu_ns, None);
        assert_eq!(counters.proxy_cpu_user_ns, None);
    }
}
