//! One cell: so many streams, a token each so many milliseconds, over one channel; what was measured and what was true.

use std::time::Duration;

use tokenlag_loadgen::Lane;
use tokenlag_probes::{TakenWakeups, Transport, join};
use tokenlag_scripted::{Lateness, Script, ScriptedBackend};

use crate::cpu::{self, Cores};
use crate::generator::{self, Load};
use crate::proxy::RunningProxy;
use crate::truth::{Errors, compare};

/// Until the first token of every reply.
pub const TTFT: Duration = Duration::from_millis(50);
/// Of the machine's time, what is left where nothing is short of it.
const SPARE: f64 = 0.92;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Direct,
    Proxy,
}

impl Way {
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Proxy => "proxy",
        }
    }

    /// A connection for each request is what the proxy is compared with; nothing else is measured by it.
    pub fn has(self, channel: Transport) -> bool {
        self == Self::Proxy || channel != Transport::HttpCold
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    pub streams: u32,
    pub gap: Duration,
    /// Of each reply.
    pub tokens: u32,
    /// Replies of each stream, one after the other.
    pub turns: u32,
}

/// What a cell found.
pub struct Found {
    pub errors: Errors,
    pub late: Lateness,
    /// Cores that each was busy on, on the average.
    pub instrument: f64,
    pub generator: f64,
    pub proxy: f64,
    /// How long what came lay in the kernel until the generator read it; empty where the reads are the stamps.
    pub wakeups: TakenWakeups,
    pub overload: bool,
    /// Why something did not complete.
    pub trouble: Option<String>,
}

impl Cell {
    pub const fn new(streams: u32, gap_millis: u64, tokens: u32, turns: u32) -> Self {
        Self {
            streams,
            gap: Duration::from_millis(gap_millis),
            tokens,
            turns,
        }
    }

    pub fn script(self) -> Script {
        Script {
            ttft: TTFT,
            gap: self.gap,
            tokens: Some(self.tokens),
            ..Script::default()
        }
    }

    /// Runs it: first a little, so that nothing is done for the first time, then as a whole.
    pub fn measure(
        self,
        backend: &ScriptedBackend,
        lane: Lane,
        proxy: Option<&RunningProxy>,
        way: Way,
        pinned: Cores,
        serial: &mut u32,
    ) -> Result<Found, String> {
        backend.set_script(self.script());
        let warm_up = Cell {
            streams: self.streams.min(8),
            tokens: 20,
            turns: 1,
            ..self
        };
        *serial += 2;
        generator::run(warm_up, lane.clone(), *serial, pinned.generator)?;
        backend.take_emissions();
        backend.take_requests();
        backend.take_lateness();
        let (all, of_proxy) = (cpu::of_the_process(), cpu::of_threads("proxy-"));
        let Load { end, cpu } = generator::run(self, lane, *serial + 1, pinned.generator)?;
        let took = end.ended.since(end.started) as f64;
        let cores = |nanos: u64| nanos as f64 / took;
        let of_proxy = cpu::of_threads("proxy-") - of_proxy;
        let all = cpu::of_the_process() - all;
        let late = backend.take_lateness();
        let emissions = backend.take_emissions();
        let requests = backend.take_requests();
        let trouble = end.troubles.iter().next();
        let trouble = trouble.map(|(what, times)| format!("{what} ({times} times)"));
        let hops = match proxy.filter(|_| way == Way::Proxy) {
            Some(proxy) => {
                let traces = end.exchanges.iter().map(|exchange| exchange.trace);
                proxy.records(traces.collect())?
            }
            None => Vec::new(),
        };
        let joined = join(end.exchanges, hops, 0);
        let errors = compare(&joined.exchanges, &emissions, &requests);
        let busy = cores(all) / pinned.count as f64;
        Ok(Found {
            errors,
            late,
            instrument: cores(all.saturating_sub(of_proxy + cpu)),
            generator: cores(cpu),
            proxy: cores(of_proxy),
            wakeups: end.wakeups,
            overload: busy > SPARE || late.p99 > self.gap.as_nanos() as i64,
            trouble,
        })
    }
}
