//! Proxies on streams: how much later each token comes, what it costs, and the memory.

use tokenlag_scripted::{Pace, Script, ScriptedBackend};

use crate::Bench;
use crate::cores;
use crate::pairs::{self, Figure};
use crate::sides::Side;
use crate::streams::{Door, Streams};
use crate::table::Goal;

/// Turns of each side.
const TURNS: usize = 10;

/// The backend with known token times, on the origin's core.
pub fn backend(bench: &Bench<'_>) -> Result<ScriptedBackend, String> {
    // Its threads stay where the one is that starts them.
    cores::bind(bench.ground.cores.origin)?;
    let address = ([127, 0, 0, 1], 0).into();
    let started = ScriptedBackend::start_with(address, Script::default(), Pace::RealTime);
    cores::bind(bench.ground.cores.generator)?;
    started.map_err(|error| format!("the scripted backend does not start: {error}"))
}

/// Compares them on streams, and prints what was found. The first side is direct, the second tokenlag.
pub fn compare(
    bench: &mut Bench<'_>,
    title: &str,
    backend: &ScriptedBackend,
    sides: &mut [(Side, Door)],
    streams: Streams,
    (goals, memory_counts): (&[Goal], bool),
) -> Result<(), String> {
    let figure = |name: &str, unit| Figure {
        name: name.to_owned(),
        unit,
        more: false,
        values: Vec::new(),
    };
    let figures = vec![
        figure("added token delay p50", "us"),
        figure("added token delay p99", "us"),
        figure("CPU/token", "us"),
        figure("resident memory", "MiB"),
    ];
    let streams = match bench.wanted.quick {
        true => Streams {
            tokens: 20,
            turns: 1,
            ..streams
        },
        false => streams,
    };
    let core = bench.ground.cores.generator;
    let turns = bench.wanted.turns(TURNS);
    backend.take_lateness();
    let measured = pairs::turns(sides, turns, figures, &mut bench.order, |(side, door)| {
        let found = streams.run(backend, door, side.process.as_ref(), core);
        let found = found.map_err(|error| format!("streams through {}: {error}", side.name))?;
        Ok(vec![
            found.p50 / 1e3,
            found.p99 / 1e3,
            found.cpu / 1e3,
            found.resident / f64::from(1 << 20),
        ])
    })?;
    let names: Vec<&str> = sides[1..].iter().map(|(side, _)| side.name).collect();
    bench.table.heading(title);
    for (place, figure) in measured.into_iter().enumerate() {
        let direct = format!("(without: {:.1} us)", figure.mean(0));
        let is_added = place < 2;
        let figure = if is_added { figure.added() } else { figure };
        // What the relay keeps is what it is for: a bare library has nothing to keep.
        let goals = if place < 3 || memory_counts {
            goals
        } else {
            &[]
        };
        bench
            .table
            .figure(title, &figure.without_first(), &names, 0, goals);
        if is_added {
            println!("{direct}");
        }
    }
    println!("the backend itself: {}", backend.take_lateness());
    Ok(())
}

/// The part of its own: in front of the scripted backend.
pub fn part(bench: &mut Bench<'_>) -> Result<(), String> {
    let backend = backend(bench)?;
    let mut sides = vec![
        Side::direct(backend.address()),
        Side::tokenlag(&bench.ground, &backend.url(), &["--no-quic"])?,
    ];
    bench.add_peers(&mut sides, backend.address());
    let with_door = |side: Side| {
        let door = Door::http(side.address);
        (side, door)
    };
    let mut sides: Vec<_> = sides.into_iter().map(with_door).collect();
    let goals = [Goal {
        against: "haproxy",
        ratio: 1.0,
    }];
    for cell in bench.wanted.cells.clone() {
        let title = format!("proxies, streams {}", cell.name());
        compare(bench, &title, &backend, &mut sides, cell, (&goals, true))?;
    }
    Ok(())
}
