//! Load generators: what a request and a token cost the client, while its run is in full swing.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokenlag_probes::{Clock, MonoClock, TraceId};

use crate::Bench;
use crate::install::Program;
use crate::origin::{Origin, STREAM};
use crate::pairs::{self, Figure};
use crate::process::Process;
use crate::sse;
use crate::streams::Streams;
use crate::table::Goal;

/// Turns of each generator on requests.
const TURNS: usize = 10;
/// The same on streams: AIPerf takes half a minute for each.
const STREAM_TURNS: usize = 6;
const CONNECTIONS: &str = "64";
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

/// A generator, and how it is started: with the number of its turn.
struct Generator {
    name: &'static str,
    program: Program,
    arguments: Box<dyn Fn(u32) -> Vec<String>>,
    turn: u32,
}

impl Generator {
    fn start(&mut self, bench: (usize, &Path)) -> Result<Process, String> {
        self.turn += 1;
        let (core, folder) = bench;
        let arguments = (self.arguments)(self.turn);
        let mut process = Process::start(self.name, &self.program, arguments, core, folder)?;
        process.ignore_output();
        Ok(process)
    }
}

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

/// tokenlag's own, with a folder for each run.
fn tokenlag(folder: &Path, url: String, more: &[&str]) -> Generator {
    let words =
        "load --model scripted --turns 1 --multiplex --num-warmups 0 --ui none --allow-untrusted";
    let mut common: Vec<String> = words.split(' ').map(str::to_owned).collect();
    common.extend(["--url".to_owned(), url]);
    common.extend(more.iter().map(|&word| word.to_owned()));
    let folder = folder.to_owned();
    Generator {
        name: "tokenlag",
        program: Program::at(env!("CARGO_BIN_EXE_tokenlag")),
        arguments: Box::new(move |turn| {
            let out = format!("--out={}/load-{turn}-{}", folder.display(), common.len());
            [&common[..], &[out]].concat()
        }),
        turn: 0,
    }
}

fn requests(bench: &mut Bench<'_>) -> Result<(), String> {
    let origin = Origin::start("text/event-stream", STREAM, bench.ground.cores.origin)?;
    let url = format!("http://{}", origin.address());
    let folder = bench.ground.folder.to_owned();
    let more = ["--isl", "16", "--osl", "1", "--concurrency", CONNECTIONS];
    let more = [&more[..], &["--duration", "10m"]].concat();
    let mut generators = vec![tokenlag(&folder, url.clone(), &more)];
    let place = (bench.ground.cores.tested, &*folder);

    // Whatever tokenlag sends, the others send too.
    let mut first = generators[0].start(place)?;
    let deadline = MonoClock.now() + PATIENCE;
    first.wait_until(|| origin.requests() >= WARM, deadline)?;
    drop(first);
    let body = folder.join("body.json");
    write(&body, &origin.body())?;
    let target = format!("{url}/v1/chat/completions");
    let others: [(&str, fn(&Path, String) -> Result<Generator, String>); 2] =
        [("oha", oha), ("wrk", wrk)];
    for (name, generator) in others {
        if bench.wanted.has_peer(name) {
            match generator(&body, target.clone()) {
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
            let (end, spent) = (MonoClock.now(), process.cpu() - spent);
            if process.has_ended() || count == 0.0 {
                return Err(process.obituary());
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
    let ours = tokenlag(&folder, backend.url(), &more);
    let words = "profile -m scripted --endpoint-type chat --streaming --tokenizer builtin --ui none --isl 64";
    let mut arguments: Vec<String> = words.split(' ').map(str::to_owned).collect();
    for (flag, value) in [
        ("--url", backend.url()),
        ("--concurrency", count),
        ("--request-count", requests),
        ("--osl", tokens),
        (
            "--output-artifact-dir",
            folder.join("aiperf").display().to_string(),
        ),
    ] {
        arguments.extend([flag.to_owned(), value]);
    }
    let aiperf = Generator {
        name: "aiperf",
        program: match Program::of_peer("aiperf") {
            Ok(program) => program,
            Err(why) => {
                bench.table.absent("aiperf", &why);
                return Ok(());
            }
        },
        arguments: Box::new(move |_| arguments.clone()),
        turn: 0,
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
            let (spent, tokens) = (process.cpu() - spent, emitted.get() - before);
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

fn oha(body: &Path, target: String) -> Result<Generator, String> {
    let body = body.display().to_string();
    let words = format!("--no-tui -c {CONNECTIONS} -z 10m -m POST -T application/json -D");
    let mut arguments: Vec<String> = words.split(' ').map(str::to_owned).collect();
    arguments.extend([body, "-H".to_owned(), traceparent(": "), target]);
    Ok(Generator {
        name: "oha",
        program: Program::of_peer("oha")?,
        arguments: Box::new(move |_| arguments.clone()),
        turn: 0,
    })
}

fn wrk(body: &Path, target: String) -> Result<Generator, String> {
    let script = body.with_file_name("post.lua");
    let lines = format!(
        "wrk.method = 'POST'\nwrk.body = io.open('{}'):read('*a')\n\
         wrk.headers['content-type'] = 'application/json'\nwrk.headers['accept'] = 'text/event-stream'\n\
         wrk.headers['{}'\n",
        body.display(),
        traceparent("'] = '")
    );
    write(&script, lines.as_bytes())?;
    let words = format!(
        "-t 1 -c {CONNECTIONS} -d 10m -s {} {target}",
        script.display()
    );
    let arguments: Vec<String> = words.split(' ').map(str::to_owned).collect();
    Ok(Generator {
        name: "wrk",
        program: Program::of_peer("wrk")?,
        arguments: Box::new(move |_| arguments.clone()),
        turn: 0,
    })
}

fn traceparent(between: &str) -> String {
    format!(
        "traceparent{between}{}",
        TraceId::from_bits(1).traceparent()
    )
}

fn write(path: &PathBuf, bytes: &[u8]) -> Result<(), String> {
    fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))
}
