//! What came through, and what was lost.

use std::fmt::Write;
use std::io;

use super::super::chance;
use super::super::flood::{Flood, START, TCP};
use super::super::throughput::expected;
use super::{Judge, mbit};
use crate::units::show_rate;
use crate::{ByProtocol, LinkStats, Way};

/// How much of its rate a line may be off.
const OFF: f64 = 0.02;

impl Judge<'_> {
    /// A line that carries too little for TCP's throughput to be told.
    pub(in crate::check) fn too_slow(&mut self, name: &str, way: &Way) {
        let asked = format!("up to {}", show_rate(way.rate));
        let found = format!(
            "not told: {} s are a handful of packets",
            (TCP - START) / 1_000_000_000
        );
        self.add(&format!("TCP throughput {name}"), asked, found, None);
    }

    /// `window` is what the buffers let be under way, in bytes.
    pub(in crate::check) fn tcp(
        &mut self,
        name: &str,
        way: &Way,
        window: Option<u64>,
        found: &io::Result<f64>,
        work: Option<(u64, u64)>,
    ) {
        let what = format!("TCP throughput {name}");
        let rate = match found {
            Ok(rate) => *rate,
            Err(error) => return self.failed(&what, error),
        };
        let expected = expected(self.spec, way, window);
        let line = expected.line.map(mbit);
        let asked = match (&expected.window, line) {
            (Some((most, bytes)), line) => {
                let line = line.unwrap_or_else(|| "unlimited".to_owned());
                let held = f64::from(*bytes as u32) / 1_048_576.0;
                format!(
                    "up to {}: {held:.1} MiB of socket buffer; line {line}",
                    mbit(*most)
                )
            }
            (None, Some(line)) => format!("up to {line}"),
            (None, None) => "unlimited".to_owned(),
        };
        // What loss leaves, and what overtaking does, is the congestion control's doing, not the link's.
        let is_plain = !self.loses() && !self.spec.reorder;
        let good = is_plain.then(|| expected.good.contains(&rate));
        let busy = work.map(|(before, after)| (after - before) as f64 / TCP as f64);
        let beside = busy.map_or(String::new(), |busy| {
            format!("; the relay worked for {:.0} % of a core", busy * 100.0)
        });
        self.add(&what, asked, mbit(rate) + &beside, good);
    }

    /// Whether what a flood left on the link has gone.
    pub(in crate::check) fn settled(&mut self, is_settled: bool) {
        if !is_settled {
            self.add(
                "what is left on the link",
                "nothing a minute later".to_owned(),
                "packets: what was measured next waited behind them".to_owned(),
                Some(false),
            );
        }
    }

    /// More than the line takes was sent.
    pub(in crate::check) fn udp(
        &mut self,
        name: &str,
        way: &Way,
        rate: u64,
        found: &io::Result<Flood>,
    ) {
        let what = format!("UDP throughput {name}");
        let flood = match found {
            Ok(flood) => flood,
            Err(error) => return self.failed(&what, error),
        };
        let through = 1.0 - way.loss.mean();
        let most = rate as f64 * through;
        let asked = format!("{} (at most {})", mbit(most), show_rate(Some(rate)));
        let mut found = mbit(flood.rate);
        let came = flood.received + flood.no_room;
        if came < 3 {
            return self.add(&what, asked, format!("not told: {came} datagrams"), None);
        }
        // What the sample may be off by chance, beside what the line may.
        let lost = chance::interval((came as f64 / through) as u64, &way.loss);
        let strays = lost.map(|lost| (lost.end() - lost.start()) as f64 / 2.0 / came as f64);
        let fits = |strays: f64| (flood.rate / most - 1.0).abs() < OFF + strays;
        // A sender that cannot fill the line shows nothing of its rate.
        let good = match flood.offered > rate as f64 * (1.0 + OFF) {
            true => strays.map(fits),
            false => {
                let _ = write!(found, "; only {} could be sent", mbit(flood.offered));
                None
            }
        };
        if flood.no_room > 0 {
            let _ = write!(
                found,
                "; {} came to a full receive buffer, none of the link's",
                flood.no_room
            );
        }
        self.add(&what, asked, found, good);
    }

    /// The emulator's own count of what it lost of a protocol, in either direction.
    pub(in crate::check) fn loss(&mut self, protocol: &str, stats: &LinkStats) {
        self.overflow += stats.overflow();
        let ways = [
            ("up", &self.spec.up, &stats.up),
            ("down", &self.spec.down, &stats.down),
        ];
        for (name, way, count) in ways {
            let of = |count: &ByProtocol| match protocol {
                "TCP" => count.tcp,
                _ => count.udp,
            };
            // What the queue dropped never reached the line.
            let reached = of(&count.packets).saturating_sub(count.queue_full);
            let lost = of(&count.lost);
            let allowed = chance::interval(reached, &way.loss);
            let asked = match &allowed {
                Some(allowed) if allowed.start() == allowed.end() => allowed.start().to_string(),
                Some(allowed) => format!("{} to {}", allowed.start(), allowed.end()),
                None => format!("about {:.0}", reached as f64 * way.loss.mean()),
            };
            let mut found = lost.to_string();
            if allowed.is_none() {
                found.push_str("; not judged: no interval is known for such a loss");
            }
            let good = allowed.map(|allowed| allowed.contains(&lost));
            self.alike.lost(protocol, lost, reached, good);
            let what = format!("{protocol} loss {name}");
            self.add(&what, format!("{asked} of {reached} packets"), found, good);
        }
    }
}
