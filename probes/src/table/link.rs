//! What the emulated link did, in a line or two below the conditions.

use crate::link::{LinkActivity, WayActivity};
use crate::report::Report;

use super::quantity::{TimeUnit, three_digits};
use super::wrap::wrapped;

/// The line, wrapped; empty where there is no link.
pub(super) fn did(report: &Report, width: usize) -> String {
    let line = report
        .link
        .as_ref()
        .map(|link| wrapped(&told(link), width, "  "));
    line.unwrap_or_default()
}

fn told(link: &LinkActivity) -> String {
    let both = |of: fn(&WayActivity) -> u64| of(&link.up) + of(&link.down);
    let mut parts = vec![
        format!("{} up, {} down", carried(&link.up), carried(&link.down)),
        format!("{} lost", both(|way| way.lost)),
        format!("{} dropped by the queue", both(|way| way.dropped)),
    ];
    for (count, what) in [
        (both(|way| way.reordered), "reordered"),
        (link.missed(), "dropped by the emulator"),
    ] {
        parts.extend((count > 0).then(|| format!("{count} {what}")));
    }
    if let (Some(p50), Some(p99)) = (link.release_error_p50_ns, link.release_error_p99_ns) {
        parts.push(format!(
            "released {} late (p50), {} (p99)",
            time(p50),
            time(p99)
        ));
    }
    if let Some(share) = link.relay_share() {
        parts.push(format!(
            "the relay worked {} % of a core, {} % in its busiest 100 ms",
            three_digits(share * 100.0),
            three_digits(link.relay_busiest_share * 100.0)
        ));
    }
    format!("Link: {}", parts.join(", "))
}

fn carried(way: &WayActivity) -> String {
    let packets = match way.packets {
        1 => "packet",
        _ => "packets",
    };
    format!(
        "{} {packets} ({} MB)",
        way.packets,
        three_digits(way.bytes as f64 / 1e6)
    )
}

fn time(nanos: u64) -> String {
    let unit = TimeUnit::for_values([nanos as f64]);
    format!("{} {}", unit.show(nanos as f64), unit.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_told_by_what_it_carried_and_what_it_cost() {
        let way = |packets, lost| WayActivity {
            packets,
            bytes: packets * 1_500,
            delivered: packets - lost,
            lost,
            ..WayActivity::default()
        };
        let plain = LinkActivity {
            span_ns: 1_000_000_000,
            up: way(1, 0),
            down: way(2_000, 7),
            held: 1_994,
            release_error_p50_ns: Some(4_000),
            release_error_p99_ns: Some(32_000),
            unread: Some(0),
            relay_cpu_ns: Some(50_000_000),
            relay_work_ns: Some(12_000_000),
            relay_busiest_share: 0.345,
        };
        assert_eq!(
            told(&plain),
            "Link: 1 packet (0.002 MB) up, 2000 packets (3.00 MB) down, 7 lost, 0 dropped by the queue, released 4.00 us late \
             (p50), 32.0 us (p99), the relay worked 1.20 % of a core, 34.5 % in its busiest 100 ms"
        );
        let mut odd = LinkActivity {
            release_error_p50_ns: None,
            relay_work_ns: None,
            unread: Some(5),
            ..plain
        };
        odd.down.reordered = 3;
        let text = told(&odd);
        assert!(
            text.ends_with("0 dropped by the queue, 3 reordered, 5 dropped by the emulator"),
            "{text}"
        );
    }
}
