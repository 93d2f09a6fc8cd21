//! One cell: so many streams, a token each so many milliseconds, over one channel; what was measured and what was true.

use std::net::SocketAddr;
use std::time::Duration;

use tokenlag_loadgen::Lane;
use tokenlag_probes::{Transport, join};
use tokenlag_scripted::{Script, ScriptedBackend};

use crate::cpu::Cores;
use crate::generator::{self, Load};
use crate::proxy::RunningProxy;
use crate::raw::{self, RawLoad};
use crate::tally::{Found, Meter, Tally};

/// Until the first token of every reply.
pub const TTFT: Duration = Duration::from_millis(50);

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

    /// Where the raw-socket client takes turns with the generator: it speaks HTTP/1.1, to the instrument.
    pub fn has_raw(self, channel: Transport) -> bool {
        self == Self::Direct && channel == Transport::Http
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    pub streams: u32,
    pub gap: Duration,
    /// Of each reply.
    pub tokens: u32,
    /// Replies of each stream in a round, one after the other.
    pub turns: u32,
    /// Rounds in which clients take turns; one where there is one client, with half of all these replies.
    pub rounds: u32,
}

/// A way to a channel's accepting end.
pub struct Path<'a> {
    pub lane: Lane,
    /// Where it leads through.
    pub proxy: Option<&'a RunningProxy>,
    /// Where the raw-socket client dials, if it takes turns.
    pub raw: Option<SocketAddr>,
}

/// Where cells are measured, and how many rounds there were before.
pub struct Bench<'a> {
    pub backend: &'a ScriptedBackend,
    pub cores: Cores,
    pub serial: u32,
}

impl Cell {
    pub const fn new(streams: u32, gap_millis: u64, tokens: u32, turns: u32, rounds: u32) -> Self {
        Self {
            streams,
            gap: Duration::from_millis(gap_millis),
            tokens,
            turns,
            rounds,
        }
    }

    pub fn name(self) -> String {
        format!("{}@{}ms", self.streams, self.gap.as_millis())
    }

    pub fn script(self) -> Script {
        Script {
            ttft: TTFT,
            gap: self.gap,
            tokens: Some(self.tokens),
            ..Script::default()
        }
    }

    /// As it is measured where nothing takes turns with it.
    fn in_one_round(self) -> Self {
        Self {
            turns: (self.turns * self.rounds).div_ceil(2),
            rounds: 1,
            ..self
        }
    }

    /// How long all its rounds are by their schedules.
    pub fn span(self, with_raw: bool) -> Duration {
        let reply = TTFT + self.gap * self.tokens;
        match with_raw {
            true => reply * (self.turns * self.rounds * 2),
            false => reply * self.in_one_round().turns,
        }
    }
}

impl Bench<'_> {
    /// Runs a cell: first a little, so that nothing is done for the first time, then as a whole. Beside it, in turns, the
    /// raw-socket client.
    pub fn measure(
        &mut self,
        cell: Cell,
        path: Path<'_>,
    ) -> Result<(Found, Option<Found>), String> {
        self.backend.set_script(cell.script());
        let warm_up = Cell {
            streams: cell.streams.min(8),
            tokens: 20,
            turns: 1,
            ..cell
        };
        generator::run(
            warm_up,
            path.lane.clone(),
            self.number(),
            self.cores.generator,
        )?;
        let cell = match path.raw {
            Some(_) => cell,
            None => cell.in_one_round(),
        };
        let (mut ours, mut raw) = (Tally::default(), Tally::default());
        for _ in 0..cell.rounds {
            self.ours(cell, &path, &mut ours)?;
            if let Some(address) = path.raw {
                self.raw(cell, address, &mut raw)?;
            }
        }
        let gap = cell.gap.as_nanos() as f64;
        let raw = path.raw.map(|_| raw.finish(gap, self.cores));
        Ok((ours.finish(gap, self.cores), raw))
    }

    /// A round of the load generator.
    fn ours(&mut self, cell: Cell, path: &Path<'_>, tally: &mut Tally) -> Result<(), String> {
        let number = self.number();
        self.forget();
        let meter = Meter::start();
        let Load { end, cpu } =
            generator::run(cell, path.lane.clone(), number, self.cores.generator)?;
        tally.book(&meter, cpu);
        tally.book_wakeups(end.wakeups);
        let trouble = end.troubles.iter().next();
        tally.book_trouble(trouble.map(|(what, times)| format!("{what} ({times} times)")));
        let hops = match path.proxy {
            Some(proxy) => {
                let traces = end.exchanges.iter().map(|exchange| exchange.trace);
                proxy.records(traces.collect())?
            }
            None => Vec::new(),
        };
        let joined = join(end.exchanges, hops, 0);
        let mark = tally.all.mark();
        let (emissions, requests) = (self.backend.take_emissions(), self.backend.take_requests());
        tally
            .all
            .add_joined(&joined.exchanges, &emissions, &requests);
        tally.close(tally.all.glance(mark), &self.backend.take_late());
        Ok(())
    }

    /// A round of the raw-socket client.
    fn raw(&mut self, cell: Cell, address: SocketAddr, tally: &mut Tally) -> Result<(), String> {
        let number = self.number();
        self.forget();
        let meter = Meter::start();
        let RawLoad {
            replies,
            cpu,
            trouble,
        } = raw::run(cell, address, number, self.cores.generator)?;
        tally.book(&meter, cpu);
        tally.book_trouble(trouble);
        let mark = tally.all.mark();
        let emissions = self.backend.take_emissions();
        for (trace, tokens) in &replies {
            tally.all.add(*trace, tokens, &emissions);
        }
        tally.close(tally.all.glance(mark), &self.backend.take_late());
        Ok(())
    }

    fn number(&mut self) -> u32 {
        self.serial += 1;
        self.serial
    }

    /// Nothing of what was before is to be in the round's log.
    fn forget(&self) {
        self.backend.take_emissions();
        self.backend.take_requests();
        self.backend.take_late();
    }
}
