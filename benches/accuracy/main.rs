//! How far the figures are from the truth, beside a backend whose token times are known: cargo bench --bench accuracy.
//!
//! Arguments choose: cells (`64@1ms`, any streams and gap), ways (`direct`, `proxy`), channels (`http-cold`, `http`, `http2`,
//! `http3`, `ws`, `quic`), the channel of the proxy's upstream (`upstream=http2`), who stamps what comes (`stamp=kernel`), when
//! no further cell begins (`minutes=9`). Where AIPerf is installed it measures the same cells over HTTP/1.1 in the same run:
//! `--aiperf=COMMAND` names it, `tokenizer=DIRECTORY` gives it a tokenizer where it cannot fetch its own, `no-aiperf` leaves it out.
//! What is said of each column is in docs/accuracy.md.

mod aiperf;
#[path = "../asking.rs"]
mod asking;
mod cell;
mod cpu;
mod generator;
mod goals;
mod proxy;
mod raw;
#[path = "../stolen.rs"]
mod stolen;
mod table;
mod tally;
mod truth;
mod wanted;

use std::process::ExitCode;

use tokenlag_probes::{Clock, MonoClock};
use tokenlag_scripted::{Pace, Script, ScriptedBackend};

use crate::cell::{Bench, Cell, Path, Way};
use crate::cpu::Cores;
use crate::generator::Lanes;
use crate::proxy::RunningProxy;
use crate::wanted::Wanted;

fn main() -> ExitCode {
    let arguments = std::env::args().skip(1);
    let wanted = match Wanted::read(arguments.filter(|word| word != "--bench")) {
        Ok(wanted) => wanted,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    match run(&wanted) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(wanted: &Wanted) -> Result<(), String> {
    cpu::raise_open_files();
    let cores = Cores::of_this_process()?;
    // The instrument's threads stay where the one is that starts them.
    cpu::bind(cores.instrument);
    let address = ([127, 0, 0, 1], 0).into();
    let mut backend = ScriptedBackend::start_with(address, Script::default(), Pace::RealTime)
        .map_err(|error| format!("the scripted backend does not start: {error}"))?;
    let doors = backend
        .open_doors()
        .map_err(|error| format!("its doors do not open: {error}"))?;
    let mut lanes = Lanes::through(doors, wanted.stamp)?;
    lanes.http1 = backend.address();
    cores.bind_to_all();
    let proxy = match wanted.ways.contains(&Way::Proxy) {
        true => Some(RunningProxy::start(
            &mut backend,
            wanted.upstream,
            wanted.stamp,
            cores,
        )?),
        false => None,
    };
    let mut table = table::Table::begin(wanted, cores, backend.pace());
    let mut bench = Bench {
        backend: &backend,
        cores,
        serial: 0,
    };
    let ends = wanted.limit.map(|limit| MonoClock.now() + limit);
    let is_over = || ends.is_some_and(|ends| MonoClock.now() >= ends);
    // What needs the fewest cores comes first: where time runs out, it is for what overloads a small machine.
    for (way, cell, channel) in wanted.rows() {
        if is_over() {
            table.leave_out(cell, way, channel);
            continue;
        }
        let proxy = proxy.as_ref().filter(|_| way == Way::Proxy);
        let lane = match proxy {
            Some(proxy) => proxy.lane(channel),
            None => lanes.lane(channel),
        };
        let raw = way.has_raw(channel).then(|| backend.address());
        let measured = lane.and_then(|lane| bench.measure(cell, Path { lane, proxy, raw }));
        match measured {
            Ok((ours, raw)) => table.rows(cell, way, channel, &ours, raw.as_ref()),
            // The others are measured all the same.
            Err(message) => table.failed(cell, &format!("{} {channel}", way.name()), &message),
        }
    }
    if let Some(command) = wanted.aiperf() {
        for &cell in &wanted.cells {
            if is_over() {
                table.leave_out_aiperf(cell);
                continue;
            }
            match aiperf::measure(&command, &wanted.tokenizer, cell, &backend) {
                Ok(reported) => table.aiperf(cell, &reported),
                Err(message) => table.failed(cell, "AIPerf", &message),
            }
        }
    }
    match table.end() {
        0 => Ok(()),
        1 => Err("a cell failed: its line says why".to_owned()),
        count => Err(format!("{count} cells failed: their lines say why")),
    }
}

/// The cells that run where none is named: what the goals are stated for, and one that overloads two cores.
const CELLS: [Cell; 6] = [
    Cell::new(1, 1, 300, 3, 4),
    Cell::new(16, 1, 300, 2, 4),
    Cell::new(64, 1, 300, 2, 4),
    Cell::new(256, 10, 80, 2, 3),
    Cell::new(1_000, 20, 60, 2, 3),
    Cell::new(1_000, 10, 100, 2, 3),
];
