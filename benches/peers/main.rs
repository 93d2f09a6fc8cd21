//! tokenlag beside its peers, in one run: `cargo bench --bench peers [-- PART... PEER... CELL... [quick] [turns=NUMBER]]`.
//!
//! Parts: `proxy` (requests through tokenlag, haproxy and nginx), `sse` (streams through them), `load` (tokenlag's load
//! generator, oha and wrk on requests, AIPerf on streams), `bare` (the relay, and relays of the libraries under it: hyper,
//! tungstenite, quinn). Peers and cells (`64@2ms`, `1000@50ms`) leave others out. What is missing is fetched from the
//! registries into the build's folder. Method, goals and how to read it: docs/performance.md.

#[path = "../asking.rs"]
mod asking;
mod bare;
mod cores;
mod generators;
mod install;
mod load;
mod origin;
mod pairs;
mod process;
mod proxy;
mod quantile;
mod requests;
mod sides;
mod sse;
mod streams;
mod table;
mod wanted;

use std::net::SocketAddr;
use std::process::ExitCode;

use crate::cores::Cores;
use crate::install::Program;
use crate::pairs::Order;
use crate::sides::{Ground, Side};
use crate::table::Table;
use crate::wanted::Wanted;

/// What every part works with.
pub struct Bench<'a> {
    wanted: Wanted,
    ground: Ground<'a>,
    order: Order,
    table: Table,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    // The bench starts itself as a relay to compare with.
    if let [first, rest @ ..] = &words[..]
        && first == bare::WORD
    {
        return told(bare::relay(rest));
    }
    match Wanted::read(words.into_iter()) {
        Ok(wanted) => told(run(wanted)),
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}

fn told(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(wanted: Wanted) -> Result<(), String> {
    cores::raise_open_files();
    let cores = Cores::of_this_process()?;
    let folder = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
    let mut bench = Bench {
        wanted,
        ground: Ground {
            cores,
            folder: folder.path(),
        },
        order: Order::new(),
        table: Table::default(),
    };
    bench.say_who()?;
    cores::bind(cores.generator)?;
    let mut failed = Vec::new();
    for name in wanted::PARTS {
        if !bench.wanted.has_part(name) {
            continue;
        }
        let outcome = match name {
            "proxy" => proxy::part(&mut bench),
            "sse" => sse::part(&mut bench),
            "load" => load::part(&mut bench),
            _ => bare::part(&mut bench),
        };
        if let Err(message) = outcome {
            bench.table.absent(&format!("the rest of {name}"), &message);
            failed.push(name);
        }
    }
    bench.table.end();
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!("not whole: {}", failed.join(", "))),
    }
}

impl Bench<'_> {
    /// Fetches the peers before anything is measured, and says which they are.
    fn say_who(&self) -> Result<(), String> {
        let cores = self.ground.cores;
        println!(
            "under test on core {}, generator on {}, origin on {}; ratios with 95 % intervals over the turns",
            cores.tested, cores.generator, cores.origin
        );
        let peers = [
            ("haproxy", "-v", &["proxy", "sse"][..]),
            ("nginx", "-v", &["proxy", "sse"]),
            ("oha", "--version", &["load"]),
            ("wrk", "-v", &["load"]),
            ("aiperf", "--version", &["load"]),
        ];
        for (name, flag, parts) in peers {
            if self.wanted.has_peer(name) && parts.iter().any(|part| self.wanted.has_part(part)) {
                match Program::of_peer(name) {
                    Ok(program) => println!("{name}: {}", program.version(flag)),
                    Err(why) => println!("{name}: {why}"),
                }
            }
        }
        Ok(())
    }

    /// Puts the other reverse proxies beside those that are there; one that cannot be had is told.
    fn add_peers(&mut self, sides: &mut Vec<Side>, upstream: SocketAddr) {
        for name in ["haproxy", "nginx"] {
            if self.wanted.has_peer(name) {
                let started = match name {
                    "haproxy" => Side::haproxy(&self.ground, upstream),
                    _ => Side::nginx(&self.ground, upstream),
                };
                match started {
                    Ok(side) => sides.push(side),
                    Err(why) => self.table.absent(name, &why),
                }
            }
        }
    }
}
