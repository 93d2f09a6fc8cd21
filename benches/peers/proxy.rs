//! Proxies on plain requests: what each adds to their latency, what they cost, and how many go through.

use std::io;
use std::time::Duration;

use crate::Bench;
use crate::origin::{Origin, WHOLE};
use crate::pairs::{self, Figure};
use crate::process::Process;
use crate::requests::{as_many_as_go, at_rate, one_by_one};
use crate::sides::Side;
use crate::table::Goal;

/// Turns of each side.
const TURNS: usize = 12;
/// Connections of the rows that have more than one.
const CONNECTIONS: usize = 64;
/// 2,000 requests a second.
const GAP: Duration = Duration::from_micros(500);

/// Compares them on requests, and prints what was found. The first side is direct, the second tokenlag.
pub fn compare(
    bench: &mut Bench<'_>,
    title: &str,
    origin: &Origin,
    sides: &mut [Side],
    goals: &[Goal],
) -> Result<(), String> {
    let figure = |name: &str, unit, more| Figure {
        name: name.to_owned(),
        unit,
        more,
        values: Vec::new(),
    };
    let figures = vec![
        figure("added latency p50", "us", false),
        figure("added latency p99", "us", false),
        figure("CPU/request at 2,000/s", "us", false),
        figure("most requests at 64", "k/s", true),
        figure("CPU/request at that", "us", false),
        figure("its core busy at that", "%", false),
    ];
    let (requests, span) = match bench.wanted.quick {
        true => (500, Duration::from_millis(300)),
        false => (3_000, Duration::from_secs(2)),
    };
    let turns = bench.wanted.turns(TURNS);
    let measured = pairs::turns(sides, turns, figures, &mut bench.order, |side| {
        measure(side, origin, requests, span)
            .map_err(|error| format!("requests through {}: {error}", side.name))
    })?;
    let names: Vec<&str> = sides.iter().map(|side| side.name).collect();
    bench.table.heading(title);
    for (place, figure) in measured.into_iter().enumerate() {
        match place {
            // What it adds is nothing where there is no proxy: the line tells what is added to.
            0 | 1 => {
                let direct = format!("{} without: {:.1} us", &figure.name[6..], figure.mean(0));
                bench.table.figure(
                    title,
                    &figure.added().without_first(),
                    &names[1..],
                    0,
                    goals,
                );
                println!("({direct})");
            }
            // Nothing of the origin's is measured, and how busy is no figure of merit.
            5 => bench
                .table
                .figure(title, &figure.without_first(), &names[1..], 0, &[]),
            3 => bench.table.figure(title, &figure, &names, 1, goals),
            _ => bench
                .table
                .figure(title, &figure.without_first(), &names[1..], 0, goals),
        }
    }
    Ok(())
}

fn measure(side: &Side, origin: &Origin, requests: usize, span: Duration) -> io::Result<Vec<f64>> {
    let spent = || side.process.as_ref().map_or(0, Process::cpu);
    let trips = one_by_one(side.address, requests)?;
    let before = spent();
    let sent = at_rate(side.address, CONNECTIONS, GAP, span)?;
    let idle = spent().saturating_sub(before) as f64 / sent as f64;
    let (before, answered) = (spent(), origin.requests());
    let flood = as_many_as_go(side.address, CONNECTIONS, span)?;
    let busy = spent().saturating_sub(before) as f64;
    if origin.requests() - answered < flood.requests {
        return Err(io::Error::other("it answered without the origin"));
    }
    Ok(vec![
        trips.p50 / 1e3,
        trips.p99 / 1e3,
        idle / 1e3,
        flood.requests as f64 / flood.nanos * 1e6,
        busy / flood.requests as f64 / 1e3,
        busy / flood.nanos * 100.0,
    ])
}

/// The part of its own: in front of an origin that does next to nothing.
pub fn part(bench: &mut Bench<'_>) -> Result<(), String> {
    let origin = Origin::start("application/json", WHOLE, bench.ground.cores.origin)?;
    let url = format!("http://{}", origin.address());
    let mut sides = vec![
        Side::direct(origin.address()),
        Side::tokenlag(&bench.ground, &url, &["--no-quic"])?,
    ];
    bench.add_peers(&mut sides, origin.address());
    let goals = [Goal {
        against: "haproxy",
        ratio: 1.0,
    }];
    compare(
        bench,
        "proxies, plain requests",
        &origin,
        &mut sides,
        &goals,
    )
}
