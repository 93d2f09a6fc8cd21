//! Load generators: what a request and a token cost the client, while its run is in full swing.

use std::cell::Cell;
use std::time::Duration;

use tokenlag_probes::{Clock, MonoClock};

use crate::Bench;
use crate::generators::{self, CONNECTIONS, Generator};
use crate::origin::{Origin, STREAM};
use crate::pairs::{self, Figure};
use crate::sse;
use crate::streams::Streams;
use crate::table::Goal;

/// Turns of each generator on requests.
const TURNS: usize = 10;
/// The same on streams: AIPerf takes half a minute for each.
const STREAM_TURNS: usize = 6;
/// Requests after which a generator is warm.
const WARM: u64 = 2_000;
/// How long one may take until it is, or until a cell of streams is over.
const PATIENCE: Duration = Duration::from_secs(180);
/// A rate at which AIPerf keeps up on one core.
const STREAMS: Streams = Streams {
    count: 32,
    gap: Duration::from_millis(10),
    tokens: 200,
    turns: 10,
};

/// The part.
pub fn part(bench: &mut Bench<'_>) -> Result<(), String> {
    let peers = ["oha", "wrk", "aiperf"];
    let [oha, wrk, aiperf] = peers.map(|name| bench.wanted.has_peer(name));
    if oha || wrk {
        requests(bench)?;
    }
    if aiperf {
        streams(bench)?;
    }
    Ok(())
}

fn requests(bench: &mut Bench<'_>) -> Result<(), String> {
    let origin = Origin::start("text/event-stream", STREAM, bench.ground.cores.origin)?;
    let url = format!("http://{}", origin.address());
    let folder = bench.ground.folder.to_owned();
    let more = ["--isl", "16", "--osl", "1", "--concurrency", CONNECTIONS];
    let more = [&more[..], &["--duration", "10m"]].concat();
    let mut generators = vec![generators::tokenlag(
        &folder.join("requests"),
        url.clone(),
        &more,
    )];
    let place = (bench.ground.cores.tested, &*folder);

    // Whatever tokenlag sends, the others send too.
    let mut first = generators[0].start(place)?;
    let deadline = MonoClock.now() + PATIENCE;
    first.wait_until(|| origin.requests() >= WARM, deadline)?;
    drop(first);
    let body = folder.join("body.json");
    generators::write(&body, &origin.body())?;
    let target = format!("{url}/v1/chat/completions");
    for name in ["oha", "wrk"] {
        if bench.wanted.has_peer(name) {
            let generator = match name {
                "oha" => generators::oha(&body, &target),
                _ => generators::wrk(&body, &target),
            };
            match generator {
                Ok(generator) => generators.push(generator),
                Err(why) => bench.table.absent(name, &why),
            }
        }
    }
    let figures = vec![
        figure("CPU/request", "us", false),
        figure("requests", "k/s", true),
    ];
    let span = Duration::from_millis(if bench.wanted.quick { 500 } else { 3_000 });
    let turns = bench.wanted.turns(TURNS);
    let measured = pairs::turns(
        &mut generators,
        turns,
        figures,
        &mut bench.order,
        |generator| {
            let mut process = generator.start(place)?;
            let warm = origin.requests() + WARM;
            let deadline = MonoClock.now() + PATIENCE;
            process.wait_until(|| origin.requests() >= warm, deadline)?;
            let (start, spent, answered) = (MonoClock.now(), process.cpu(), origin.requests());
            std::thread::sleep(span);
            let count = (origin.requests() - answered) as f64;
            let (end, spent) = (MonoClock.now(), process.cpu().saturating_sub(spent));
            if process.has_ended() {
                return Err(process.obituary());
            }
            if count == 0.0 {
                return Err(format!("{} has stopped asking", generator.name));
            }
            Ok(vec![
                spent as f64 / count / 1e3,
                count / end.since(start) as f64 * 1e6,
            ])
        },
    )?;
    let goals = [Goal {
        against: "oha",
        ratio: 1.0,
    }];
    print(
        bench,
        "load generators, plain requests",
        &generators,
        measured,
        &goals,
    );
    Ok(())
}

fn streams(bench: &mut Bench<'_>) -> Result<(), String> {
    let backend = sse::backend(bench)?;
    let cell = Streams {
        turns: if bench.wanted.quick { 3 } else { STREAMS.turns },
        ..STREAMS
    };
    let folder = bench.ground.folder.to_owned();
    let place = (bench.ground.cores.tested, &*folder);
    let [count, tokens] = [cell.count, cell.tokens].map(|number| number.to_string());
    let requests = (cell.count * cell.turns).to_string();
    let more = ["--isl", "64", "--osl", &tokens, "--concurrency", &count];
    let more = [&more[..], &["--num-prompts", &requests]].concat();
    let ours = generators::tokenlag(&folder.join("streams"), backend.url(), &more);
    let url = backend.url();
    let aiperf = match generators::aiperf(&folder, url, [count, requests, tokens]) {
        Ok(generator) => generator,
        Err(why) => {
            bench.table.absent("aiperf", &why);
            return Ok(());
        }
    };
    let mut generators = vec![ours, aiperf];
    let figures = vec![figure("CPU/token", "us", false)];
    let turns = bench.wanted.turns(STREAM_TURNS);
    let measured = pairs::turns(
        &mut generators,
        turns,
        figures,
        &mut bench.order,
        |generator| {
            backend.set_script(cell.script());
            backend.take_lateness();
            backend.take_emissions();
            backend.take_requests();
            let emitted = Cell::new(0);
            let reached = |share: u64| {
                emitted.set(emitted.get() + backend.take_lateness().emissions);
                emitted.get() * 10 >= cell.all_tokens() * share
            };
            let mut process = generator.start(place)?;
            let deadline = MonoClock.now() + PATIENCE;
            // From a tenth to nine tenths of the tokens: neither is at its start nor at its report.
            process.wait_until(|| reached(1), deadline)?;
            let (spent, before) = (process.cpu(), emitted.get());
            process.wait_until(|| reached(9), deadline)?;
            let (spent, tokens) = (process.cpu().saturating_sub(spent), emitted.get() - before);
            Ok(vec![spent as f64 / tokens as f64 / 1e3])
        },
    )?;
    let goals = [Goal {
        against: "aiperf",
        ratio: 0.1,
    }];
    let title = format!("load generators, streams {}", cell.name());
    print(bench, &title, &generators, measured, &goals);
    Ok(())
}

fn figure(name: &str, unit: &'static str, more: bool) -> Figure {
    Figure {
        name: name.to_owned(),
        unit,
        more,
        values: Vec::new(),
    }
}

fn print(
    bench: &mut Bench<'_>,
    title: &str,
    generators: &[Generator],
    measured: Vec<Figure>,
    goals: &[Goal],
) {
    let names: Vec<&str> = generators.iter().map(|generator| generator.name).collect();
    bench.table.heading(title);
    for figure in measured {
        bench.table.figure(title, &figure, &names, 0, goals);
    }
}
