//! What TCP can bring through a link at most: what the line takes, and what the sockets' buffers keep under way.

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::flood::{START, TCP};
use crate::{Link, LinkSpec, Side, Way};

/// Headers of IPv4 and TCP with timestamps, in bytes.
const HEADERS: u16 = 52;
/// Packets from which a throughput can be told.
const FEWEST: u64 = 30;
/// The share of the line that a sender fills at least, who is held by nothing else, and what is counted too much at most.
const FILLED: f64 = 0.85;
const OVER: f64 = 1.02;
/// The kernel counts what it keeps of a packet besides its payload against the buffer: so much of it is payload at least.
const PAYLOAD: f64 = 0.5;
/// What an unshaped link carries at least, in bits per second.
const UNSHAPED: f64 = 1e9;

/// Whether a line carries enough in the time that TCP is measured.
pub(super) fn can_be_told(spec: &LinkSpec, way: &Way) -> bool {
    let bits = |rate: u64| u128::from(rate) * u128::from(TCP - START) / 1_000_000_000;
    way.rate
        .is_none_or(|rate| bits(rate) >= u128::from(FEWEST * 8 * u64::from(spec.mtu)))
}

/// Bytes that TCP's buffers let be under way in that direction at most, as the two sides' systems have it; `None`: they do not
/// tell.
pub(super) fn window(link: &Link, down: bool) -> Option<u64> {
    let (from, to) = match down {
        true => (&link.server, &link.client),
        false => (&link.client, &link.server),
    };
    let sent = most_of(from, "tcp_wmem").ok()?;
    let received = most_of(to, "tcp_rmem").ok()?;
    Some(sent.min(received))
}

/// The third of the setting's figures: least, usual, most.
fn most_of(side: &Side, setting: &str) -> io::Result<u64> {
    let path = format!("/proc/sys/net/ipv4/{setting}");
    let text = side.namespace.within(|| fs::read_to_string(path))??;
    let most = text.split_whitespace().nth(2).map(str::parse);
    match most {
        Some(Ok(most)) => Ok(most),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// What TCP should bring through, in payload bits per second.
#[derive(Debug, PartialEq)]
pub(super) struct Expected {
    /// What the line takes; `None`: as much as there is.
    pub(super) line: Option<f64>,
    /// What the buffers allow over that round trip, and their bytes, where that is less.
    pub(super) window: Option<(f64, u64)>,
    /// What is good.
    pub(super) good: RangeInclusive<f64>,
}

/// Over `way` of a link that loses nothing, with so many bytes under way at most.
pub(super) fn expected(spec: &LinkSpec, way: &Way, window: Option<u64>) -> Expected {
    let share = f64::from(spec.mtu - HEADERS) / f64::from(spec.mtu);
    let line = way.rate.map(|rate| rate as f64 * share);
    let over = |bytes: u64, round_trip: Duration| bytes as f64 * 8.0 / round_trip.as_secs_f64();
    let shortest = spec.rtt();
    let longest = shortest + spec.up.jitter + spec.down.jitter;
    let held = window.filter(|_| !shortest.is_zero());
    let least = match line {
        Some(line) => line * FILLED,
        None => UNSHAPED,
    };
    let least = held.map_or(least, |bytes| least.min(over(bytes, longest) * PAYLOAD));
    let held = held.map(|bytes| (over(bytes, shortest), bytes));
    let held = held.filter(|(rate, _)| line.is_none_or(|line| *rate < line));
    let most = held.map(|(rate, _)| rate).or(line);
    Expected {
        line,
        window: held,
        good: least..=most.map_or(f64::INFINITY, |most| most * OVER),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: &str, window: u64, least: f64, most: f64, is_held: bool) {
        let spec = LinkSpec::parse(spec).unwrap();
        let found = expected(&spec, &spec.up, Some(window));
        assert!((found.good.start() / least - 1.0).abs() < 0.01, "{found:?}");
        let is_most = *found.good.end() == most || (found.good.end() / most - 1.0).abs() < 0.01;
        assert!(is_most, "{found:?}");
        assert_eq!(found.window.is_some(), is_held, "{found:?}");
    }

    #[test]
    fn the_least_of_line_and_buffers_is_asked() {
        let payload = 1_448.0 / 1_500.0;
        // 4 MiB in 60 ms are 559 Mbit/s: less than the line takes.
        check("cross-country", 4 << 20, 279.6e6, 559.2e6 * 1.02, true);
        check("metro", 4 << 20, 0.85e9 * payload, 1.02e9 * payload, false);
        // The buffers hold a little more than the line, but not of payload alone.
        check(
            "rtt=30ms,rate=1gbit",
            4 << 20,
            559.2e6,
            1.02e9 * payload,
            false,
        );
        check("rtt=0", 4 << 20, 1e9, f64::INFINITY, false);
        check("rtt=60ms", 4 << 20, 279.6e6, 559.2e6 * 1.02, true);
    }

    #[test]
    fn a_line_that_carries_a_handful_of_packets_tells_nothing() {
        for (rate, can) in [("100kbit", false), ("1mbit", true), ("unlimited", true)] {
            let spec = LinkSpec::parse(&format!("rate={rate}")).unwrap();
            assert_eq!(can_be_told(&spec, &spec.up), can, "{rate}");
        }
    }
}
