//! What permessage-deflate (RFC 7692) would save of an agent's session, and what it costs: `cargo bench --bench deflate`.
//!
//! No channel of tokenlag compresses. Here the messages of the preset `agent` are made by the load generator's own code, 24
//! requests whose history is resent, and the events of an answer; each is deflated as a WebSocket would, with the context of
//! the messages before it and without, and inflated again. What is printed is bytes, CPU time (the least of some sessions, both
//! ends together) and how much sooner a message would be there at some rates, that time taken off. Incremental state stands
//! beside it: it sends the new part alone.

mod messages;
mod window;

use messages::{Content, Turn};
use window::{Codec, Cost};

/// Sessions of which the least CPU time counts.
const REPEATS: usize = 5;
/// Rates for which is told what is saved, in bits per second.
const RATES: [f64; 3] = [10e6, 50e6, 100e6];
const LEVELS: [u32; 2] = [1, 6];

fn main() {
    for content in [Content::Synthetic, Content::Code] {
        let turns = messages::session(content);
        requests(content, &turns);
    }
    events(&messages::events());
}

/// Every message's cost, deflated in turn by one codec; the least of several sessions.
fn least(messages: &[&[u8]], level: u32, takeover: bool) -> Vec<Cost> {
    let mut least: Vec<Cost> = Vec::new();
    for _ in 0..REPEATS {
        let mut codec = Codec::new(level, takeover);
        let costs = messages.iter().map(|message| codec.carry(message));
        let costs: Vec<Cost> = costs.collect();
        match least.is_empty() {
            true => least = costs,
            false => least.iter_mut().zip(&costs).for_each(|(so_far, cost)| {
                so_far.nanos = so_far.nanos.min(cost.nanos);
            }),
        }
    }
    least
}

fn requests(content: Content, turns: &[Turn]) {
    println!(
        "\nRequests of `agent`, {content}: KB, and of those that are deflated CPU ms (deflate and inflate)"
    );
    let full: Vec<&[u8]> = turns.iter().map(|turn| turn.full.as_slice()).collect();
    let new: Vec<&[u8]> = turns.iter().map(|turn| turn.new.as_slice()).collect();
    let ways: Vec<(String, Vec<Cost>)> = LEVELS
        .iter()
        .flat_map(|level| [(*level, false), (*level, true)])
        .map(|(level, takeover)| (name(level, takeover), least(&full, level, takeover)))
        .collect();
    let parts = least(&new, 6, true);
    print!("{:>4} {:>8}", "turn", "full");
    ways.iter().for_each(|(name, _)| print!(" {name:>16}"));
    println!(" {:>12} {:>16}", "incremental", "deflated, 6");
    for (at, turn) in turns.iter().enumerate() {
        print!("{:>4} {:>8.1}", at + 1, kb(turn.full.len()));
        ways.iter()
            .for_each(|(_, costs)| print!(" {:>16}", told(costs[at])));
        println!(" {:>12.1} {:>16}", kb(turn.new.len()), told(parts[at]));
    }
    let whole: usize = full.iter().map(|message| message.len()).sum();
    let incremental: usize = new.iter().map(|message| message.len()).sum();
    print!("{:>4} {:>8.1}", "all", kb(whole));
    ways.iter()
        .for_each(|(_, costs)| print!(" {:>16}", told(sum(costs))));
    println!(" {:>12.1} {:>16}", kb(incremental), told(sum(&parts)));

    println!(
        "Sooner there than undeflated by so many ms in the last turn, CPU time taken off, at 10, 50 and 100 Mbit/s:"
    );
    let last = turns.len() - 1;
    let before = full[last].len();
    for (name, costs) in &ways {
        println!("  {name:<16} {}", sooner(before, costs[last]));
    }
    let alone = Cost {
        bytes: new[last].len(),
        nanos: 0,
    };
    println!("  {:<16} {}", "incremental", sooner(before, alone));
}

fn events(events: &[Vec<u8>]) {
    println!(
        "\nEvents of an answer of {} tokens: bytes an event, and CPU us (deflate and inflate)",
        events.len()
    );
    let all: Vec<&[u8]> = events.iter().map(Vec::as_slice).collect();
    let before: usize = all.iter().map(|event| event.len()).sum();
    let each = |whole: f64| whole / all.len() as f64;
    println!("  {:<16} {:>8.1}", "undeflated", each(before as f64));
    for (level, takeover) in LEVELS
        .iter()
        .flat_map(|level| [(*level, false), (*level, true)])
    {
        let cost = sum(&least(&all, level, takeover));
        let (bytes, micros) = (each(cost.bytes as f64), each(cost.nanos as f64 / 1e3));
        let saved = each(before as f64) - bytes;
        let at_10 = saved * 8.0 / RATES[0] * 1e6;
        println!(
            "  {:<16} {bytes:>8.1} {micros:>8.2}, for {at_10:.0} us less on a line of 10 Mbit/s",
            name(level, takeover)
        );
    }
}

fn name(level: u32, takeover: bool) -> String {
    match takeover {
        true => format!("{level} with context"),
        false => format!("{level} alone"),
    }
}

fn kb(bytes: usize) -> f64 {
    bytes as f64 / 1e3
}

fn told(cost: Cost) -> String {
    format!("{:.1} ({:.2})", kb(cost.bytes), cost.nanos as f64 / 1e6)
}

fn sum(costs: &[Cost]) -> Cost {
    Cost {
        bytes: costs.iter().map(|cost| cost.bytes).sum(),
        nanos: costs.iter().map(|cost| cost.nanos).sum(),
    }
}

/// Milliseconds that a message of `before` bytes is there sooner, at each rate.
fn sooner(before: usize, cost: Cost) -> String {
    let saved = |rate: &f64| {
        let line = (before as f64 - cost.bytes as f64) * 8.0 / rate * 1e3;
        format!("{:>8.1}", line - cost.nanos as f64 / 1e6)
    };
    RATES.iter().map(saved).collect::<Vec<_>>().join(" ")
}
