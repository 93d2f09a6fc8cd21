//! The load generator as it runs for users: one thread, one runtime, nothing of the instrument on it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokenlag_channel::tls::ClientTls;
use tokenlag_dialect::Dialect;
use tokenlag_loadgen::{
    Arrivals, BaseUrl, CellEnd, CellName, CellPlan, Connections, Endpoint, Lane, Limits, Phase,
    cell, stop,
};
use tokenlag_probes::{Row, StampSource, State, Transport};
use tokenlag_scripted::Doors;

use crate::asking;
use crate::cell::Cell;
use crate::cpu;

const SEED: u64 = 4;
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(20),
    exchange: Duration::from_secs(60),
};

/// Where each channel goes.
pub struct Lanes {
    pub http1: SocketAddr,
    pub tcp: SocketAddr,
    pub udp: SocketAddr,
    pub trust: ClientTls,
    pub stamp: StampSource,
}

impl Lanes {
    /// Straight to the instrument.
    pub fn through(doors: &Doors, stamp: StampSource) -> Result<Self, String> {
        let trust = ClientTls::trusting(doors.certificate().as_bytes());
        Ok(Self {
            http1: doors.tcp(),
            tcp: doors.tcp(),
            udp: doors.udp(),
            trust: trust.map_err(|error| error.to_string())?,
            stamp,
        })
    }

    pub fn lane(&self, transport: Transport) -> Result<Lane, String> {
        let address = match transport {
            Transport::HttpCold | Transport::Http => self.http1,
            _ if transport.is_encrypted_always() => self.udp,
            _ => self.tcp,
        };
        let base = BaseUrl::of(address.ip().to_string(), address.port());
        let mut endpoint =
            Endpoint::new(&base, Dialect::Responses, Vec::new(), LIMITS).stamped_by(self.stamp);
        if transport.is_encrypted_always() {
            endpoint = endpoint.over_tls(self.trust.clone());
        }
        Ok(Lane {
            row: Row::events(transport, State::Full),
            index: 0,
            endpoint,
        })
    }
}

/// What a run of the generator leaves.
pub struct Load {
    pub end: CellEnd,
    /// CPU time of its thread, in nanoseconds.
    pub cpu: u64,
}

/// Runs a cell on a thread of its own, bound to `core`. `number` tells its exchanges from those of other cells.
pub fn run(cell: Cell, lane: Lane, number: u32, core: usize) -> Result<Load, String> {
    let generator = std::thread::Builder::new()
        .name("generator".to_owned())
        .spawn(move || {
            cpu::bind(core);
            measure(cell, lane, number)
        })
        .map_err(|error| error.to_string())?;
    generator
        .join()
        .map_err(|_| "the generator panicked".to_owned())?
}

fn measure(cell: Cell, lane: Lane, number: u32) -> Result<Load, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let (_stopper, stop) = stop();
    let shared = asking::shared(
        SEED,
        Dialect::Responses,
        (cell.turns, cell.tokens),
        LIMITS,
        stop,
    );
    let plan = CellPlan {
        arrivals: Arrivals::Closed,
        concurrency: cell.streams as usize,
        sessions: Some(u64::from(cell.streams)),
        duration: None,
        turns: cell.turns,
        connections: Connections::PerSession,
    };
    let name = CellName {
        phase: Phase::Measured,
        block: number,
        order: 0,
        first_serial: u64::from(number) * 10_000,
    };
    let end = runtime.block_on(cell::run(Rc::new(shared), Rc::new(lane), plan, name));
    Ok(Load {
        end,
        cpu: cpu::of_this_thread(),
    })
}
