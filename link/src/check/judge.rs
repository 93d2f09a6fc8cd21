//! What was asked beside what was found, in words, and whether the one fits the other.

mod alike;
mod emulator;
mod traffic;

use std::fmt::Write;
use std::io;

use alike::Alike;

use super::Finding;
use super::echo::Connects;
use super::flood::Flood;
use crate::units::show_span;
use crate::{Link, LinkSpec, LinkStats, Way};

/// What the kernel and two sockets may add to a link's own time, in nanoseconds: at the median, and of the slowest.
const SOCKETS: u64 = 500_000;
const SLOWEST: u64 = 2_000_000;
/// Round trips of which the slowest one of a hundred can be told; of fewer it is the slowest one of ten.
const MANY: usize = 100;

/// Puts findings together.
pub(super) struct Judge<'a> {
    spec: &'a LinkSpec,
    findings: Vec<Finding>,
    overflow: u64,
    alike: Alike,
}

impl<'a> Judge<'a> {
    pub(super) fn of(link: &'a Link) -> Self {
        Self {
            spec: link.spec(),
            findings: Vec::new(),
            overflow: 0,
            alike: Alike::default(),
        }
    }

    fn add(&mut self, what: &str, asked: String, found: String, good: Option<bool>) {
        self.findings.push(Finding {
            what: what.to_owned(),
            asked,
            found,
            good,
        });
    }

    fn failed(&mut self, what: &str, error: &io::Error) {
        self.add(what, String::new(), format!("failed: {error}"), Some(false));
    }

    pub(super) fn connects(&mut self, what: &str, found: &io::Result<Connects>) {
        match found {
            Err(error) => self.failed(what, error),
            Ok(Connects { took, control }) => {
                self.spans(what, took, !self.loses(), None);
                let [client, server] = control;
                let asked = self.spec.cc.clone();
                let good = asked.as_ref().map(|it| it == client && it == server);
                self.add(
                    &format!("{what}: congestion control"),
                    asked.unwrap_or_else(|| "the system's".to_owned()),
                    format!("client {client}, server {server}"),
                    good,
                );
            }
        }
    }

    /// Round trips over the link, beside those that the machine has by itself.
    pub(super) fn echoes(
        &mut self,
        what: &str,
        took: &io::Result<Vec<u64>>,
        own: &io::Result<Vec<u64>>,
    ) {
        // What TCP lost it sends again, which takes its time.
        let is_whole = !what.starts_with("TCP") || !self.loses();
        match took {
            Err(error) => self.failed(what, error),
            Ok(took) => {
                self.alike.echoes(what, took);
                self.spans(what, took, is_whole, own.as_deref().ok());
            }
        }
    }

    fn loses(&self) -> bool {
        self.spec.up.loss.mean() + self.spec.down.loss.mean() > 0.0
    }

    /// The median and the slowest; of what `is_whole` both are judged.
    fn spans(&mut self, what: &str, took: &[u64], is_whole: bool, own: Option<&[u64]>) {
        let (least, most) = self.round_trip();
        let asked = match self.spec.up.jitter + self.spec.down.jitter {
            jitter if jitter.is_zero() => show_span(self.spec.rtt()),
            jitter => format!(
                "{} to {}",
                show_span(self.spec.rtt()),
                show_span(self.spec.rtt() + jitter)
            ),
        };
        let Some((p50, name, slow)) = middle_and_slow(took) else {
            return self.add(what, asked, "nothing came back".to_owned(), Some(false));
        };
        let is_slow = is_whole && slow > most + SLOWEST;
        let good = (least..=most + SOCKETS).contains(&p50) && !is_slow;
        let mut found = format!("p50 {}, {name} {} ({})", ms(p50), ms(slow), took.len());
        if let Some((p50, name, slow)) = own.and_then(middle_and_slow) {
            let _ = write!(found, "; without the link {}, {name} {}", ms(p50), ms(slow));
            if !good && (p50 > SOCKETS || slow > SLOWEST) {
                found.push_str("; this machine is late by itself");
            }
        }
        self.add(what, asked, found, Some(good));
    }

    /// The least and the most that a small packet's round trip takes on the idle link, in nanoseconds.
    fn round_trip(&self) -> (u64, u64) {
        let least = self.spec.rtt().as_nanos() as u64;
        // 60 bytes: a SYN, or a segment of one byte with timestamps.
        let slow = |way: &Way| way.rate.map_or(0, |rate| 60 * 8_000_000_000 / rate);
        let jitter = self.spec.up.jitter + self.spec.down.jitter;
        let more = jitter.as_nanos() as u64 + slow(&self.spec.up) + slow(&self.spec.down);
        (least, least + more)
    }

    /// Datagrams of a steady stream, by what became of them.
    pub(super) fn datagrams(&mut self, stats: &LinkStats, floods: &[io::Result<Flood>]) {
        let (mut sent, mut received, mut no_room) = (0, 0, 0);
        for flood in floods {
            match flood {
                Ok(flood) => {
                    sent += flood.sent;
                    received += flood.received;
                    no_room += flood.no_room;
                }
                Err(error) => self.failed("a steady stream", error),
            }
        }
        let gone = stats.up.lost.udp + stats.down.lost.udp;
        let gone = gone + stats.up.queue_full + stats.down.queue_full + stats.overflow();
        let missing = sent - received;
        let asked = match no_room {
            0 => format!("{gone}, as the relay counts"),
            _ => format!("{gone}, as the relay counts, and {no_room} that a full buffer dropped"),
        };
        self.add(
            "UDP datagrams that did not come",
            asked,
            format!("{missing} of {sent}"),
            Some(missing == gone + no_room),
        );
    }

    /// What the emulator dropped, of packets that are judged by nothing else.
    pub(super) fn dropped(&mut self, stats: &LinkStats) {
        self.overflow += stats.overflow();
    }

    pub(super) fn finish(mut self, unread: Option<u64>) -> Vec<Finding> {
        self.alike();
        let dropped = self.overflow + unread.unwrap_or(0);
        self.add(
            "packets that the emulator dropped",
            "0".to_owned(),
            dropped.to_string(),
            Some(dropped == 0),
        );
        self.findings
    }
}

/// The median, and the slowest one of a hundred or of ten, with its name.
fn middle_and_slow(took: &[u64]) -> Option<(u64, &'static str, u64)> {
    let (name, share) = match took.len() >= MANY {
        true => ("p99", 0.99),
        false => ("p90", 0.9),
    };
    Some((quantile(took, 0.5)?, name, quantile(took, share)?))
}

fn quantile(values: &[u64], share: f64) -> Option<u64> {
    let mut values = values.to_vec();
    values.sort_unstable();
    let at = (values.len() as f64 * share).ceil() as usize;
    values.get(at.saturating_sub(1)).copied()
}

fn ms(nanos: u64) -> String {
    format!("{:.3} ms", nanos as f64 / 1e6)
}

fn mbit(rate: f64) -> String {
    format!("{:.1} Mbit/s", rate / 1e6)
}

#[cfg(test)]
mod tests;
