//! What a connection takes of the proxy's memory, idle and with an exchange under way: cargo bench --bench memory.
//!
//! Arguments choose: numbers of connections (`1000`, `10000`; as the usual ones) and channels (`http`, `http2`, `http3`, `ws`, `quic`). For
//! each of both a proxy is started anew, so many connections are opened to it by this process, each carries one exchange and is
//! idle then, and in the end each (or as many as the system's limit of open files lets be) has one under way that an upstream, a
//! third process, holds open. What is counted is the proxy's anonymous resident memory (`RssAnon` of /proc/PID/status): what the
//! connections made it grow by, divided by their number, and what the exchanges under way made it grow by after that. Each of those has
//! a connection of its own to the upstream, which is in its figure; what the kernel has of either is in none.

mod ends;
mod files;
mod upstream;

use std::process::{Command, ExitCode};
use std::time::Duration;

use tokenlag_probes::Transport;

use crate::ends::{Ends, Failure};

/// What is measured where no argument says it.
const COUNTS: [u64; 2] = [1_000, 10_000];
const CHANNELS: [Transport; 5] = [
    Transport::Http,
    Transport::Http2,
    Transport::Http3,
    Transport::Ws,
    Transport::Quic,
];

/// Begins the words of a process that measures one size of one channel: channel, connections, active ones.
const ONE: &str = "--one";

/// How long one size of one channel may take.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == upstream::WORD) {
        return upstream::serve();
    }
    if let [first, rest @ ..] = &words[..]
        && first == ONE
    {
        return one(rest);
    }
    let (mut counts, mut channels) = (Vec::new(), Vec::new());
    for word in words.iter().filter(|word| *word != "--bench") {
        match (word.parse::<u64>(), word.parse::<Transport>()) {
            (Ok(count @ 1..), _) => counts.push(count),
            (_, Ok(channel)) if CHANNELS.contains(&channel) => channels.push(channel),
            _ => {
                let known = CHANNELS.map(|channel| channel.to_string()).join(", ");
                eprintln!("'{word}' is neither a number of connections nor one of {known}");
                return ExitCode::from(2);
            }
        }
    }
    let counts = if counts.is_empty() {
        COUNTS.to_vec()
    } else {
        counts
    };
    let channels = if channels.is_empty() {
        CHANNELS.to_vec()
    } else {
        channels
    };
    println!("Memory of the proxy for each connection, in KiB");
    println!(
        "{:<8} {:>11} {:>8} {:>8}",
        "channel", "connections", "idle", "active"
    );
    println!("{}", "-".repeat(38));
    let mut ended_well = true;
    for &count in &counts {
        let active = match files::active(count) {
            Ok(active) => active,
            Err(refusal) => {
                eprintln!("{count} connections: {refusal}");
                ended_well = false;
                continue;
            }
        };
        for &channel in &channels {
            ended_well &= in_its_own_process(channel, count, active);
        }
    }
    if ended_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Measures in a process of its own; tells whether that went well. A client of QUIC has room for 3 MB of datagrams, of which next to
/// nothing is touched as long as the memory is fresh. What another size left behind is cleared as it is used again, and 10,000
/// times 3 MB are more than most machines have.
fn in_its_own_process(channel: Transport, count: u64, active: u64) -> bool {
    let status = std::env::current_exe().and_then(|program| {
        Command::new(program)
            .args([ONE, &channel.to_string()])
            .args([count, active].map(|number| number.to_string()))
            .status()
    });
    match status {
        Ok(status) if status.success() => true,
        // It has said why.
        Ok(status) if status.code().is_some() => false,
        Ok(status) => {
            eprintln!(
                "{channel} with {count} connections: the process that measured it ended with {status}"
            );
            false
        }
        Err(error) => {
            eprintln!("{channel} with {count} connections: no process could be started: {error}");
            false
        }
    }
}

/// Measures what the words say, and prints it.
fn one(words: &[String]) -> ExitCode {
    let [channel, count, active] = words else {
        eprintln!("{ONE} CHANNEL CONNECTIONS ACTIVE");
        return ExitCode::from(2);
    };
    let (Ok(transport), Ok(count), Ok(active)) = (channel.parse(), count.parse(), active.parse())
    else {
        eprintln!("{words:?} are no channel and two numbers");
        return ExitCode::from(2);
    };
    match measured(transport, count, active) {
        Ok((idle, active)) => {
            println!("{channel:<8} {count:>11} {idle:>8.1} {active:>8.1}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{channel} with {count} connections: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// KiB of a connection, idle and active.
fn measured(channel: Transport, count: u64, active: u64) -> Result<(f64, f64), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    let local = tokio::task::LocalSet::new();
    let work = async {
        let ends = Ends::start(channel).await?;
        let measured = tokio::time::timeout(PATIENCE, ends.measure(count, active)).await;
        measured.unwrap_or_else(|_| Err(format!("not done within {PATIENCE:?}").into()))
    };
    local.block_on(&runtime, work)
}
